import pytest
import torch
from torch import nn
from torch.nn import functional as F

from earn_plugin.archs.attention import ChannelAttention, NonLocalAttention
from earn_plugin.archs.dual_attention_rcan_arch import DualAttentionRCAN


def small(**arguments) -> DualAttentionRCAN:
    torch.manual_seed(0)
    sizes = {'num_feat': 8, 'num_group': 2, 'num_block': 2, 'squeeze_factor': 4}
    return DualAttentionRCAN(**{**sizes, **arguments}).double()


def conv_count(inputs: int, outputs: int, kernel_size: int) -> int:
    return inputs * outputs * kernel_size**2 + outputs


@pytest.mark.parametrize(('mode', 'projections'), [('gaussian', 1), ('embedded', 3)])
def test_has_the_parameters_of_rcan_and_of_the_spatial_attention(mode, projections):
    spatial = projections * conv_count(64, 32, 1) + conv_count(32, 64, 1)
    channel = conv_count(64, 4, 1) + conv_count(4, 64, 1)
    conv = conv_count(64, 64, 3)
    groups = 3 * (3 * (2 * conv + spatial + channel) + conv)
    upsampler = 2 * conv_count(64, 256, 3)
    count = conv_count(3, 64, 3) + groups + conv + upsampler + conv_count(64, 3, 3)
    assert sum(p.numel() for p in DualAttentionRCAN(non_local_mode=mode).parameters()) == count


def test_each_channel_attention_has_a_spatial_one_before_it():
    found = [type(m) for m in small().modules() if isinstance(m, (NonLocalAttention, ChannelAttention))]
    assert found == [NonLocalAttention, ChannelAttention] * 4


def plain_unit(x, unit):
    spatial, channel = unit.attention
    out = spatial(unit.conv2(unit.conv1(x).clamp(min=0)))
    squeeze, _, excite = channel.bottleneck
    scale = (out.mean((2, 3)) @ squeeze.weight[:, :, 0, 0].T + squeeze.bias).clamp(min=0)
    scale = scale @ excite.weight[:, :, 0, 0].T + excite.bias
    return out * scale.sigmoid()[:, :, None, None] + x


@pytest.mark.parametrize(('upscale', 'steps'), [(2, [2]), (3, [3]), (4, [2, 2]), (8, [2, 2, 2])])
def test_network_equals_the_plain_formula(upscale, steps):
    network = small(upscale=upscale)
    images = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    mean = torch.tensor((0.4488, 0.4371, 0.4040)).double()[:, None, None]  # rounded to float32, as in the network
    shallow = out = network.conv_first(images - mean)
    for group in network.body:
        inner = out
        for unit in group.blocks:
            inner = plain_unit(inner, unit)
        out = group.conv(inner) + out
    out = network.conv_after_body(out) + shallow
    convs = [layer for layer in network.upsample if isinstance(layer, nn.Conv2d)]
    for conv, step in zip(convs, steps, strict=True):
        out = F.pixel_shuffle(conv(out), step)
    assert torch.allclose(network(images), network.conv_last(out) + mean, rtol=0, atol=1e-12)

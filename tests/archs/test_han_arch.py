import pytest
import torch
from torch import nn
from torch.nn import functional as F

from earn_plugin.archs.han_arch import HAN, ChannelSpatialAttention, LayerAttention


def small(**arguments) -> HAN:
    """In float64, with attentions that do something."""
    torch.manual_seed(0)
    network = HAN(**{'num_feat': 4, 'squeeze_factor': 2, 'num_group': 3, 'num_block': 2, **arguments}).double()
    nn.init.constant_(network.layer_attention.gamma, 0.7)
    nn.init.constant_(network.channel_spatial_attention.gamma, -0.4)
    return network


@pytest.mark.parametrize(('upscale', 'count'), [(2, 15_924_033), (4, 16_071_745)])
def test_has_the_authors_parameters(upscale, count):
    assert sum(p.numel() for p in HAN(upscale=upscale).parameters()) == count


def test_starts_with_both_attentions_as_the_identity():
    network = HAN(num_feat=4, squeeze_factor=2, num_group=2, num_block=1)
    assert network.layer_attention.gamma.tolist() == network.channel_spatial_attention.gamma.tolist() == [0]
    layers = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(network.layer_attention(layers), layers.reshape(2, 12, 5, 6))
    assert torch.equal(network.channel_spatial_attention(layers[:, 0]), layers[:, 0])


def plain_layer_attention(layers: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Row by row: the less alike two layers are, the more one takes of the other."""
    outputs = []
    for image in layers:
        mixed = []
        for row in image:
            energy = torch.stack([(row * other).sum() for other in image])
            weights = (energy.max() - energy).exp()
            weights = weights / weights.sum()
            mixed.append(gamma * sum(w * other for w, other in zip(weights, image, strict=True)) + row)
        outputs.append(torch.cat(mixed))
    return torch.stack(outputs)


@pytest.mark.parametrize('count', [1, 2, 11])
def test_layer_attention_equals_the_plain_formula(count):
    torch.manual_seed(0)
    attention = LayerAttention().double()
    nn.init.constant_(attention.gamma, 0.7)
    layers = torch.randn(2, count, 3, 2, 5, dtype=torch.float64) / 3  # so that the softmax is no maximum
    assert torch.allclose(attention(layers), plain_layer_attention(layers, attention.gamma), rtol=0, atol=1e-12)


def test_layer_attention_is_right_in_float16_autocast():
    """The energies of large features are beyond float16, whose largest number is 65504."""
    attention = LayerAttention()
    nn.init.constant_(attention.gamma, 0.5)
    layers = torch.randn(1, 3, 4, 16, 16) * 100
    with torch.autocast('cpu', torch.float16):
        out = attention(layers.half()).float()
    assert (out - attention(layers)).abs().max() < 1


def plain_channel_spatial_attention(x: torch.Tensor, attention: ChannelSpatialAttention) -> torch.Tensor:
    """The 3-D conv tap by tap over neighbouring channels, rows and columns."""
    n, c, h, w = x.shape
    padded = torch.zeros(n, c + 2, h + 2, w + 2, dtype=x.dtype)
    padded[:, 1:-1, 1:-1, 1:-1] = x
    mask = attention.conv.bias.expand_as(x)
    for d in range(3):
        for i in range(3):
            for j in range(3):
                tap = attention.conv.weight[0, 0, d, i, j]
                mask = mask + tap * padded[:, d : d + c, i : i + h, j : j + w]
    return x * (attention.gamma / (1 + (-mask).exp())) + x


def test_channel_spatial_attention_equals_the_plain_formula():
    torch.manual_seed(0)
    attention = ChannelSpatialAttention().double()
    nn.init.constant_(attention.gamma, -0.4)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    assert torch.allclose(attention(x), plain_channel_spatial_attention(x, attention), rtol=0, atol=1e-12)


def plain_group(x: torch.Tensor, group: nn.Module) -> torch.Tensor:
    out = x
    for block in group.blocks:
        inner = block.conv2(block.conv1(out).clamp(min=0))
        squeeze, _, excite = block.attention.bottleneck
        mean = inner.mean((2, 3))
        scale = (mean @ squeeze.weight[:, :, 0, 0].T + squeeze.bias).clamp(min=0)
        scale = (scale @ excite.weight[:, :, 0, 0].T + excite.bias).sigmoid()
        out = inner * scale[:, :, None, None] + out
    return group.conv(out) + x


@pytest.mark.parametrize(('upscale', 'steps'), [(2, [2]), (3, [3]), (4, [2, 2]), (8, [2, 2, 2])])
def test_network_stacks_the_newest_layer_first(upscale, steps):
    """The whole network from convs, with three groups: body conv, third, second, first."""
    network = small(upscale=upscale, img_range=2.0)  # at 255 a layer looks at one other layer only
    images = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    mean = 2 * torch.tensor((0.4488, 0.4371, 0.4040)).double()  # a float32 number, as everywhere
    shallow = network.conv_first(images * 2 - mean[:, None, None])
    first = plain_group(shallow, network.groups[0])
    second = plain_group(first, network.groups[1])
    third = plain_group(second, network.groups[2])
    body = network.conv_after_groups(third)
    layers = torch.stack([body, third, second, first], 1)
    mixed = network.conv_layers(plain_layer_attention(layers, network.layer_attention.gamma))
    masked = plain_channel_spatial_attention(body, network.channel_spatial_attention)
    out = network.conv_fuse(torch.cat([masked, mixed], 1)) + shallow
    for conv, step in zip(list(network.upsample)[::2], steps, strict=True):
        out = F.pixel_shuffle(conv(out), step)
    expected = (network.conv_last(out) + mean[:, None, None]) / 2
    assert torch.allclose(network(images), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('num_group', [1, 2, 12])
def test_any_number_of_groups_works(num_group):
    network = small(num_group=num_group, num_block=1)
    assert network.conv_layers.in_channels == 4 * (num_group + 1)
    assert network(torch.rand(1, 3, 3, 2, dtype=torch.float64)).shape == (1, 3, 12, 8)

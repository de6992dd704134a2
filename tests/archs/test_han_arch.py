import pytest
import torch
from torch import nn

from earn_plugin.archs.han_arch import HAN, LayerAttention


@pytest.mark.parametrize(('upscale', 'count'), [(2, 15_924_033), (4, 16_071_745)])
def test_has_the_authors_parameter_count(upscale, count):
    assert sum(p.numel() for p in HAN(upscale=upscale).parameters()) == count


def test_both_attentions_start_as_the_identity():
    network = HAN(num_feat=4, squeeze_factor=2, num_group=2, num_block=1)
    assert network.layer_attention.gamma.tolist() == network.channel_spatial_attention.gamma.tolist() == [0]
    layers = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(network.layer_attention(layers), layers.reshape(2, 12, 5, 6))
    assert torch.equal(network.channel_spatial_attention(layers[:, 0]), layers[:, 0])


def test_layer_attention_is_correct_in_float16_autocast():
    """The energies of large features exceed 65504, the largest number of float16."""
    attention = LayerAttention()
    nn.init.constant_(attention.gamma, 0.5)
    layers = torch.randn(1, 3, 4, 16, 16) * 100
    with torch.autocast('cpu', torch.float16):
        out = attention(layers.half()).float()
    assert (out - attention(layers)).abs().max() < 1


@pytest.mark.parametrize('num_group', [1, 2, 12])
def test_any_number_of_groups_works(num_group):
    network = HAN(num_feat=4, squeeze_factor=2, num_group=num_group, num_block=1).double()
    assert network.conv_layers.in_channels == 4 * (num_group + 1)
    assert network(torch.rand(1, 3, 3, 2, dtype=torch.float64)).shape == (1, 3, 12, 8)

import pytest
import torch
from torch import nn

from earn_plugin.archs.attention import NonLocalAttention
from earn_plugin.archs.rnan_arch import RNAN


def small(**arguments) -> RNAN:
    """In float64, with non-local attentions that are not the identity."""
    torch.manual_seed(0)
    network = RNAN(**{'num_feat': 4, 'num_block': 4, 'img_range': 1.0, **arguments}).double()
    for module in network.modules():
        if isinstance(module, NonLocalAttention):
            nn.init.normal_(module.project.weight)
            nn.init.normal_(module.project.bias)
    return network


def test_has_the_authors_parameter_count():
    assert sum(p.numel() for p in RNAN().parameters()) == 9_254_979


@pytest.mark.parametrize('num_block', [2, 3, 10])
def test_only_the_first_and_the_last_block_are_non_local(num_block):
    network = RNAN(num_feat=4, num_block=num_block)
    blocks = [network.block_first, *network.body, network.block_last]
    non_local = [any(isinstance(module, NonLocalAttention) for module in block.modules()) for block in blocks]
    assert non_local == [True, *[False] * (num_block - 2), True]


def test_non_local_attention_starts_as_the_identity():
    network = RNAN(num_feat=4, num_block=2)
    for block in (network.block_first, network.block_last):
        assert not block.mask.attention.project.weight.any()
        assert not block.mask.attention.project.bias.any()


def plain_block(x, block, non_local):
    """Equations 5 to 7 from the parts."""
    mask = block.mask
    r = block.head(x)
    e = mask.rb1(mask.attention(r) if non_local else r)
    up = mask.up(mask.rb2(mask.down(e)))[:, :, : e.shape[2], : e.shape[3]]
    weights = mask.last(mask.rb3(up + e)).sigmoid()
    return block.conv(block.tail(block.trunk(r) * weights + r))  # no skip around the block


@pytest.mark.parametrize('size', [(1, 1), (3, 4), (7, 5), (6, 8)])
@pytest.mark.parametrize('which', ['block_first', 'body', 'block_last'])
def test_block_equals_the_plain_formula(which, size):
    network = small()
    block = network.body[0] if which == 'body' else getattr(network, which)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    assert torch.allclose(block(x), plain_block(x, block, which != 'body'), rtol=0, atol=1e-12)

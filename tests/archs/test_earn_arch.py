import pytest
import torch
from basicsr.archs import build_network

from earn_plugin.archs.earn_arch import EARN


@pytest.mark.parametrize(('upscale', 'count'), [(2, 2_033_731), (3, 2_218_371), (4, 2_181_443)])
def test_has_the_papers_parameter_count(upscale, count):
    assert sum(p.numel() for p in EARN(upscale=upscale).parameters()) == count


def test_released_variant_has_the_authors_parameter_count():
    assert sum(p.numel() for p in EARN(variant='released').parameters()) == 2_728_499


def small(**arguments):
    torch.manual_seed(0)
    return build_network({'type': 'EARN', 'num_feat': 16, 'num_block': 2, **arguments})


def test_paper_form_is_equations_3_and_4():
    """The block computed from its parts, in the paper's order."""
    block = small().double().body[0]
    x = torch.randn(1, 16, 6, 8, dtype=torch.float64)
    asca, pa = block.attention
    r = block.head(pa(asca(x)))
    m = block.mask
    e = m.erb1(r)
    up = m.expand(torch.nn.functional.pixel_shuffle(m.erb2(m.down(m.attention(e))), 2))
    mask = m.last(m.erb3(up + e)).sigmoid()
    assert torch.allclose(block(x), block.tail(block.trunk(r) * mask + r) + x, atol=1e-12)


@pytest.mark.parametrize('variant', ['paper', 'released'])
def test_ablations(variant):
    """Each removes the parts that Table 2 names, and no others."""
    names = {name.split('.', 2)[2] for name in small(variant=variant).state_dict() if name.startswith('body.0.')}

    def left(**arguments):
        state = small(variant=variant, **arguments).state_dict()
        return {name.split('.', 2)[2] for name in state if name.startswith('body.0.')}

    assert left(use_skip=False) == names
    assert left(use_local_attention=False) == {n for n in names if not n.startswith('mask.attention')}
    without_asca = left(use_asca=False)
    if variant == 'released':  # its two residual blocks are removed with ASCA
        assert without_asca == {n for n in names if not n.startswith('attention.')}
    else:  # pixel attention stays
        assert without_asca == {n.replace('.1.', '.0.', 1) for n in names if n.startswith('attention.1')} | {
            n for n in names if not n.startswith('attention.')
        }


def test_without_skips_neither_the_blocks_nor_the_network_has_one():
    network = small(use_skip=False).double()
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    features = network.conv_first(network.shift(x))
    for block in network.body:
        r = block.head(block.attention(features))
        features = block.tail(block.trunk(r) * block.mask(r) + r)
    expected = network.shift.undo(network.conv_last(network.upsample(network.conv_after_body(features))))
    assert torch.equal(network(x), expected)

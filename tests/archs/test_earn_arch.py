import copy
import inspect
import pickle

import pytest
import torch
from basicsr.archs import build_network

from earn_plugin.archs.earn_arch import EARN
from tests.authors import convert

CASES = {
    'earn_code_x4_f32g2': {'num_block': 2},
    'earn_code_x2_f32g2': {'num_block': 2, 'upscale': 2},
    'earn_code_nola_x4_f32g1': {'num_block': 1, 'use_local_attention': False},
}


@pytest.mark.parametrize('name', CASES)
def test_equals_the_authors_network(golden, name):
    case = golden(name)
    network = EARN(num_feat=32, variant='released', **CASES[name]).double()
    network.load_state_dict(convert(case.weights))
    with torch.no_grad():
        output = network(case.input / case.input_range) * case.input_range
    assert case.error(output) < 1e-9


@pytest.mark.parametrize(('upscale', 'count'), [(2, 2_033_731), (3, 2_218_371), (4, 2_181_443)])
def test_has_the_papers_parameters(upscale, count):
    assert sum(p.numel() for p in EARN(upscale=upscale).parameters()) == count


def test_released_variant_has_the_authors_parameters():
    assert sum(p.numel() for p in EARN(variant='released').parameters()) == 2_728_499


def small(**arguments):
    torch.manual_seed(0)
    return build_network({'type': 'EARN', 'num_feat': 16, 'num_block': 2, **arguments})


@pytest.mark.parametrize('variant', ['paper', 'released'])
@pytest.mark.parametrize('upscale', [2, 3, 4])
@pytest.mark.parametrize('size', [(1, 1), (2, 3), (7, 5), (17, 31)])
def test_any_size_works(variant, upscale, size):
    network = small(variant=variant, upscale=upscale)
    out = network(torch.rand(3, 3, *size))
    assert out.shape == (3, 3, upscale * size[0], upscale * size[1])
    out.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_images_of_a_batch_do_not_see_each_other():
    network = small().double()
    x = torch.rand(3, 3, 9, 6, dtype=torch.float64)
    assert torch.allclose(network(x), torch.cat([network(image) for image in x.split(1)]), atol=1e-12)


def test_paper_form_is_equations_3_and_4():
    """The block from its parts, in the paper's order."""
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
    """Each takes away what Table 2 says, and nothing else."""
    names = {name.split('.', 2)[2] for name in small(variant=variant).state_dict() if name.startswith('body.0.')}

    def left(**arguments):
        state = small(variant=variant, **arguments).state_dict()
        return {name.split('.', 2)[2] for name in state if name.startswith('body.0.')}

    assert left(use_skip=False) == names
    assert left(use_local_attention=False) == {n for n in names if not n.startswith('mask.attention')}
    without_asca = left(use_asca=False)
    if variant == 'released':  # its two residual blocks go with ASCA
        assert without_asca == {n for n in names if not n.startswith('attention.')}
    else:  # pixel attention stays
        assert without_asca == {n.replace('.1.', '.0.', 1) for n in names if n.startswith('attention.1')} | {
            n for n in names if not n.startswith('attention.')
        }


def test_without_skips_neither_blocks_nor_whole_have_one():
    network = small(use_skip=False).double()
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    features = network.conv_first(network.shift(x))
    for block in network.body:
        r = block.head(block.attention(features))
        features = block.tail(block.trunk(r) * block.mask(r) + r)
    expected = network.shift.undo(network.conv_last(network.upsample(network.conv_after_body(features))))
    assert torch.equal(network(x), expected)


def test_state_dict_deepcopy_and_pickle_give_the_same_output():
    network = small().eval()
    x = torch.rand(1, 3, 5, 4)
    with torch.no_grad():
        expected = network(x)
        other = small(rgb_mean=(0.4488, 0.4371, 0.4040))
        other.load_state_dict(network.state_dict())
        for twin in (other, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(twin(x), expected)


def test_runs_in_bfloat16_autocast():
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.isfinite(small()(torch.rand(1, 3, 8, 8))).all()


WRONG = {
    'num_in_ch': [0, 4, '3'],
    'num_out_ch': [1, -3],
    'num_feat': [0, 30, 2.5],
    'num_block': [0, None],
    'upscale': [1, 5, '4', True],
    'variant': ['code', None],
    'num_group': [0, 5, 'all'],
    'reduction': [0, 7],
    'window_size': [0, 2],
    'use_asca': ['no', 1],
    'use_skip': [None],
    'use_local_attention': [0],
    'img_range': [0, -1.0],
    'rgb_mean': [(0.5,), ()],
}


def test_wrong_covers_every_argument():
    assert set(WRONG) == set(inspect.signature(EARN).parameters)


@pytest.mark.parametrize(('argument', 'value'), [(a, v) for a, values in WRONG.items() for v in values])
def test_wrong_argument_is_a_value_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=f'{argument}.*got') as error:
        EARN(**{argument: value})
    assert repr(value) in str(error.value) or argument == 'rgb_mean'

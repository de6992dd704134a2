"""LGVAN's fused form against its authors' form."""

import itertools

import pytest
import torch

from earn_plugin.archs import blocks
from earn_plugin.archs.lgvan_arch import LGVAN
from tests.archs.test_lgvan_arch import conv_costs
from tests.benchmarks.lgvan_as_published import as_published, fill
from tests.helpers.golden import relative_error as error

LARGER = [(1, 40), (40, 1), (3, 33), (31, 17), (64, 48)]


def trained(**arguments) -> LGVAN:
    torch.manual_seed(0)
    return fill(LGVAN(**{'num_feat': 8, 'num_block': 2, **arguments})).eval()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize('upscale', [2, 3, 4])
def test_equals_the_authors_form_at_every_size(upscale):
    network = trained(upscale=upscale).double()
    fused = network.fuse()
    for size in [*itertools.product(range(1, 10), repeat=2), *LARGER]:
        x = torch.rand(2, 3, *size, dtype=torch.float64)
        assert error(fused(x), as_published(network, x)) < 1e-13, size


def test_equals_the_authors_form_with_all_its_features():
    network = trained(num_feat=32, num_block=9).double()
    x = torch.rand(1, 3, 23, 19, dtype=torch.float64)
    assert error(network.fuse()(x), as_published(network, x)) < 1e-12


def test_in_float32_it_is_as_exact_as_the_authors_form():
    """Within a few roundings of the exact values, 2⁻²⁴ each, as is the authors' form in float32."""
    network = trained(num_feat=32, num_block=9)
    exact, fused = trained(num_feat=32, num_block=9).double(), network.fuse()
    for size in [(1, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 1), (8, 7), (17, 31), (64, 48)]:
        x = torch.rand(1, 3, *size)
        expected = as_published(exact, x.double())
        errors = error(fused(x).double(), expected), error(as_published(network, x).double(), expected)
        assert errors[0] < 2e-6, size
        assert errors[0] < 2 * errors[1] + 2**-24, size


def test_bands_do_not_change_the_result(monkeypatch):
    network = trained(upscale=3).double()
    x = torch.rand(2, 3, 200, 6, dtype=torch.float64)
    monkeypatch.setattr(blocks, 'BAND_BYTES', 1)
    heights = []
    fused = network.fuse()
    fused.body[0][0].register_forward_pre_hook(lambda module, given: heights.append(given[0].shape[2]))
    assert error(fused(x), as_published(network, x)) < 1e-13
    assert heights == [67 + 9, 9 + 67 + 9, 9 + 66]


@pytest.mark.filterwarnings('ignore:.torch.jit:DeprecationWarning', 'ignore::torch.jit.TracerWarning')
def test_a_trace_has_no_bands_and_works_for_other_sizes(monkeypatch):
    monkeypatch.setattr(blocks, 'BAND_BYTES', 1)
    fused = trained().fuse()
    traced = torch.jit.trace(fused, torch.rand(1, 3, 90, 7), check_trace=False)
    convs = [node for node in traced.inlined_graph.nodes() if node.kind() == 'aten::_convolution']
    assert len(convs) == 2 * (4 + 2 + 2 + 3) + 4
    for size in [(1, 1), (2, 2), (5, 3), (1, 4), (11, 20)]:
        x = torch.rand(1, 3, *size)
        assert error(traced(x), fused(x)) < 1e-6


def test_any_memory_format_works():
    network = trained().double()
    x = torch.rand(2, 3, 6, 7, dtype=torch.float64)
    expected = as_published(network, x)
    for fused in (network.fuse(), network.fuse().to(memory_format=torch.channels_last)):
        assert error(fused(x), expected) < 1e-13
        assert error(fused(x.to(memory_format=torch.channels_last)), expected) < 1e-13
        assert error(fused(x.transpose(2, 3).contiguous().transpose(2, 3)), expected) < 1e-13


def test_the_fused_form_is_built_again_by_its_arguments():
    network = trained(num_in_ch=4, num_out_ch=4, upscale=3)
    fused = network.fuse()
    other = LGVAN(num_in_ch=4, num_out_ch=4, num_feat=8, num_block=2, upscale=3, fused=True).eval()
    assert not other.load_state_dict(fused.state_dict()).missing_keys
    x = torch.rand(1, 4, 5, 6)
    assert torch.equal(other(x), fused(x))


def test_costs_of_the_fused_form():
    """On the meta device there are no bands, so a count is of the network alone."""
    values, multiply_adds, _ = conv_costs(LGVAN(fused=True))
    # one conv and two narrow columns of 32×256 each replace the four strip convs of each block's gate
    plane = 256 * 256
    block = plane * (4 * 32 * 32 + 3 * 32 * 25 + 4 * 32 * 32 + 64 * 9) + 2 * 256 * 32 * 9
    rest = plane * (27 * 32 + 16 * 32 * 9 + 32 * 512 + 16 * 32 * 3 * 9)
    assert sum(multiply_adds) == 9 * block + rest
    assert len(values) == 9 * (4 + 2 + 3 + 3) + 4

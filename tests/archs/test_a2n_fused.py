"""A2N's fused form against its authors' form."""

import itertools

import pytest
import torch
from torch import nn

from earn_plugin.archs import blocks
from earn_plugin.archs.a2n_arch import A2N
from tests.benchmarks.a2n_as_published import as_published
from tests.helpers.golden import relative_error as error

LARGER = [(1, 40), (40, 1), (31, 17), (64, 48)]


def trained(**arguments) -> A2N:
    """With branch weights that are far from one half, and other ones for each image."""
    torch.manual_seed(0)
    network = A2N(**{'num_feat': 8, 'num_upfeat': 4, 'num_block': 2, **arguments}).eval()
    for block in network.body:
        if block.dynamic_attention is not None:
            nn.init.normal_(block.dynamic_attention[2].weight, std=10)
    return network


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize('variant', ['A2N', 'A2N-M'])
@pytest.mark.parametrize('upscale', [2, 3, 4])
def test_equals_the_authors_form_at_every_size(upscale, variant):
    network = trained(upscale=upscale, variant=variant).double()
    fused = network.fuse()
    for size in [*itertools.product(range(1, 7), repeat=2), *LARGER]:
        x = torch.rand(2, 3, *size, dtype=torch.float64)
        assert error(fused(x), as_published(network, x)) < 1e-12, size


@pytest.mark.parametrize('branch_weights', ['attention', 'non_attention', 'equal'])
def test_equals_the_authors_form_with_fixed_weights(branch_weights):
    network = trained(branch_weights=branch_weights, num_in_ch=1, num_out_ch=1, img_range=1.0).double()
    x = torch.rand(2, 1, 9, 7, dtype=torch.float64)
    assert error(network.fuse()(x), as_published(network, x)) < 1e-12
    assert torch.equal(network.fuse().weights_per_block(x), network.weights_per_block(x))


def test_in_float32_it_is_as_exact_as_the_authors_form():
    network, exact = trained(num_feat=40, num_block=16), trained(num_feat=40, num_block=16).double()
    fused = network.fuse()
    for size in [(1, 1), (2, 3), (17, 31), (64, 48)]:
        x = torch.rand(1, 3, *size)
        expected = as_published(exact, x.double())
        errors = error(fused(x).double(), expected), error(as_published(network, x).double(), expected)
        assert errors[0] < 2e-6, size
        assert errors[0] < 2 * errors[1] + 2**-24, size


@pytest.mark.parametrize('upscale', [2, 3, 4])
def test_bands_do_not_change_the_result(monkeypatch, upscale):
    network = trained(upscale=upscale).double()
    x = torch.rand(2, 3, 70, 6, dtype=torch.float64)
    expected, heights = as_published(network, x), []
    monkeypatch.setattr(blocks, 'BAND_BYTES', 1)
    fused = network.fuse()
    for layer in (fused.body[0].branches.non_attention, fused.upsample[0].attention):
        layer.register_forward_pre_hook(lambda module, given: heights.append(given[0].shape[2]))
    assert error(fused(x), expected) < 1e-12
    step = fused.upsample[0].scale
    assert heights[:5] == [14 + 2, 2 + 14 + 2, 2 + 14 + 2, 2 + 14 + 2, 2 + 14]
    assert heights[5:] == [step * (rows + 1) for rows in heights[:5]]


@pytest.mark.filterwarnings('ignore:.torch.jit:DeprecationWarning', 'ignore::torch.jit.TracerWarning')
def test_a_trace_has_no_bands_and_works_for_other_sizes(monkeypatch):
    monkeypatch.setattr(blocks, 'BAND_BYTES', 1)
    fused = trained().fuse()
    traced = torch.jit.trace(fused, torch.rand(1, 3, 90, 7), check_trace=False)
    convs = [node for node in traced.inlined_graph.nodes() if node.kind() == 'aten::_convolution']
    assert len(convs) == 2 * 6 + 2 * 3 + 3
    x = torch.rand(2, 3, 11, 20)
    assert error(traced(x), fused(x)) < 1e-6

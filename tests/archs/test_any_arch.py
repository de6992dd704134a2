"""Properties of every network that the plugin registers."""

import copy
import inspect
import pickle

import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from earn_plugin import archs

SMALL = {
    'A2N': {'num_feat': 8, 'num_upfeat': 4, 'num_block': 2},
    'EARN': {'num_feat': 16, 'num_block': 1},
    'HAN': {'num_feat': 16, 'num_group': 2, 'num_block': 1},
    'LGVAN': {'num_feat': 8, 'num_block': 2},
    'RK4RDN': {'num_feat': 8, 'num_grow_ch': 4, 'num_block': 2, 'num_layer': 2},
    'RNAN': {'num_feat': 8, 'num_block': 3},
    'DualAttentionRCAN': {'num_feat': 16, 'num_group': 1, 'num_block': 2},
}
UPSCALES = dict.fromkeys(SMALL, (2, 3, 4)) | {'HAN': (2, 3, 4, 8), 'DualAttentionRCAN': (2, 3, 4, 8)}
# arguments that change the path through a network
VARIANTS = {name: [{}] for name in SMALL} | {
    'A2N': [{}, {'fused': True}, {'variant': 'A2N-M', 'branch_weights': 'equal', 'fused': True}],
    'EARN': [{}, {'variant': 'released'}],
    'LGVAN': [{}, {'fused': True}],
    'RK4RDN': [{}, {'order': 2, 'non_local_mode': 'embedded'}, {'order': 1, 'attention': 'none'}],
    'DualAttentionRCAN': [{}, {'non_local_mode': 'embedded'}],
}
EVERY = [
    pytest.param(name, arguments, id='-'.join([name, *map(str, arguments.values())]))
    for name, variants in VARIANTS.items()
    for arguments in variants
]
EVERY_SCALE = [
    pytest.param(*case.values, upscale, id=f'{case.id}-x{upscale}')
    for case in EVERY
    for upscale in UPSCALES[case.values[0]]
]
every = pytest.mark.parametrize(('name', 'arguments'), EVERY)
every_scale = pytest.mark.parametrize(('name', 'arguments', 'upscale'), EVERY_SCALE)


def small(name: str, **arguments) -> nn.Module:
    """With random values for parameters that are initialised to zero, which would hide the layers before them."""
    torch.manual_seed(0)
    network = build_network({'type': name, **SMALL[name], **arguments}).eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def is_upscaling(network: type) -> bool:
    return 'upscale' in inspect.signature(network).parameters


def test_the_table_has_every_network():
    registered = {n for n, network in ARCH_REGISTRY if network.__module__.startswith('earn_plugin.')}
    assert registered == set(archs.__all__)
    assert set(SMALL) == {name for name in registered if is_upscaling(ARCH_REGISTRY.get(name))}


@pytest.mark.parametrize('name', SMALL)
def test_the_table_has_every_upscale(name):
    for upscale in set(range(1, 17)) - set(UPSCALES[name]):
        with pytest.raises(ValueError, match='upscale'):
            build_network({'type': name, **SMALL[name], 'upscale': upscale})


@every_scale
def test_any_size_works(name, arguments, upscale):
    network = small(name, upscale=upscale, **arguments)
    for height, width in [(1, 1), (2, 3), (7, 5), (17, 31), (48, 64)]:
        with torch.inference_mode():
            out = network(torch.rand(2, 3, height, width))
        assert out.shape == (2, 3, upscale * height, upscale * width)
        assert torch.isfinite(out).all()


@every_scale
def test_gradients_are_finite_and_reach_every_parameter(name, arguments, upscale):
    network = small(name, upscale=upscale, **arguments)
    x = torch.rand(2, 3, 7, 5, requires_grad=True)
    network(x).square().mean().backward()
    for parameter_name, parameter in [('x', x), *network.named_parameters()]:
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


@every
def test_images_of_a_batch_are_independent(name, arguments):
    network = small(name, **arguments).double()
    x = torch.rand(3, 3, 9, 6, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(network(x), torch.cat([network(image) for image in x.split(1)]), rtol=0, atol=1e-12)


# Half precision rounds by up to 2⁻⁹ (bfloat16) or 2⁻¹² (float16) of a value. Over all layers ten times that is
# expected; more would be a sum or a softmax that needs float32.
@pytest.mark.parametrize(('half', 'tolerance'), [(torch.bfloat16, 10 * 2**-9), (torch.float16, 10 * 2**-12)])
@every
def test_autocast_is_close_to_float32(name, arguments, half, tolerance):
    network = small(name, **arguments)
    x = torch.rand(2, 3, 17, 31)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast('cpu', half):
            out = network(x)
    assert (out - expected).abs().max() < tolerance * expected.abs().max()


@every
def test_autocast_has_finite_gradients(name, arguments):
    network = small(name, **arguments)
    with torch.autocast('cpu', torch.bfloat16):
        loss = network(torch.rand(2, 3, 7, 5)).square().mean()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


@every
def test_state_dict_deepcopy_and_pickle_give_the_same_output(name, arguments):
    network = small(name, **arguments)
    other = build_network({'type': name, **SMALL[name], **arguments}).eval()
    other.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 5, 4)
    with torch.no_grad():
        expected = network(x)
        for twin in (other, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(twin(x), expected)


def compiled_equals_eager(network: nn.Module, backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(network, backend=backend)
    # also one image alone: the strides of an axis of length 1 are ambiguous
    for batch in (1, 2):
        x = torch.rand(batch, 3, 7, 5)
        with torch.no_grad():
            assert torch.allclose(compiled(x), network(x), rtol=0, atol=1e-5)
    torch.compiler.reset()


# The default backend takes about half a minute for a network, so it is tested with one; aot_eager traces and decomposes
# in the same way, and runs the operators eagerly.
@pytest.mark.slow
@pytest.mark.parametrize('name', SMALL)
def test_compiled_network_gives_the_same_output(name):
    compiled_equals_eager(small(name, upscale=2), 'aot_eager')


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:.torch.jit:DeprecationWarning')  # of the compiler's own code
def test_network_compiled_by_the_default_backend_gives_the_same_output(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        pytest.skip('the compiler backend needs a C++ compiler')
    compiled_equals_eager(small('DualAttentionRCAN', upscale=2), 'inductor')

"""The non-local attention against its plain form, which materialises the attention matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from earn_plugin.archs import attention
from earn_plugin.archs.attention import NonLocalAttention

MODES = [(mode, over) for mode in ('gaussian', 'embedded') for over in ('keys', 'queries')]
every_mode = pytest.mark.parametrize(('mode', 'over'), MODES)


def plain(module: NonLocalAttention, x: Tensor, mode: str, over: str) -> Tensor:
    """Image by image with an N×N matrix: w = softmax of qᵢ·kⱼ over j or, as in RNAN, over i; yᵢ = Σⱼ wᵢⱼ vⱼ."""
    outputs = []
    for image in x:
        pixels = image.flatten(1).T  # N×C
        query = key = pixels
        if mode == 'embedded':
            query = pixels @ module.query.weight[:, :, 0, 0].T + module.query.bias
            key = pixels @ module.key.weight[:, :, 0, 0].T + module.key.bias
        value = pixels @ module.value.weight[:, :, 0, 0].T + module.value.bias
        energy = (query @ key.T).exp()
        weights = energy / energy.sum(1 if over == 'keys' else 0, keepdim=True)
        out = (weights @ value) @ module.project.weight[:, :, 0, 0].T + module.project.bias + pixels
        outputs.append(out.T.reshape(image.shape))
    return torch.stack(outputs)


def output_and_gradients(module, forward, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    module.zero_grad()
    out = forward(x)
    # a loss in which every value has its own weight
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return [out.detach(), x.grad, *(parameter.grad for parameter in module.parameters())]


def assert_equals_plain(mode: str, over: str, num_feat: int, shape: tuple[int, int, int], scale: float = 1.0) -> None:
    torch.manual_seed(0)
    module = NonLocalAttention(num_feat, mode, over).double()
    batch, height, width = shape
    x = torch.randn(batch, num_feat, height, width, dtype=torch.float64) * scale
    ours = output_and_gradients(module, module, x)
    expected = output_and_gradients(module, lambda x: plain(module, x, mode, over), x)
    assert len(ours) == (10 if mode == 'embedded' else 6)
    for one, other in zip(ours, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)
    with torch.no_grad():  # without gradients the queries are computed differently
        assert torch.allclose(module(x), expected[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('mode', NonLocalAttention.modes)
@pytest.mark.parametrize('values', [1, 2 * 35, 4 * 2 * 35, 34 * 2 * 35])
def test_chunks_of_keys_change_nothing(mode, values, monkeypatch):
    """One key at a time, the least possible; four; all but one."""
    monkeypatch.setitem(attention.CHUNK, 'cpu', values)
    assert_equals_plain(mode, 'queries', 8, (2, 5, 7))


@settings(max_examples=20, deadline=None)
@given(
    mode_and_over=st.sampled_from(MODES),
    num_feat=st.sampled_from([2, 4, 6, 16]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8)),
    values=st.integers(1, 2**12),
    scale=st.sampled_from([1e-3, 1.0, 2.0]),
)
def test_any_size_and_any_chunks_equal_the_plain_form(mode_and_over, num_feat, shape, values, scale):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(attention.CHUNK, 'cpu', values)
        assert_equals_plain(*mode_and_over, num_feat, shape, scale)


def test_zero_init_starts_as_the_identity():
    module = NonLocalAttention(8, 'embedded', 'queries', zero_init=True)
    x = torch.randn(2, 8, 5, 7)
    assert torch.equal(module(x), x)
    assert not torch.equal(NonLocalAttention(8)(x), x)


@pytest.mark.parametrize('half', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('function', [attention.attention_over_keys, attention.attention_over_queries])
def test_half_precision_is_computed_in_float32(function, half):
    """Also dot products above 65504, the largest number of float16."""
    torch.manual_seed(0)
    for size in (1, 200):
        rows = [(torch.randn(2, 8, 6, 5) * size).to(half) for _ in range(3)]
        expected = attention.attend(function, *(row.float() for row in rows))
        assert torch.isfinite(expected).all()
        assert torch.equal(attention.attend(function, *rows), expected.to(half))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('half', [torch.bfloat16, torch.float16])
def test_half_precision_on_a_gpu_sums_in_float32(half):
    """The weights of the sums are rounded to half precision, not the dot products."""
    torch.manual_seed(0)
    for size in (0.3, 3, 200):
        rows = [(torch.randn(2, 64, 24, 25) * size).to(half).cuda() for _ in range(3)]
        expected = attention.attend(attention.attention_over_keys, *(row.double() for row in rows))
        found = attention.attend(attention.attention_over_keys, *rows)
        assert found.dtype == half
        assert (found - expected).abs().max() < 2 * torch.finfo(half).eps * size * 4


class Largest(TorchDispatchMode):
    """Records the operators and the size of the largest tensor that any of them returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0
        self.operators = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        self.operators.add(str(operator))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.itemsize)
        return result


@every_mode
def test_no_tensor_holds_the_attention_matrix(mode, over, monkeypatch):
    pixels, num_feat = 64 * 64, 8
    monkeypatch.setitem(attention.CHUNK, 'cpu', 2**17)
    module = NonLocalAttention(num_feat, mode, over)
    x = torch.randn(1, num_feat, 64, 64, requires_grad=True)
    with Largest() as inference, torch.no_grad():
        module(x)
    with Largest() as training:
        module(x).sum().backward()
    for seen in (inference, training):
        assert seen.numel <= max(2**17, num_feat * pixels) < pixels**2 / 100
    # the fused kernel does not materialise the weights; the one named math would
    flash = {name for name in training.operators if 'flash_attention' in name}
    assert len(flash) == (2 if over == 'keys' else 0), training.operators  # forward and backward
    assert not any('attention_math' in name for name in training.operators)


def test_the_plain_form_is_detected():
    """The recorder sees what the fused kernel avoids."""
    module = NonLocalAttention(8)
    with Largest() as seen, torch.no_grad():
        plain(module, torch.randn(1, 8, 16, 16), 'gaussian', 'keys')
    assert seen.numel == 256**2


@pytest.mark.parametrize('batch', [1, 2])
def test_the_result_is_contiguous(batch):
    """For a transposed result of a single image torch.compile reads out of bounds."""
    assert NonLocalAttention(8).eval()(torch.rand(batch, 8, 3, 5)).is_contiguous()


@pytest.mark.parametrize('trained', [None, 0, 1, 2])
def test_weights_are_computed_again_only_for_gradients(monkeypatch, trained):
    """Checkpointing fragments memory; an official run enables gradients, but no tensor requires them."""
    calls = []

    def checkpoint(function, *args, **settings):
        calls.append(function)
        return function(*args)

    monkeypatch.setattr(attention, 'checkpoint', checkpoint)
    rows = [torch.rand(1, 5, 2, requires_grad=index == trained) for index in range(3)]
    assert torch.is_grad_enabled()
    out = attention.attention_over_queries(*rows)
    query, key, value = rows
    expected = (query @ key.transpose(1, 2)).softmax(1) @ value
    assert torch.allclose(out, expected, atol=1e-6)
    assert out.requires_grad is (trained is not None)
    assert len(calls) == (trained is not None)

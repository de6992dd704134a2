import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earn_plugin.archs import attention
from earn_plugin.measure.memory import peak_bytes
from tests.benchmarks.local_attention import unfolded_attention


def load(module, case):
    module = module.double()
    module.load_state_dict(dict(zip(module.state_dict(), case.weights.values(), strict=True)))
    return module


@pytest.mark.parametrize('grad', [True, False])
def test_local_attention_equals_the_authors(golden, grad):
    case = golden('block_local_attention_c32_k3')
    with torch.set_grad_enabled(grad):
        assert case.error(load(attention.LocalAttention(32), case)(case.input).detach()) < 1e-9


def test_asca_equals_the_authors(golden):
    case = golden('block_asca_c32')
    assert case.error(load(attention.AdaptivelyScaledChannelAttention(32), case)(case.input)) < 1e-9


def test_pixel_attention_equals_the_authors(golden):
    case = golden('block_pixel_attention_c32')
    assert case.error(load(attention.PixelAttention(32), case)(case.input)) < 1e-9


def slow_local_attention(module, x):
    """Pixel by pixel, as in equation 5."""
    n, c, h, w = x.shape
    size, pad = module.window_size, module.window_size // 2
    padded = torch.zeros(n, c, h + 2 * pad, w + 2 * pad, dtype=x.dtype)
    padded[:, :, pad : pad + h, pad : pad + w] = x
    query, key, value = module.query(x), module.key(padded), module.value(padded)
    out = torch.zeros_like(x)
    for b in range(n):
        for i in range(h):
            for j in range(w):
                logits, values = [], []
                for di in range(size):
                    for dj in range(size):
                        position = torch.cat([module.rel_h[:, di], module.rel_w[:, dj]])
                        logits.append(query[b, :, i, j] @ (key[b, :, i + di, j + dj] + position))
                        values.append(value[b, :, i + di, j + dj])
                out[b, :, i, j] = torch.stack(logits).softmax(0) @ torch.stack(values)
    return out


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 2),
    c=st.sampled_from([2, 4, 6]),
    h=st.integers(1, 7),
    w=st.integers(1, 7),
    size=st.sampled_from([1, 3, 5]),
    rows=st.integers(1, 4),
)
def test_local_attention_equals_the_slow_form_at_any_size_in_any_bands(n, c, h, w, size, rows):
    torch.manual_seed(n + 10 * c + 100 * h + 1000 * w)
    module = attention.LocalAttention(c, size).double()
    module.band_values = {'cpu': rows * n * c * w}
    x = torch.randn(n, c, h, w, dtype=torch.float64)
    with torch.no_grad():
        expected = slow_local_attention(module, x)
        assert torch.allclose(module(x), expected, atol=1e-12)
    assert torch.allclose(module(x), expected, atol=1e-12)
    assert torch.allclose(unfolded_attention(module, x), expected, atol=1e-12)


@pytest.mark.filterwarnings('ignore:.torch.jit:DeprecationWarning', 'ignore::torch.jit.TracerWarning')
def test_a_trace_of_local_attention_has_no_bands_and_works_for_other_sizes():
    module = attention.LocalAttention(4)
    module.band_values = {'cpu': 1}
    with torch.no_grad():
        traced = torch.jit.trace(module, torch.rand(1, 4, 9, 6), check_trace=False)
        convs = [node for node in traced.inlined_graph.nodes() if node.kind() == 'aten::_convolution']
        assert len(convs) == 3 + 1  # query, key, value; query·position
        x = torch.rand(1, 4, 5, 11)
        assert torch.allclose(traced(x), module(x), atol=1e-6)


def test_an_export_of_local_attention_works_for_other_sizes():
    module = attention.LocalAttention(4).eval()
    module.band_values = {'cpu': 1}
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        exported = torch.export.export(module, (torch.rand(1, 4, 9, 6),), dynamic_shapes={'x': free}).module()
        x = torch.rand(1, 4, 5, 11)
        assert torch.allclose(exported(x), module(x), atol=1e-6)


def test_local_attention_has_correct_gradients():
    module = attention.LocalAttention(4).double()
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()))


def test_local_attention_builds_a_graph_only_for_gradients():
    """As in the organisers' run, which enables gradients but whose parameters do not require any."""
    module = attention.LocalAttention(4).requires_grad_(False)
    x = torch.rand(1, 4, 3, 5)
    assert torch.is_grad_enabled()
    assert module(x).grad_fn is None
    assert 'LocalAttentionFunction' in str(module(x.requires_grad_()).grad_fn)


def test_local_attention_needs_a_quarter_of_the_unfolded_memory():
    module = attention.LocalAttention(64)
    x = torch.rand(1, 64, 256, 256)
    with torch.no_grad():
        ours, unfolded = peak_bytes(lambda: module(x)), peak_bytes(lambda: unfolded_attention(module, x))
    assert ours <= unfolded / 4
    # nor is a tensor of the window's size kept for the backward pass
    kept = []

    def note(tensor):
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(x)
    assert max(kept) <= x.nbytes * 1.1


def test_channel_mean_std_is_torchs():
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    mean, std = attention.channel_mean_std(x)
    assert torch.allclose(mean, x.mean((2, 3), keepdim=True))
    assert torch.allclose(std, x.std((2, 3), correction=0, keepdim=True))
    assert torch.autograd.gradcheck(attention.channel_mean_std, x.requires_grad_())


@pytest.mark.parametrize('shape', [(1, 2, 1, 1), (2, 3, 4, 5)])
def test_deviation_of_a_constant_channel_has_a_finite_gradient(shape):
    x = torch.full(shape, 0.3, dtype=torch.float64, requires_grad=True)
    std = attention.channel_mean_std(x)[1]
    std.sum().backward()
    assert std.abs().max() < 1e-12
    assert torch.isfinite(x.grad).all()

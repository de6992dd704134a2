import pytest
import torch
from torch.nn import functional as F

from earn_plugin.ntire import exported_helpers as plain


@pytest.mark.parametrize('logits', [2**26, 50, 1])
@pytest.mark.parametrize('scale', [None, 1.0])
@pytest.mark.parametrize('mask', [None, 'bool', 'float', 'one row'])
def test_attention_equals_torchs(monkeypatch, logits, scale, mask):
    monkeypatch.setattr(plain, 'LOGITS', logits)
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, *shape, dtype=torch.float64) for shape in ((7, 4), (11, 4), (11, 5)))
    masks = {
        'bool': torch.rand(2, 1, 7, 11) > 0.4,
        'float': torch.randn(7, 11, dtype=torch.float64),
        'one row': torch.arange(11)[None] > 3,
    }
    expected = F.scaled_dot_product_attention(query, key, value, masks.get(mask), scale=scale)
    found = plain.scaled_dot_product_attention(query, key, value, masks.get(mask), scale=scale)
    assert (found - expected).abs().max() < 1e-12


def test_arguments_for_training_are_refused():
    x = torch.rand(2, 3, 4)
    assert torch.equal(
        plain.scaled_dot_product_attention(x, x, x, None, 0.0, False), plain.scaled_dot_product_attention(x, x, x)
    )
    with pytest.raises(ValueError, match='dropout_p and is_causal'):
        plain.scaled_dot_product_attention(x, x, x, is_causal=True)
    with pytest.raises(ValueError, match='dropout_p and is_causal'):
        plain.scaled_dot_product_attention(x, x, x, dropout_p=0.1)


def test_memory_is_bounded(monkeypatch):
    """For images of any size."""
    seen = []
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, 'softmax', lambda x, dim: seen.append(x.numel()) or softmax(x, dim))
    monkeypatch.setattr(plain, 'LOGITS', 2000)
    plain.scaled_dot_product_attention(*(torch.randn(1, 1, 300, 4) for _ in range(3)))
    assert max(seen) <= 2000
    assert sum(seen) == 300 * 300

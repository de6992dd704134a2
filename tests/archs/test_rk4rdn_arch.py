import pytest
import torch
from torch import nn

from earn_plugin.archs.attention import ChannelAttention, NonLocalAttention
from earn_plugin.archs.rk4rdn_arch import RK4RDN, RungeKuttaBlock


def small(**arguments) -> RK4RDN:
    torch.manual_seed(0)
    sizes = {'num_feat': 8, 'num_grow_ch': 4, 'num_block': 2, 'num_layer': 3, 'squeeze_factor': 2}
    return RK4RDN(**{**sizes, **arguments}).double()


def test_has_the_authors_parameter_count():
    """Their checkpoint also has the 16,640 values of the two embeddings if it does not use them."""
    counts = {
        mode: sum(p.numel() for p in RK4RDN(order=2, non_local_mode=mode).parameters())
        for mode in ('gaussian', 'embedded')
    }
    assert counts == {'gaussian': 827_783 - 16_640, 'embedded': 827_783}


@pytest.mark.parametrize(
    ('order', 'textbook'),
    [(1, {}), (2, {'one_half': 0.5}), (4, {'one_half': 0.5, 'one_third': 1 / 3, 'one_sixth': 1 / 6})],
)
def test_coefficients_start_at_the_textbook_values_and_are_learned(order, textbook):
    for block in small(order=order).body:
        own = {name: parameter for name, parameter in block.named_parameters() if name.startswith('one_')}
        assert {name: parameter.item() for name, parameter in own.items()} == pytest.approx(textbook, rel=1e-7)
        assert all(parameter.requires_grad for parameter in own.values())


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


def step(order: int, function, coefficients: dict[str, float] | None = None) -> RungeKuttaBlock:
    block = small(order=order).body[0]
    block.function = Function(function)
    textbook = {'one_half': 1 / 2, 'one_third': 1 / 3, 'one_sixth': 1 / 6}
    for name, value in {**textbook, **(coefficients or {})}.items():
        if hasattr(block, name):
            nn.init.constant_(getattr(block, name), value)  # a third in float64, not in float32
    return block


# one step of length 1 of y' = λy is the exponential's series up to the method's order
GROWTH = {
    1: lambda rate: 1 + rate,
    2: lambda rate: 1 + rate + rate**2 / 2,
    4: lambda rate: 1 + rate + rate**2 / 2 + rate**3 / 6 + rate**4 / 24,
}


@pytest.mark.parametrize('order', GROWTH)
def test_a_linear_equation_follows_the_exponential_series(order):
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    rates = torch.linspace(-2, 2, 8, dtype=torch.float64)[:, None, None]  # one for each channel
    with torch.no_grad():
        out = step(order, lambda y: rates * y)(x)
    assert torch.allclose(out, GROWTH[order](rates) * x, rtol=0, atol=1e-13)


@pytest.mark.parametrize('order', GROWTH)
def test_each_coefficient_is_used_in_its_place(order):
    """With values other than the textbook's, and a nonlinear function."""
    f = torch.sin
    x = torch.randn(1, 8, 3, 5, dtype=torch.float64)
    a, b, c = 0.3, 0.45, 0.2
    k1 = f(x)
    if order == 1:
        expected = x + k1
    elif order == 2:
        expected = x + a * k1 + a * f(x + k1)
    else:
        k2 = f(x + a * k1)
        k3 = f(x + a * k2)
        k4 = f(x + k3)
        expected = x + c * k1 + b * k2 + b * k3 + c * k4
    block = step(order, f, {'one_half': a, 'one_third': b, 'one_sixth': c})
    assert torch.allclose(block(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ('attention', 'kinds'),
    [
        ('none', []),
        ('spatial', [NonLocalAttention]),
        ('channel', [ChannelAttention]),
        ('dual', [NonLocalAttention, ChannelAttention]),
    ],
)
def test_attention_selects_the_modules(attention, kinds):
    """Spatial before channel attention, and no others."""
    network = small(attention=attention)
    for block in network.body:
        assert [type(part) for part in block.function][1:] == kinds
    found = [type(m) for m in network.modules() if isinstance(m, (NonLocalAttention, ChannelAttention))]
    assert found == kinds * 2

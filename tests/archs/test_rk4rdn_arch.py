import pytest
import torch
from torch import nn
from torch.nn import functional as F

from earn_plugin.archs.attention import ChannelAttention, NonLocalAttention
from earn_plugin.archs.rk4rdn_arch import RK4RDN, RungeKuttaBlock


def small(**arguments) -> RK4RDN:
    torch.manual_seed(0)
    sizes = {'num_feat': 8, 'num_grow_ch': 4, 'num_block': 2, 'num_layer': 3, 'squeeze_factor': 2}
    return RK4RDN(**{**sizes, **arguments}).double()


def test_has_the_authors_parameters():
    """Their checkpoint has the two embeddings also where it does not use them: 16,640 values."""
    counts = {
        mode: sum(p.numel() for p in RK4RDN(order=2, non_local_mode=mode).parameters())
        for mode in ('gaussian', 'embedded')
    }
    assert counts == {'gaussian': 827_783 - 16_640, 'embedded': 827_783}


@pytest.mark.parametrize(
    ('order', 'textbook'),
    [(1, {}), (2, {'one_half': 0.5}), (4, {'one_half': 0.5, 'one_third': 1 / 3, 'one_sixth': 1 / 6})],
)
def test_coefficients_start_at_the_textbooks_and_are_learned(order, textbook):
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
            nn.init.constant_(getattr(block, name), value)  # in float64, where a third of float32 is none
    return block


# what a method of this order makes of y' = λy in a step of 1: the exponential's series, up to that order
GROWTH = {
    1: lambda rate: 1 + rate,
    2: lambda rate: 1 + rate + rate**2 / 2,
    4: lambda rate: 1 + rate + rate**2 / 2 + rate**3 / 6 + rate**4 / 24,
}


@pytest.mark.parametrize('order', GROWTH)
def test_a_linear_equation_grows_by_the_exponentials_series(order):
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    rates = torch.linspace(-2, 2, 8, dtype=torch.float64)[:, None, None]  # one a channel
    with torch.no_grad():
        out = step(order, lambda y: rates * y)(x)
    assert torch.allclose(out, GROWTH[order](rates) * x, rtol=0, atol=1e-13)


@pytest.mark.parametrize('order', GROWTH)
def test_error_falls_with_the_order(order):
    """y' = −y² from 1 is 1/(1 + t); half the step, half to the power of order + 1 of a step's error."""
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    errors = []
    for length in (1 / 64, 1 / 128):
        with torch.no_grad():
            errors.append(abs(step(order, lambda y, length=length: -length * y**2)(x).item() - 1 / (1 + length)))
    assert errors[0] / errors[1] == pytest.approx(2 ** (order + 1), rel=0.1)


@pytest.mark.parametrize('order', GROWTH)
def test_each_coefficient_stands_in_its_place(order):
    """Other values than the textbook's, and a function that is not linear."""
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
def test_attention_has_the_modules_that_it_names(attention, kinds):
    """Spatial before channel attention, and nothing else of either kind."""
    network = small(attention=attention)
    for block in network.body:
        assert [type(part) for part in block.function][1:] == kinds
    found = [type(m) for m in network.modules() if isinstance(m, (NonLocalAttention, ChannelAttention))]
    assert found == kinds * 2


def plain_function(x, function, mode):
    """Dense layers, non-local attention, squeeze-and-excitation, as f of the equation."""
    dense, spatial, channel = function
    features = [x]
    for layer in dense.layers:
        features.append(layer(torch.cat(features, 1)).clamp(min=0))
    out = dense.local_fusion(torch.cat(features, 1))
    query, key = (spatial.query(out), spatial.key(out)) if mode == 'embedded' else (out, out)
    weights = torch.einsum('nci,ncj->nij', query.flatten(2), key.flatten(2)).softmax(2)
    value = torch.einsum('nij,ncj->nci', weights, spatial.value(out).flatten(2)).unflatten(2, x.shape[2:])
    out = spatial.project(value) + out
    squeeze, _, excite = channel.bottleneck
    assert squeeze.bias is excite.bias is None
    scale = (out.mean((2, 3)) @ squeeze.weight[:, :, 0, 0].T).clamp(min=0) @ excite.weight[:, :, 0, 0].T
    return out * scale.sigmoid()[:, :, None, None]


@pytest.mark.parametrize('mode', ['gaussian', 'embedded'])
@pytest.mark.parametrize(('upscale', 'steps'), [(2, [2]), (3, [3]), (4, [2, 2])])
def test_network_equals_the_plain_formula(upscale, steps, mode):
    network = small(upscale=upscale, non_local_mode=mode)
    images = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    shallow = network.conv_first(images)
    out, outputs = network.conv_second(shallow), []
    for block in network.body:
        half, third, sixth = block.one_half, block.one_third, block.one_sixth
        k1 = plain_function(out, block.function, mode)
        k2 = plain_function(out + half * k1, block.function, mode)
        k3 = plain_function(out + half * k2, block.function, mode)
        k4 = plain_function(out + k3, block.function, mode)
        out = out + sixth * k1 + third * k2 + third * k3 + sixth * k4
        outputs.append(out)
    assert [conv.kernel_size for conv in network.global_fusion] == [(1, 1), (3, 3)]
    out = network.global_fusion[1](network.global_fusion[0](torch.cat(outputs, 1))) + shallow
    for conv, factor in zip(list(network.upsample)[::2], steps, strict=True):
        out = F.pixel_shuffle(conv(out), factor)
    assert torch.allclose(network(images), network.conv_last(out), rtol=0, atol=1e-12)


def test_dense_layers_grow_by_the_same_number():
    layers = RK4RDN(num_block=1).body[0].function[0].layers
    assert [(conv.in_channels, conv.out_channels) for conv in layers] == [(64 + 16 * n, 16) for n in range(6)]

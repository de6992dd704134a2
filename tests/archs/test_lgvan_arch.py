import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from earn_plugin.archs.lgvan_arch import LEFN, LGCA, LGVAN, ChannelNorm, GatedAttention, StripConv


def filled(module: nn.Module) -> nn.Module:
    """In float64, with scales that let the branches through."""
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, std=0.3)
        if name.endswith('scale') or name.endswith('norm.weight'):
            nn.init.uniform_(parameter, 0.5, 1.5)
    return module.double()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_has_the_authors_parameters_and_convs():
    network = LGVAN()
    assert sum(p.numel() for p in network.parameters()) == 118_243
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 122


def test_costs_what_the_challenge_reports():
    """At 3×256×256; the challenge's counter adds a LeakyReLU's values to the convs, fvcore a bilinear pixel's four."""
    network, outputs, multiply_adds = LGVAN().to('meta'), 0, 0

    def count(conv, inputs, output):
        nonlocal outputs, multiply_adds
        outputs += output.numel()
        multiply_adds += output.numel() * conv.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    out = network(torch.empty(1, 3, 256, 256, device='meta'))
    assert outputs == 332_392_832
    assert multiply_adds + 32 * out[0, 0].numel() == 9_057_572_992
    assert multiply_adds + 4 * out.numel() == 9_036_601_472


def test_starts_with_all_branches_closed():
    network = LGVAN(num_feat=8, num_block=2).double()
    scales = [p for name, p in network.named_parameters() if name.endswith('scale')]
    assert [tuple(p.shape) for p in scales] == [(1, 8, 1, 1)] * 4
    assert not any(p.any() for p in scales)
    x = images(1, 8, 5, 6)
    assert torch.equal(network.body(x), x)


def depthwise(x: torch.Tensor, conv: nn.Conv2d, pad: tuple[int, int], dilation: int = 1) -> torch.Tensor:
    """Tap by tap."""
    n, c, h, w = x.shape
    kh, kw = conv.kernel_size
    padded = F.pad(x, (pad[1], pad[1], pad[0], pad[0]))
    h, w = h + 2 * pad[0] - dilation * (kh - 1), w + 2 * pad[1] - dilation * (kw - 1)
    out = torch.zeros(n, c, h, w, dtype=x.dtype)
    for i in range(kh):
        for j in range(kw):
            window = padded[:, :, i * dilation : i * dilation + h, j * dilation : j * dilation + w]
            out = out + window * conv.weight[:, 0, i, j, None, None]
    return out if conv.bias is None else out + conv.bias[:, None, None]


def pointwise(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    return torch.einsum('oc,nchw->nohw', conv.weight[:, :, 0, 0], x) + conv.bias[:, None, None]


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def plain_norm(x: torch.Tensor, norm: ChannelNorm) -> torch.Tensor:
    mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
    return (x - mean) / (var + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


def plain_strip(x: torch.Tensor, strip: StripConv, size: int) -> torch.Tensor:
    """What the authors' paddings amount to, pixel by pixel: the 1×k conv sees no padding beside the image, so that
    only the columns with a whole window hold anything but the second bias; above and below it is its bias."""
    n, c, h, w = x.shape
    pad = size // 2
    out = strip.column.bias[:, None, None].expand(n, c, h, w).clone()
    for column in range(pad, w - pad):
        window = x[:, :, :, column - pad : column + pad + 1]
        inner = (window * strip.row.weight[:, 0]).sum(3) + strip.row.bias[:, None]  # N×C×H
        border = strip.row.bias[:, None].expand(n, c, pad)
        inner = torch.cat([border, inner, border], 2)
        for row in range(h):
            taps = inner[:, :, row : row + size] * strip.column.weight[:, 0, :, 0]
            out[:, :, row, column] += taps.sum(2)
    return out


SIZES = [(1, 1), (4, 2), (3, 3), (2, 4), (6, 5), (1, 9), (7, 8)]


@pytest.mark.parametrize('kernel_size', [3, 5])
@pytest.mark.parametrize('size', SIZES)
def test_strip_conv_keeps_the_authors_paddings_at_any_size(kernel_size, size):
    strip = filled(StripConv(4, kernel_size))
    x = images(2, 4, *size)
    assert torch.allclose(strip(x), plain_strip(x, strip, kernel_size), rtol=0, atol=1e-12)


@pytest.mark.parametrize('kernel_size', [3, 5])
def test_strip_conv_is_the_authors_two_convs_where_they_work(kernel_size):
    strip = filled(StripConv(4, kernel_size))
    x = images(1, 4, 6, 7)
    pad = kernel_size // 2
    inner = depthwise(x, strip.row, (pad, 0))
    assert inner.shape == (1, 4, 6 + kernel_size - 1, 7 - kernel_size + 1)
    assert torch.allclose(strip(x), depthwise(inner, strip.column, (0, pad)), rtol=0, atol=1e-12)


def plain_gate(u: torch.Tensor, gate: LGCA) -> torch.Tensor:
    x = pointwise(u, gate.proj_in)
    wide = depthwise(depthwise(x, gate.local, (2, 2)), gate.wide, (6, 6), dilation=3)
    return u * pointwise(wide + plain_strip(x, gate.strip5, 5) + plain_strip(x, gate.strip3, 3) + x, gate.proj_out)


def plain_attention(x: torch.Tensor, part: GatedAttention) -> torch.Tensor:
    inner = gelu(pointwise(plain_norm(x, part.norm), part.proj_in))
    return x + part.scale * pointwise(plain_gate(inner, part.gate), part.proj_out)


def plain_feed_forward(x: torch.Tensor, part: LEFN) -> torch.Tensor:
    wide = pointwise(plain_norm(x, part.norm), part.expand)
    return x + part.scale * pointwise(gelu(depthwise(wide, part.depthwise, (1, 1)) + wide), part.reduce)


PLAIN = {
    ChannelNorm: plain_norm,
    LGCA: plain_gate,
    GatedAttention: plain_attention,
    LEFN: plain_feed_forward,
}


@pytest.mark.parametrize('part', PLAIN)
@pytest.mark.parametrize('size', SIZES)
def test_parts_equal_the_plain_formula(part, size):
    module = filled(part(4))
    x = images(2, 4, *size)
    assert torch.allclose(module(x), PLAIN[part](x, module), rtol=0, atol=1e-12)


def test_only_the_depthwise_conv_of_the_feed_forward_has_no_bias():
    network = LGVAN(num_block=1)
    without = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.bias is None]
    assert without == ['body.0.1.depthwise']


@pytest.mark.parametrize(('upscale', 'steps'), [(2, [2]), (3, [3]), (4, [2, 2])])
def test_network_equals_the_plain_formula(upscale, steps):
    network = filled(LGVAN(num_feat=4, num_block=2, upscale=upscale))
    x = torch.rand(2, 3, 6, 7, dtype=torch.float64)
    shallow = out = network.conv_first(x)
    for attention, feed_forward in network.body:
        out = plain_feed_forward(plain_attention(out, attention), feed_forward)
    assert network.conv_after_body.groups == 2
    out = network.conv_after_body(out) + shallow
    convs = [layer for layer in network.upsample if isinstance(layer, nn.Conv2d)]
    for conv, step in zip(convs, steps, strict=True):
        out = F.pixel_shuffle(pointwise(out, conv), step)
    out = network.conv_last(torch.where(out > 0, out, 0.2 * out))
    expected = out + F.interpolate(x, scale_factor=upscale, mode='bilinear', align_corners=False)
    assert torch.allclose(network(x), expected, rtol=1e-12, atol=1e-12)

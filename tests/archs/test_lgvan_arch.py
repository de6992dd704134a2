import copy

import pytest
import torch
from torch import nn

from earn_plugin.archs.lgvan_arch import LGVAN, DepthwiseConv, StripConv


def filled(module: nn.Module) -> nn.Module:
    """In float64, with random weights."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_has_the_authors_parameter_and_conv_counts():
    network = LGVAN()
    assert sum(p.numel() for p in network.parameters()) == 118_243
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 122


def conv_costs(network: LGVAN) -> tuple[list[int], list[int], torch.Size]:
    """Values and multiply-adds of each conv's output, and the network's output, at 3×256×256 without computing it."""
    values, multiply_adds = [], []

    def count(conv, inputs, output):
        values.append(output.numel())
        multiply_adds.append(output.numel() * conv.weight[0].numel())

    for module in network.to('meta').modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    return values, multiply_adds, network(torch.empty(1, 3, 256, 256, device='meta')).shape


def test_costs_are_those_that_the_challenge_reports():
    """The challenge's counter also counts the LeakyReLU's values, fvcore four for each bilinear value."""
    values, multiply_adds, (_, channels, height, width) = conv_costs(LGVAN())
    assert sum(values) == 332_392_832
    assert sum(multiply_adds) + 32 * height * width == 9_057_572_992
    assert sum(multiply_adds) + 4 * channels * height * width == 9_036_601_472


def test_starts_with_the_body_as_the_identity():
    network = LGVAN(num_feat=8, num_block=2).double()
    scales = [p for name, p in network.named_parameters() if name.endswith('scale')]
    assert [tuple(p.shape) for p in scales] == [(1, 8, 1, 1)] * 4
    assert not any(p.any() for p in scales)
    x = images(1, 8, 5, 6)
    assert torch.equal(network.body(x), x)


def plain_strip(x: torch.Tensor, strip: StripConv, size: int) -> torch.Tensor:
    """The result of the authors' paddings, pixel by pixel: the 1×k conv has no padding to the left and right, so all
    columns without a complete window are the second bias; the rows that it pads are its own bias."""
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
def test_strip_conv_has_the_authors_paddings_at_any_size(kernel_size, size):
    strip = filled(StripConv(4, kernel_size))
    x = images(2, 4, *size)
    assert torch.allclose(strip(x), plain_strip(x, strip, kernel_size), rtol=0, atol=1e-12)


@pytest.mark.parametrize('shape', [(5, 6, 3), ((1, 5), (2, 0), 1), ((3, 1), (0, 1), 1)], ids=str)
def test_a_dense_conv_gives_the_result_and_gradients_of_a_depthwise_one(shape):
    conv, x = filled(DepthwiseConv(4, *shape)), images(2, 4, 7, 6).requires_grad_()
    found, expected = (
        torch.autograd.grad(out.square().sum(), [x, *conv.parameters()]) for out in (conv.as_dense(x), conv(x))
    )
    assert torch.allclose(conv.as_dense(x), conv(x), atol=1e-12)
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(found, expected, strict=True))


def test_convs_are_dense_in_training_on_a_gpu_alone(monkeypatch):
    """Elsewhere operations are counted and images are enlarged, by the depthwise convs."""
    calls = []
    monkeypatch.setattr(DepthwiseConv, 'as_dense', lambda conv, x: calls.append(conv) or nn.Conv2d.forward(conv, x))
    network, x = LGVAN(num_feat=8, num_block=1), torch.rand(1, 3, 6, 7)
    for is_cuda, training, count in ((False, True, 0), (True, False, 0), (True, True, 5)):
        monkeypatch.setattr(torch.Tensor, 'is_cuda', is_cuda)
        network.train(training)(x)
        assert len(calls) == count


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_training_on_a_gpu_gives_the_results_of_inference():
    network = LGVAN(num_feat=8, num_block=2).cuda()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.rand(2, 3, 17, 12, device='cuda')
    expected = copy.deepcopy(network).eval()(x)
    assert torch.allclose(network.train()(x), expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item())  # TF32

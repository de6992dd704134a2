import pytest
import torch
from torch.nn import functional as F

from earn_plugin.archs import blocks


def test_efficient_residual_block_equals_carns(golden):
    case = golden('block_efficient_residual_c32_g8')
    block = blocks.EfficientResidualBlock(32, 8).double()
    block.load_state_dict(dict(zip(block.state_dict(), case.weights.values(), strict=True)))
    assert case.error(block(case.input)) < 1e-9


def test_residual_block_is_conv_relu_conv_and_skip():
    block = blocks.ResidualBlock(4).double()
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    plain = block.conv2(block.conv1(x).clamp(min=0)) + x
    assert torch.equal(block(x), plain)
    block.relu_out = True
    assert torch.equal(block(x), plain.clamp(min=0))


def test_mean_shift_has_the_authors_float32_values():
    shift = blocks.MeanShift((0.4488, 0.4371, 0.4040), 255.0).double()
    assert shift.mean.flatten().tolist() == [114.44400024414062, 111.46049499511719, 103.02000427246094]
    x = torch.rand(1, 3, 2, 2, dtype=torch.float64)
    assert torch.allclose(shift.undo(shift(x)), x, atol=1e-15)
    assert not shift.state_dict()


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('size', [(1, 1), (1, 5), (2, 3), (7, 4)])
def test_bilinear_equals_interpolate(scale, size):
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    expected = F.interpolate(x, size=[scale * side for side in size], mode='bilinear', align_corners=False)
    assert torch.allclose(blocks.bilinear(x, scale), expected, rtol=0, atol=1e-14)

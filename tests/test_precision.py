import copy

import pytest
import torch
from torch import nn

from earn_plugin.precision import autocast, widen_dilated_convs


@pytest.mark.parametrize('compiled', [False, True])
def test_gradients_of_dilated_depthwise_convs_in_bfloat16(compiled):
    """Of a size for which torch's kernels get them wrong on processors with AVX-512."""
    torch.compiler.reset()
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 2, 2, groups=8), nn.Conv2d(8, 8, 3, 1, 2, dilation=(1, 2), groups=2))
    x = torch.randn(2, 8, 48, 47).contiguous(memory_format=torch.channels_last)
    expected = torch.autograd.grad(conv(x).square().sum(), list(conv.parameters()))
    widen_dilated_convs(conv)
    assert [type(layer) is nn.Conv2d for layer in conv] == [False, True]
    conv = copy.deepcopy(conv)
    run = torch.compile(conv, backend='aot_eager') if compiled else conv
    for _ in range(5):
        with autocast(x.device, 'bf16'):
            out = run(x.bfloat16())
        assert out.dtype == torch.bfloat16
        found = torch.autograd.grad(out.float().square().sum(), list(conv.parameters()))
        for a, b in zip(found, expected, strict=True):
            assert (a - b).norm() < 0.01 * b.norm()
    torch.compiler.reset()

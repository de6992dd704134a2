import copy

import pytest
import torch
from torch import nn

from earn_plugin.inference.layout import faster_layout
from tests.archs.test_any_arch import SMALL, small


def is_channels_last(x: torch.Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


@pytest.mark.parametrize('name', SMALL)
def test_our_networks_compute_with_channels_last(name):
    network = small(name).double()
    x, layouts = torch.rand(2, 3, 10, 6, dtype=torch.float64), []
    fast = faster_layout(copy.deepcopy(network))
    for conv in [m for m in fast.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)][1:]:
        conv.register_forward_pre_hook(lambda module, given: layouts.append(is_channels_last(given[0])))
    with torch.inference_mode():
        assert torch.allclose(fast(x), network(x), rtol=0, atol=1e-12)
    assert layouts.count(True) > 0.5 * len(layouts) > 0


def test_other_networks_and_devices_are_left_alone():
    other = faster_layout(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert not is_channels_last(other[0].weight)
    assert faster_layout(nn.ReLU()) is not None
    assert not is_channels_last(faster_layout(small('LGVAN').to('meta')).conv_first.weight)

import copy

import pytest
import torch
from torch import nn

from earn_plugin.archs.han_arch import HAN
from earn_plugin.models.compilation import compile_blocks


class Counting:
    """A backend of torch.compile that counts the graphs it gets and runs them as they are."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def backend(monkeypatch):
    torch.compiler.reset()
    backend, compile_ = Counting(), nn.Module.compile
    monkeypatch.setattr(nn.Module, 'compile', lambda net, **kwargs: compile_(net, backend=backend, **kwargs))
    yield backend
    torch.compiler.reset()


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width + 1, 1)

    def forward(self, x):
        return self.conv(x).relu()


class Network(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        self.body = nn.Sequential(*map(Block, widths))

    def forward(self, x):
        return self.body(x)


@pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor that is not a leaf')  # of the compiler's own code
def test_equal_blocks_are_compiled_once(backend):
    network = HAN(num_feat=16, num_group=4, num_block=3, upscale=2)
    expected, x = copy.deepcopy(network), torch.rand(1, 3, 8, 9)
    compile_blocks(network)
    assert torch.equal(network(x), expected(x))
    assert backend.graphs == 1


@pytest.mark.parametrize(('widths', 'graphs'), [((3, 4), 2), ((3,), 1)])
@pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor that is not a leaf')
def test_blocks_of_other_widths_and_networks_without_repeated_blocks(widths, graphs, backend):
    network = Network(*widths)
    compile_blocks(network)
    assert network(torch.rand(1, 3, 2, 2)).shape == (1, widths[-1] + 1, 2, 2)
    assert backend.graphs == graphs

"""The reach that networks state, against the one that a NaN in the input shows."""

import pytest
import torch
from torch import nn

from earn_plugin.archs import a2n_arch, attention, han_arch
from earn_plugin.inference.reach import Reach, measure_reach
from tests.archs.test_any_arch import EVERY, UPSCALES, small


@pytest.fixture(autouse=True)
def nothing_global(monkeypatch):
    """What is computed from the entire image becomes constant."""
    monkeypatch.setattr(attention.AdaptivelyScaledChannelAttention, 'forward', lambda self, x: 0.7 * x)
    monkeypatch.setattr(attention.ChannelAttention, 'forward', lambda self, x: 0.7 * x)
    monkeypatch.setattr(attention.NonLocalAttention, 'forward', lambda self, x: x)
    monkeypatch.setattr(han_arch.LayerAttention, 'forward', lambda self, layers: 1.1 * layers.flatten(1, 2))
    monkeypatch.setattr(a2n_arch.DynamicAttention, 'forward', lambda self, mean: torch.full_like(mean[:, :2], 0.5))


def measured(name: str, upscale: int, **arguments) -> tuple[Reach, Reach | None]:
    network = small(name, upscale=upscale, **arguments).double()
    stated = Reach(network.reach, network.alignment)
    return stated, measure_reach(network, 3, upscale, length=2 * stated.pixels + 140, across=6)


@pytest.mark.parametrize(('name', 'arguments'), EVERY)
def test_every_network_states_its_reach(name, arguments):
    for upscale in UPSCALES[name]:
        stated, found = measured(name, upscale, **arguments)
        assert found == stated, upscale


@pytest.mark.parametrize(
    ('name', 'arguments', 'reach'),
    [
        ('LGVAN', {'num_block': 9}, 84),
        ('A2N', {'num_block': 16}, 36),
        ('EARN', {'num_block': 4}, 69),
        ('EARN', {'num_block': 2, 'window_size': 7}, 41),
        ('EARN', {'num_block': 1, 'variant': 'released', 'use_asca': False}, 21),
        ('EARN', {'num_block': 1, 'use_local_attention': False, 'use_skip': False}, 20),
        ('HAN', {'num_group': 1, 'num_block': 4}, 15),
        ('RK4RDN', {'num_block': 4, 'order': 2, 'num_layer': 6, 'num_grow_ch': 2}, 53),
        ('RNAN', {'num_block': 4}, 94),
    ],
)
def test_the_reach_follows_from_the_arguments(name, arguments, reach):
    stated, found = measured(name, 2, **arguments)
    assert stated.pixels == reach
    assert found == stated


def test_a_network_that_sees_everything_has_no_reach():
    class Mean(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * x.mean()

    assert measure_reach(Mean(3, 3, 3, padding=1), 3, 1, length=64) is None


def test_a_network_larger_than_the_strip_has_no_reach():
    assert measure_reach(nn.Conv2d(3, 3, 65, padding=32), 3, 1, length=64) is None


def test_pooling_needs_aligned_tiles():
    network = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
    assert measure_reach(network, 3, 1, length=128) == Reach(7, 4)


def test_networks_that_take_multiples_only_are_measured():
    network = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2))
    assert measure_reach(network, 3, 1) == Reach(3, 2)


def test_every_place_in_an_aligned_window_is_measured():
    class LastOfEight(nn.Module):
        def forward(self, x):
            width = x.shape[3]
            padded = nn.functional.pad(x, (0, -width % 8, 0, 0))
            return x + padded[..., 7::8].repeat_interleave(8, 3)[..., :width]

    assert measure_reach(LastOfEight(), 3, 1) == Reach(7, 8)


def test_what_a_nan_does_not_show_makes_the_reach_unknown():
    class ReLU(nn.Module):
        """As onnxruntime's, 0 for NaN."""

        def forward(self, x):
            return torch.where(x > 0, x, 0)

    convs = [nn.Conv2d(3, 16, 3, padding=1), ReLU(), nn.Conv2d(16, 3, 3, padding=1)]
    assert measure_reach(nn.Sequential(*convs), 3, 1) is None  # as if it saw 0 or 1 pixels
    assert measure_reach(nn.Conv2d(3, 3, 3, padding=1, padding_mode='circular'), 3, 1) is None  # the opposite border

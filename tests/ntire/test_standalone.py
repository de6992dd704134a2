"""Networks written here as teams write them, as their export has them."""

import sys

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY

from earn_plugin.convert.networks import find_network
from earn_plugin.measure.complexity import measure
from earn_plugin.ntire.single_file import register
from earn_plugin.ntire.standalone import Extra, extra_of, standalone
from earn_plugin.ntire.validate import validate
from tests.helpers.ntire_trees import write_tree

CPU = torch.device('cpu')
CONFIG = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

@dataclass(frozen=True)
class Config:
    feat: int = 4
    other: int | None = None

@ARCH_REGISTRY.register()
class TeamNet(nn.Module):
    def __init__(self, config: Config = Config()):
        super().__init__()
        self.conv = nn.Conv2d(3, config.feat, 1)
        self.last = nn.Conv2d(config.feat, 48, 1)

    def forward(self, x):
        return nn.functional.pixel_shuffle(self.last(self.conv(x)), 4)
"""
POOLED = """
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.nn import functional as F

@ARCH_REGISTRY.register()
class TeamNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 1)

    def forward(self, x):
        tokens = F.avg_pool2d(x, 8, ceil_mode=True).flatten(2).mT
        tokens = F.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=0.0)
        return F.pixel_shuffle(self.conv(x + tokens.mean(1)[..., None, None]), 4)
"""


@pytest.fixture
def team(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', sys.path[:])

    def write(text: str):
        (tmp_path / 'team_arch.py').write_text(text)
        register(tmp_path / 'team_arch.py')
        return find_network('TeamNet')

    yield write
    sys.modules.pop('team_arch', None)
    ARCH_REGISTRY._obj_map.pop('TeamNet', None)


def test_dataclasses(team):
    found = team(CONFIG)
    x = torch.rand(1, 3, 5, 4)
    assert torch.equal(standalone(found).network(x), found.network(x))


def test_attention_between_pooled_pixels_is_counted_at_the_official_size(team):
    """No law of the pixels tells the count, so it is measured where it is asked for: 32×32 tokens of 3 features."""
    found = team(POOLED)
    theirs = standalone(found)
    extra = extra_of(found, theirs)
    assert extra == Extra(rest=2 * 3 * (32 * 32) ** 2)
    assert measure(found, device=CPU).fvcore + extra(256, 256) == measure(theirs, device=CPU).fvcore


def test_validate_has_the_flops_of_the_export(team, tmp_path):
    """What runs fused here is plain there, and fvcore counts it."""
    found = team(POOLED)
    report = validate(found, 2026, write_tree(tmp_path, 'mixed_valid', 1), device='cpu', results_dir=tmp_path)
    assert report.entry['flops'] == measure(standalone(found), device=CPU).fvcore / 1e9
    assert any('G of the FLOPs are of what runs fused here' in note for note in report.notes)

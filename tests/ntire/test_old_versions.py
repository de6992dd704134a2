import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY

from earn_plugin.ntire.old_versions import NEWER, NEWER_ON_TENSORS, find_newer
from earn_plugin.ntire.single_file import single_file
from tests.helpers.ntire_scripts import OURS


@pytest.mark.parametrize(
    ('text', 'what'),
    [
        ('from itertools import pairwise', 'itertools.pairwise'),
        ('import itertools as i\ni.batched(x, 2)', 'itertools.batched'),
        ('import torch\nf = torch.compile(f)', 'torch.compile'),
        ('from torch import nn\nx = nn.RMSNorm(3)', 'torch.nn.RMSNorm'),
        ('import torch\ny = x[:, torch.newaxis]', 'torch.newaxis'),
        ('from torch.utils.checkpoint import set_checkpoint_early_stop', 'set_checkpoint_early_stop'),
        ('from typing import LiteralString', 'typing.LiteralString'),
        ('import torch.nn.functional as F\nF.scaled_dot_product_attention(q, k, v)', 'scaled_dot_product_attention'),
        ('from torch.nn.attention import sdpa_kernel', 'torch.nn.attention.sdpa_kernel'),
        ('import torch\ntorch.func.vmap(f)', 'torch.func'),
        ('x.itemsize', '.itemsize'),
        ('zip(a, b, strict=True)', 'zip(strict=…)'),
        ('from dataclasses import dataclass\n@dataclass(slots=True)\nclass A: pass', 'dataclass(slots=…)'),
        ('Number = int | float', 'int | float'),
        ('isinstance(x, list | tuple)', 'list | tuple'),
        ('y = anext(x)', 'anext'),
        ('match x:\n    case 1: pass', 'Pattern matching'),
        ('try: pass\nexcept* ValueError: pass', ', which Python 3.9 cannot read'),
    ],
)
def test_newer_names_are_reported(text, what):
    (problem,) = find_newer(text)
    assert what in problem
    assert 'Python 3.9' in problem


def test_timm_of_the_organisers():
    assert find_newer('from timm.layers import DropPath') == [
        'timm.layers.DropPath, which timm 0.6 does not have, in `from timm.layers import DropPath`'
    ]
    assert find_newer('from timm.models.layers import DropPath') == []


def test_old_names_are_not():
    text = """
    from __future__ import annotations
    import math
    import torch
    from torch import Tensor, nn
    def f(x: int | None = None, *y: list[int] | Tensor) -> Tensor | None:
        z: int | float = x.bit_length() | 3
        self.itemsize = self.nbytes = 1
        return torch.nn.functional.gelu(nn.Conv2d(1, 1, 1)(x)) | mask | math.prod(y)
    """
    assert find_newer(text.replace('\n    ', '\n')) == []


def test_the_table_has_names_of_torch():
    """So that no entry is misspelt."""
    for module, names in NEWER.items():
        if module.startswith('torch'):
            there = __import__(module, fromlist=['x'])
            assert all(hasattr(there, name) for name in names.split()), module
    assert all(hasattr(torch.Tensor, name) for name in NEWER_ON_TENSORS)


def run(*arguments) -> bool:
    return subprocess.run(arguments, capture_output=True, check=False, cwd='/').returncode == 0


def test_python39_reads_our_networks(tmp_path):
    candidates = [shutil.which('python3.9'), *Path.home().glob('.pyenv/versions/3.9.*/bin/python')]
    python = next((python for python in filter(None, candidates) if run(python, '-c', '')), None)
    if python is None:
        pytest.skip('there is no Python 3.9 here')
    for arch in OURS:
        (tmp_path / f'{arch}.py').write_text(single_file(ARCH_REGISTRY.get(arch)), encoding='utf-8')
    subprocess.run([python, '-m', 'py_compile', *tmp_path.glob('*.py')], check=True)


OLD = """
import sys, torch, warnings
warnings.simplefilter('ignore')
assert torch.__version__.startswith('1.13'), torch.__version__
for arch in {arches!r}:
    module = __import__(arch)
    case = torch.load(arch + '.pt')
    network = getattr(module, arch)(**case['arguments']).eval().double()
    network.load_state_dict(case['weights'], strict=True)
    difference = (network(case['input']) - case['output']).abs().max() / case['output'].abs().max()
    assert difference < 1e-9, (arch, difference)
"""


@pytest.mark.slow
def test_torch113_gives_the_same(tmp_path):
    """Where there is one: Debian 12 has it as python3-torch."""
    python = '/usr/bin/python3'
    if not shutil.which(python) or not run(python, '-c', 'import torch; assert torch.__version__.startswith("1.13")'):
        pytest.skip('there is no torch 1.13 here')
    for arch, arguments in OURS.items():
        torch.manual_seed(0)
        network = ARCH_REGISTRY.get(arch)(**arguments).eval().double()
        x = torch.rand(1, 3, 17, 22, dtype=torch.float64)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            case = {'arguments': arguments, 'weights': network.state_dict(), 'input': x, 'output': network(x)}
        torch.save(case, tmp_path / f'{arch}.pt')
        (tmp_path / f'{arch}.py').write_text(single_file(type(network)), encoding='utf-8')
    (tmp_path / 'run.py').write_text(OLD.format(arches=list(OURS)))
    done = subprocess.run([python, 'run.py'], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

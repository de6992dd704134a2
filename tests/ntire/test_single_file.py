"""Modules written here as users write them, joined into one file."""

import sys
import types

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY

from earn_plugin.errors import UserError
from earn_plugin.ntire.single_file import single_file
from earn_plugin.ntire.years import find_year

TORCH = 'import torch\nfrom torch import nn\n'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes modules into a folder on the path; they and what they registered are forgotten afterwards."""
    before, names = set(sys.modules), set(ARCH_REGISTRY.keys())
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])

    def write(files: dict[str, str] | None = None, **modules: str):
        for name, text in {**(files or {}), **modules}.items():
            path = tmp_path / f'{name}.py'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding='utf-8')
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]
    for name in set(ARCH_REGISTRY.keys()) - names:
        del ARCH_REGISTRY._obj_map[name]


def run(text: str) -> dict:
    """The names of a joined file, run where neither BasicSR nor this package can be imported."""

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition('.')[0] in ('basicsr', 'earn_plugin'):
                raise ModuleNotFoundError(name)

    finder, aside = Absent(), {}
    for name in list(sys.modules):
        if name.partition('.')[0] in ('basicsr', 'earn_plugin'):
            aside[name] = sys.modules.pop(name)
    sys.meta_path.insert(0, finder)
    try:
        module = types.ModuleType('extracted')
        exec(compile(text, 'extracted', 'exec'), module.__dict__)
        return module.__dict__
    finally:
        sys.meta_path.remove(finder)
        sys.modules.update(aside)


def network(name: str = 'net_arch'):
    return __import__(name).Net


def test_only_what_is_used_is_included(project):
    project(
        net_arch=TORCH
        + """
import math

USED = 3
UNUSED = 4


class Unused(nn.Module):
    pass


# why this is so
def double(x):
    return USED * x


class Net(nn.Module):
    def forward(self, x):
        return double(x)
"""
    )
    text = single_file(network())
    assert 'Unused' not in text
    assert 'UNUSED' not in text
    assert 'math' not in text
    assert '# why this is so\ndef double' in text
    assert run(text)['Net']().forward(2) == 6


def test_modules_follow_those_that_they_import(project):
    project(
        parts=TORCH + 'from base import Base\nclass Part(Base):\n    pass\n',
        base=TORCH + 'class Base(nn.Module):\n    size = 5\n',
        net_arch='from parts import Part\nfrom base import Base as Root\n'
        'class Net(Part):\n    parts = [Root, Part]\n    def twin(self):\n        return Net\n',
    )
    text = single_file(network())
    assert text.index('class Base') < text.index('class Part') < text.index('class Net')
    made = run(text)
    assert made['Net'].size == 5
    assert made['Net'].parts == [made['Base'], made['Part']]


def test_a_package_with_relative_imports_and_a_package_that_reexports(project):
    files = {
        'team/__init__': '',
        'team/blocks/__init__': 'from .convs import conv\n',
        'team/blocks/convs': TORCH + 'KERNEL = 3\ndef conv(c):\n    return nn.Conv2d(c, c, KERNEL, 1, 1)\n',
        'team/net_arch': TORCH
        + 'from .blocks import conv\nclass Net(nn.Module):\n'
        + '    def __init__(self):\n        super().__init__()\n        self.conv = conv(4)\n',
    }
    project(files)
    cls = __import__('team.net_arch', fromlist=['Net']).Net
    text = single_file(cls)
    assert 'import conv' not in text
    assert run(text)['Net']().conv.in_channels == 4


def test_constants_that_are_changed_after_their_definition(project):
    project(
        net_arch=TORCH
        + 'SIZES = {2: 4}\nSIZES[3] = 9\nfor n in (4, 5):\n    SIZES[n] = n * n\n'
        + "NAMES = []\nNAMES.append('a')\nOTHERS = []\nOTHERS.append('b')\n"
        + 'class Net(nn.Module):\n    sizes = SIZES\n    names = NAMES\n'
    )
    text = single_file(network())
    assert run(text)['Net'].sizes == {2: 4, 3: 9, 4: 16, 5: 25}
    assert run(text)['Net'].names == ['a']
    assert 'OTHERS' not in text


def test_a_conditional_definition(project):
    project(
        net_arch=TORCH
        + "if hasattr(torch, 'cat'):\n    def join(x):\n        return torch.cat(x)\nelse:\n    join = None\n"
        + 'class Net(nn.Module):\n    join = staticmethod(join)\n    size = 2\n    area = size * size\n'
        + "if __name__ == '__main__':\n    import timm\n    torch = timm\n"
    )
    assert callable(run(single_file(network()))['Net'].join)


@pytest.mark.parametrize('name', ['ARCH_REGISTRY', 'networks'])
def test_registration_is_dropped(project, name):
    project(
        net_arch=TORCH + f'from basicsr.utils.registry import ARCH_REGISTRY as {name}\n'
        f'@{name}.register()\nclass Net(nn.Module):\n    """A × network."""\n'
    )
    text = single_file(network())
    assert name not in text
    assert run(text)['Net'].__doc__ == 'A × network.'


@pytest.mark.parametrize('arch', ['EDSR', 'RRDBNet', 'SwinIR'])
def test_networks_of_basicsr(arch):
    text = single_file(ARCH_REGISTRY.get(arch))
    assert arch in run(text)
    assert 'get_root_logger' not in text


def refused(*parts: str):
    with pytest.raises(UserError) as error:
        single_file(network())
    for part in parts:
        assert part in str(error.value)


NET = 'class Net(nn.Module):\n    def forward(self, x):\n        return {}\n'


def test_a_library_that_organisers_lack(project):
    project(net_arch=TORCH + 'import skimage\n' + NET.format('skimage.rescale(x)'))
    refused('net_arch.py, line 3: skimage is imported', "organisers' machines may not have")


def test_a_library_that_organisers_lack_by_name_or_inside_a_function(project):
    project(net_arch=TORCH + 'from skimage.util import crop\n' + NET.format('crop(x)'))
    refused('line 3: skimage.util is imported')
    project(other_arch=TORCH + NET.format('x').replace('return', 'from skimage import util; return'))
    with pytest.raises(UserError, match=r'other_arch\.py, line 5: skimage is imported'):
        single_file(__import__('other_arch').Net)


def test_an_unused_library_is_ignored(project):
    project(net_arch=TORCH + 'import skimage\n' + NET.format('x') + 'class Other(nn.Module):\n    y = skimage\n')
    assert 'skimage' not in single_file(network())


def test_a_module_imported_as_a_whole(project):
    project(helpers='def f(x):\n    return x\n', net_arch=TORCH + 'import helpers\n' + NET.format('helpers.f(x)'))
    refused('helpers is imported as a whole', 'from helpers import …')


def test_star_imports(project):
    project(
        base='def f(x):\n    return 2 * x\n',
        helpers='from base import *\ndef g(x):\n    return 3 * x\n',
        net_arch=TORCH + 'from helpers import *\n' + NET.format('f(g(x))'),
    )
    assert run(single_file(network()))['Net']().forward(3) == 18


def test_star_imports_of_libraries_become_imports_by_name(project):
    """A star that has none of the names is dropped, even of what the organisers lack, and of the registry."""
    project(
        sibling='from skimage.util import *\nfrom math import *\ndef f(x):\n    return sqrt(x)\n',
        net_arch='from torch import *\nfrom torch.nn import *\nfrom sibling import *\n'
        'from basicsr.utils.registry import *\n@ARCH_REGISTRY.register()\nclass Net(Module):\n'
        '    def forward(self, x):\n        return f(x) + len([sqrt(x)])\n',
    )
    text = single_file(network())
    assert '*' not in text
    assert 'from math import sqrt\n' in text
    assert run(text)['Net']().forward(9) == 4


def test_star_imports_in_a_try(project):
    project(
        sibling=TORCH + "__all__ = ['f', 'nn', '_g']\ndef f(x):\n    return _g(x)\ndef _g(x):\n    return 2 * x\n",
        net_arch='try:\n    from .sibling import *\nexcept ImportError:\n    from sibling import *\n'
        + NET.format('f(_g(x))'),
    )
    assert run(single_file(network()))['Net']().forward(3) == 12


def test_undefined_names_in_code_that_never_runs(project):
    project(
        sibling=TORCH + 'def f(x):\n    if x is None:\n        return OrderedDict()\n    return 2 * x\n',
        net_arch='from basicsr.utils.registry import *\nfrom sibling import *\n'
        + NET.format('f(x) if x else unknown(x)'),
    )
    assert run(single_file(network()))['Net']().forward(3) == 6


@pytest.mark.parametrize('name', ['einops.rearrange', 'timm.models.layers.DropPath', 'scipy.ndimage.zoom'])
def test_libraries_depend_on_the_year(project, name, tmp_path):
    """SciPy is installed here; the others are made up."""
    library, _, function = name.rpartition('.')
    above = {f'site-packages/{package}/__init__': '' for package in ('timm', 'timm/models')}
    layers = {'site-packages/timm/models/layers': 'DropPath = None'}
    project({**above, **layers, 'site-packages/einops': 'rearrange = None'})
    sys.path.insert(0, f'{tmp_path}/site-packages')
    lines = f'from {library} import {function}\nimport {library} as lib\n'
    project(net_arch=TORCH + lines + NET.format(f'{function}, lib'))
    for year in (2022, 2023):
        with pytest.raises(UserError, match=f"{library} is imported, which the organisers' machines may not have"):
            single_file(network(), packages=find_year(year).packages)
    for asked in (*map(find_year, (2024, 2025, 2026)), find_year(2025, 'quality'), find_year(2026, 'quality')):
        text = single_file(network(), packages=asked.packages)
        assert all(line in text for line in lines.splitlines())


def test_decorators_other_than_registration_are_kept(project):
    project(
        net_arch=TORCH + 'from functools import singledispatch\n@singledispatch\ndef size(x):\n    return 1\n'
        '@size.register\ndef size_of_text(x: str):\n    return 2\n' + NET.format('size_of_text, size(x)')
    )
    text = single_file(network())
    assert '@size.register\n' in text
    assert run(text)['Net']().forward('a')[1] == 2


@pytest.mark.parametrize('call', ['F.scaled_dot_product_attention', 'ops.scaled_dot_product_attention', 'attend'])
def test_fused_attention_becomes_the_plain_one(project, call):
    imports = (
        'from torch.nn import functional as F, functional as ops\n'
        'from torch.nn.functional import scaled_dot_product_attention as attend\n'
    )
    project(net_arch=TORCH + imports + NET.format(f'{call}(x, x, x)'))
    text = single_file(network())
    x = torch.rand(1, 5, 4)
    assert '.scaled_dot' not in text
    assert torch.allclose(run(text)['Net']().forward(x), torch.nn.functional.scaled_dot_product_attention(x, x, x))


def test_own_attention_of_that_name_is_kept(project):
    name = 'scaled_dot_product_attention'
    project(
        helpers=f'def {name}(x):\n    return 2 * x\n',
        net_arch=TORCH
        + f'from helpers import {name} as attend\n'
        + NET.format(f'attend(self.{name}(x))')
        + f'    def {name}(self, x):\n        return 3 * x\n',
    )
    assert run(single_file(network()))['Net']().forward(1) == 6


def test_dataclasses_and_their_annotations(project):
    project(
        net_arch='from __future__ import annotations\nfrom dataclasses import dataclass\n'
        + TORCH
        + '@dataclass(frozen=True)\nclass Config:\n    feat: int = 4\n    other: int | None = None\n'
        + 'class Net(nn.Module):\n    config = Config()\n'
    )
    sys.modules['extracted'] = types.ModuleType('extracted')  # where dataclasses look up what annotations name
    assert run(single_file(network()))['Net'].config.feat == 4


def test_a_part_from_the_registry(project):
    project(
        net_arch=TORCH
        + 'from basicsr.utils.registry import ARCH_REGISTRY\n'
        + NET.format("ARCH_REGISTRY.get('EDSR')(x)")
    )
    refused('asks the registry')


def test_two_definitions_of_one_name(project):
    project(
        helpers=TORCH + 'class Block(nn.Module):\n    pass\nclass Pair(Block):\n    pass\n',
        net_arch=TORCH + 'from helpers import Pair\nclass Block(nn.Module):\n    pass\n' + NET.format('Block, Pair'),
    )
    refused('Block is helpers.Block here and net_arch.Block elsewhere', 'rename one')

"""Who may import whom: each module only what stands on its own floor or below, and never the command line."""

import ast
from pathlib import Path

import pytest

import earn_plugin

PACKAGE = Path(earn_plugin.__file__).parent
FLOORS = [
    {'errors', 'files', 'rng', 'signals', 'compat', ''},
    {'archs', 'losses', 'data.bicubic', 'data.check', 'data.decoding', 'data.headers', 'data.sources'},
    {'data', 'models', 'distributed', 'validation'},
    {'options', 'checkpoint', 'convert', 'building', 'train', 'test', 'listing', 'doctor', 'inference'},
    {'benchmark', 'ntire'},
    {'cli'},
    {'__main__'},
]


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    return '.'.join(part for part in parts if part != '__init__')


def floor(module: str) -> int:
    for known in (module, module.partition('.')[0]):
        for number, modules in enumerate(FLOORS):
            if known in modules:
                return number
    raise AssertionError(f'{module} has no floor')


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith('earn_plugin'):
            module = node.module.removeprefix('earn_plugin').removeprefix('.')
            inside = PACKAGE / module.replace('.', '/')
            for alias in node.names:  # from earn_plugin.data import demo
                is_module = (inside / f'{alias.name}.py').exists() or (inside / alias.name).is_dir()
                found.add(f'{module}.{alias.name}'.lstrip('.') if is_module else module)
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix('earn_plugin').removeprefix('.') for a in node.names if 'earn_plugin' in a.name
            }
    return found


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=name_of)
def test_imports_go_down_only(path):
    here = name_of(path)
    for module in imports(path):
        assert floor(module) <= floor(here), f'{here} imports {module}'
        if here.startswith('archs.') and here.endswith('_arch'):
            deploy = here.replace('_arch', '_deploy')  # the parts of its own inference form
            assert module in ('archs.blocks', 'archs.attention', deploy), f'{here} imports {module}'
        if here.startswith('archs.') and here.endswith('_deploy'):
            assert module in ('archs.blocks', 'archs.attention'), f'{here} imports {module}'

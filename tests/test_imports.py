"""Who may import whom: imports go down only, files and public names stand once, and nobody imports the command line."""

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import earn_plugin

PACKAGE = Path(earn_plugin.__file__).parent
LAYERS = [  # from the ground up; a module imports from its own folder and from the layers below it
    {'errors'},
    {'atomic_files', 'rng', 'compat', 'protocols', 'weights'},
    {'', 'signals', 'devices', 'precision', 'own_code', 'archs'},
    {'convert'},
    {'losses'},
    {'models', 'data', 'doctor'},
    {'metrics', 'prepare'},
    {'options', 'measure'},
    {'inference', 'spandrel'},
    {'training', 'ntire', 'catalogue'},
    {'figures'},
    {'report', 'results'},
    {'cli'},
    {'__main__'},
]
FILES = sorted(PACKAGE.rglob('*.py'))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    return '.'.join(part for part in parts if part != '__init__')


def folder_of(module: str) -> str:
    return module.partition('.')[0]


def layer(module: str) -> int:
    return next(number for number, folders in enumerate(LAYERS) if folder_of(module) in folders)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('earn_plugin'):
            module = node.module.removeprefix('earn_plugin').removeprefix('.')
            inside = PACKAGE / module.replace('.', '/')
            for alias in node.names:  # from earn_plugin.prepare import demo
                is_module = (inside / f'{alias.name}.py').exists() or (inside / alias.name).is_dir()
                found.add(f'{module}.{alias.name}'.lstrip('.') if is_module else module)
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix('earn_plugin').removeprefix('.') for a in node.names if 'earn_plugin' in a.name
            }
    return found


@pytest.mark.parametrize('path', FILES, ids=name_of)
def test_imports_go_down_only(path):
    here = name_of(path)
    for module in imports(path):
        is_inside = folder_of(module) == folder_of(here)
        assert is_inside or layer(module) < layer(here), f'{here} imports {module}'
        if here.startswith('archs.') and here.endswith('_arch'):
            own_fused_form = here.replace('_arch', '_fused')
            assert module in ('archs.arguments', 'archs.attention', 'archs.blocks', own_fused_form), f'{here} {module}'


def test_there_is_no_circle():
    TopologicalSorter({name_of(path): imports(path) for path in FILES}).prepare()  # raises CycleError, which names it


def test_a_file_name_stands_once():
    stems = [path.stem for path in FILES if not path.stem.startswith('__')]
    assert sorted(stems) == sorted(set(stems))


def test_a_public_name_stands_once():
    defined = defaultdict(list)
    for path in FILES:
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith('_'):
                defined[node.name].append(name_of(path))
    several = {name: modules for name, modules in defined.items() if len(modules) > 1}
    assert set(several) <= {'add_commands', 'load'}, several  # of each group of commands; the package's own shortcut

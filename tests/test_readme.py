"""README and the page on training at scale: their commands are valid, and README's tables are complete."""

import ast
import json
import re
import shlex

import pytest

from earn_plugin.cli import parser
from earn_plugin.options.options_file import find_options_file, recipes
from tests.helpers.places import ROOT

README = (ROOT / 'README.md').read_text(encoding='utf-8')
SCALING = (ROOT / 'docs/scaling.md').read_text(encoding='utf-8')


def lines_of(page: str) -> list[str]:
    blocks = re.findall(r'```bash\n(.+?)```', page.replace('\\\n', ''), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


LINES = lines_of(README)


def commands() -> list[str]:
    found = [part.strip() for line in [*LINES, *lines_of(SCALING)] for part in line.split('&&')]
    found = [re.sub(r'^((srun )?torchrun .*-m earn_plugin|\.venv/bin/basicsr)', 'basicsr', part) for part in found]
    return [part for part in found if part.startswith('basicsr ')]


@pytest.mark.parametrize('command', commands())
def test_a_command_is_valid(command):
    args = parser().parse_args(shlex.split(command, comments=True)[1:])
    if hasattr(args, 'opt'):
        assert find_options_file(args.opt).is_file()


def expand(name: str) -> list[str]:
    """As a shell does: 'train_HAN_x{2,3}' → train_HAN_x2, train_HAN_x3."""
    braces = re.search(r'\{(.+?)\}', name)
    if not braces:
        return [name]
    return [
        expanded
        for part in braces[1].split(',')
        for expanded in expand(name[: braces.start()] + part + name[braces.end() :])
    ]


def test_the_readme_names_every_recipe_and_no_other():
    assert commands()
    rows = re.findall(r'^\| (`(?:demo|train|test)_.+?) \|', README, re.MULTILINE)
    named = [name for row in rows for code in re.findall(r'`(.+?)`', row) for name in expand(code)]
    assert sorted(named) == sorted(path.stem for path in recipes())


def test_ci_installs_and_tests_as_the_readme_says():
    run = (ROOT / '.ci/run').read_text()
    install, tests = LINES[0].split(' && ')[0], LINES[1]
    assert install == 'python3 install.py'
    assert install.replace('python3', '"${PYTHON:-python3}"') in run
    assert run.rstrip().endswith(tests)


def test_the_table_of_places_is_complete():
    """Every folder and top-level module of the package, every folder of the repository, and nothing else."""
    table = README.partition('## Where things are')[2].partition('\n## ')[0]
    named = {name for row in re.findall(r'^\| (`.+?) \|', table, re.MULTILINE) for name in re.findall(r'`(.+?)`', row)}
    package = ROOT / 'earn_plugin'
    folders = [path.parent for path in package.glob('*/__init__.py')]
    folders += [ROOT / name for name in ('options', 'datasets', 'docs', 'tests')]
    modules = [path for path in package.glob('*.py') if not path.stem.startswith('__')]
    wanted = {f'{path.relative_to(ROOT).as_posix()}/' for path in folders}
    assert wanted | {path.relative_to(ROOT).as_posix() for path in modules} <= named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    'folder', [path.parent for path in ROOT.glob('earn_plugin/*/__init__.py')], ids=lambda f: f.name
)
def test_a_folder_says_what_belongs_in_it(folder):
    docstring = ast.get_docstring(ast.parse((folder / '__init__.py').read_text(encoding='utf-8')))
    assert docstring and len(docstring.split()) >= 8


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_the_figures_of_included_networks_are_those_measured(scale):
    measured = {}
    for file, names in ((f'A2N-S_x{scale}_mod{scale}', ('Set5', 'Set14')), (f'A2N-S_x{scale}', ('held_out',))):
        sets = json.loads((ROOT / f'docs/results/{file}.json').read_text(encoding='utf-8'))['datasets']
        measured |= {name: (sets[name]['mean'], sets[name]['bicubic']['mean']) for name in names}
    figures = [f'{mean["psnr"]:.2f} / {mean["ssim"]:.4f}' for pair in measured.values() for mean in pair]
    assert f'| A2N-S_x{scale} | {" | ".join(figures)} | ' in README

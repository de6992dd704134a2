"""A submission's branch in the organisers' script, and the script with it."""

import ast
import difflib
import io
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from earn_plugin.errors import UserError
from earn_plugin.ntire.years import Year, find_year

MARK = 'written by basicsr ntire export'
WIDTH = 100  # of a call's line in the branch, before it is indented
SCRIPTS = {'efficient': 'test_demo.py', 'quality': 'test.py'}


@dataclass(frozen=True)
class Submission:
    """A network with its team, and the names that follow from the organisers' rules."""

    year: int
    team: int
    name: str
    arch: str
    arguments: dict[str, Any]
    data_range: float
    track: str = 'efficient'

    @property
    def protocol(self) -> Year:
        return find_year(self.year, self.track)

    @property
    def module(self) -> str:
        """Starts with a letter, because ``models.18_LGVAN`` is not a Python name."""
        return f'team{self.team:02}_{self.name}'

    @property
    def label(self) -> str:
        return f'{self.team:02}_{self.name}'

    @property
    def code(self) -> str:
        """The file with the network, in the organisers' checkout."""
        return f'models/{self.module}.py' if self.track == 'efficient' else f'models/{self.module}/__init__.py'

    @property
    def weights(self) -> str:
        """The file with the weights, in the organisers' checkout."""
        folder = 'model_zoo' if self.track == 'efficient' else f'model_zoo/{self.module}'
        return f'{folder}/{self.module}.pth'


def branch(submission: Submission, keyword: str = 'elif', indent: str = '    ') -> str:
    """The lines to insert into ``select_model``, indented as in the script."""
    path = ', '.join(map(repr, submission.weights.split('/')))
    lines = [f'# {submission.label}, {MARK}']
    if submission.track == 'efficient':
        lines += [
            f'from models.{submission.module} import {submission.arch}',
            f'name, data_range = f"{{model_id:02}}_{submission.name}", {submission.data_range}',
            f'model_path = os.path.join({path})',
            *model_call(submission.arch, submission.arguments),
            'model.load_state_dict(torch.load(model_path), strict=True)',
        ]
    else:
        lines += [
            f'from models.{submission.module} import main as {submission.module}',
            f'name = f"{{model_id:02}}_{submission.name}"',
            f'model_path = os.path.join({path})',
            f'model_func = {submission.module}',
        ]
    lines = [f'{keyword} model_id == {submission.team}:', *(f'    {line}' for line in lines)]
    return ''.join(f'{indent}{line}\n' for line in lines)


def model_call(arch: str, arguments: dict[str, Any]) -> list[str]:
    given = [f'{name}={value!r}' for name, value in arguments.items()]
    call = f'model = {arch}({", ".join(given)})'
    return [call] if len(call) <= WIDTH else [f'model = {arch}(', *(f'    {argument},' for argument in given), ')']


def find_script(repo: Path, track: str) -> Path:
    """The organisers' script in their checkout: the one that selects the model.

    Raises:
        UserError: there is none, or more than one.
    """
    if not repo.is_dir():
        raise UserError(f"{repo} is not a folder; --repo must be a checkout of the organisers' repository")
    found = [path for path in sorted(repo.glob('*.py')) if re.search(rb'^def select_model\(', path.read_bytes(), re.M)]
    named = [path for path in found if path.name == SCRIPTS[track]] or found
    if len(named) == 1:
        return named[0]
    raise UserError(
        f"{repo} is not a checkout of the organisers' repository: it has no script with a function select_model"
        if not named
        else f'{repo}: {", ".join(path.name for path in named)} all have a function select_model; keep only one'
    )


def patch_script(path: Path, submission: Submission) -> str:
    """The script's text with the branch; unchanged if it already has this branch.

    Raises:
        UserError: another branch has that number, or there is no place for a branch.
    """
    text = read_script(path)
    lines = list(io.StringIO(text, newline=''))  # as Python numbers them: splitlines splits at form feeds as well
    chain = chain_of(path, select_model_in(path, text))
    of_team = next((node for node in chain if submission.team in numbers_in(node.test)), None)
    if of_team:
        start, end = of_team.lineno - 1, of_team.body[-1].end_lineno
        # the organisers reserve numbers, with a branch that does nothing, for teams that have still to submit
        is_reserved = len(numbers_in(of_team.test)) == 1 and all(isinstance(node, ast.Pass) for node in of_team.body)
        if not is_reserved and MARK not in ''.join(lines[start:end]):
            raise UserError(
                f'{path}, line {start + 1}: model_id {submission.team} is taken: {lines[start].strip()}; remove that '
                'branch if it is yours, else use the team id that the organisers gave you or, to try the script, one '
                f'that is free: {free_ids(chain)}'
            )
        indent, keyword = re.match(r'(\s*)((?:el)?if)', lines[start]).groups()
    else:
        start = chain[-1].orelse[0].lineno - 1
        while not (last := re.match(r'(\s*)else\s*:', lines[start])):
            start -= 1
        end, indent, keyword = start, last[1], 'elif'
    new = branch(submission, keyword, indent).replace('\n', '\r\n' if '\r\n' in text else '\n')
    return ''.join([*lines[:start], new, *lines[end:]])


def script_diff(path: Path, new: str) -> str:
    """The change as a unified diff; empty if nothing changes."""
    old = read_script(path).splitlines()
    return '\n'.join(difflib.unified_diff(old, new.splitlines(), f'a/{path.name}', f'b/{path.name}', lineterm=''))


def read_script(path: Path) -> str:
    """The text with its own line endings.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return path.read_bytes().decode('utf-8')
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not UTF-8 ({error}); use the script as the organisers publish it') from error


def select_model_in(path: Path, text: str) -> ast.FunctionDef:
    try:
        tree = ast.parse(text.removeprefix('\ufeff'))
    except SyntaxError as error:
        line = (error.text or '').strip()
        if wrong := re.search(r'\bmodels\.(\d\w*)', line):
            raise UserError(
                f'{path}, line {error.lineno}: models.{wrong[1]} is not a Python name, so this script cannot run; '
                f'rename the file to team{wrong[1]}.py, and import models.team{wrong[1]}'
            ) from error
        raise UserError(f'{path}, line {error.lineno}: {error.msg}: {line}') from error
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == 'select_model')


def chain_of(path: Path, function: ast.FunctionDef) -> list[ast.If]:
    """The branches for the models: if, elif, …; the last one has the else that raises."""
    for statement in function.body:
        chain = []
        while isinstance(statement, ast.If):
            chain.append(statement)
            if any(isinstance(s, ast.Raise) and 'NotImplementedError' in ast.unparse(s) for s in statement.orelse):
                return chain
            statement = statement.orelse[0] if len(statement.orelse) == 1 else None
    raise UserError(
        f'{path}: the branches of select_model do not end with `else: raise NotImplementedError(…)`, before which the '
        'new one would go; use the script as the organisers publish it'
    )


def free_ids(chain: list[ast.If]) -> str:
    """The team ids of up to two digits that no branch has, such as 2, 3, 7, 23 to 99."""
    taken = set().union(*(numbers_in(node.test) for node in chain))
    free = [number for number in range(1, 100) if number not in taken]
    runs = [[number for _, number in run] for _, run in groupby(enumerate(free), lambda pair: pair[1] - pair[0])]
    return ', '.join(f'{run[0]} to {run[-1]}' if len(run) > 2 else ', '.join(map(str, run)) for run in runs)


def numbers_in(test: ast.expr) -> set[int]:
    """The numbers in ``model_id == 18`` or ``model_id in (18, 181)``; -1 is a baseline of 2022."""
    return {int(number) for number in re.findall(r'(?<!\w)-?\d+', ast.unparse(test))}

"""Finds and reads options files and applies overrides, without ever running code.

The files are BasicSR's YAML. BasicSR's own loader calls any Python function that a file names, and passes overrides to
exec; here data stays data.
"""

import difflib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

import earn_plugin
from earn_plugin.errors import UsageError

Place = tuple[str | int, ...]  # the keys and indices that lead to a value

PACKAGE = Path(earn_plugin.__file__).parent
IS_INSTALLED = (PACKAGE / 'recipes').is_dir()  # in a checkout, options/ and datasets/ are next to the package instead
RECIPES = PACKAGE / 'recipes' if IS_INSTALLED else PACKAGE.parent / 'options'
DATASETS_README = (PACKAGE if IS_INSTALLED else PACKAGE.parent) / 'datasets/README.md'

MAX_VALUES = 100_000  # nested aliases in a small file could expand to more than fits in memory


@dataclass
class Options:
    """The content of an options file, and the line of each value."""

    file: Path
    data: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)  # here keys and indices are text
    overrides: dict[Place, str] = field(default_factory=dict)  # what set a value instead: '--force_yml KEY=VALUE'

    def describe(self, place: Place) -> str:
        """'line 12: train.total_iter', or the override that set the value instead of the line."""
        override = next((self.overrides[part] for part in _parents(place) if part in self.overrides), None)
        source = f'line {self.line(place)}' if override is None else override
        return f'{source}: {".".join(map(str, place))}'

    def line(self, place: Place) -> int:
        """The line of a value; of a missing value, that of its section."""
        return next((self.lines[part] for part in _parents(place) if part in self.lines), 1)


def _parents(place: Place) -> Iterator[Place]:
    return (tuple(map(str, place[:end])) for end in range(len(place), 0, -1))


def nearest(name: str, valid) -> str:
    """'; did you mean X?', or all valid names if none is similar."""
    valid = sorted(map(str, valid))
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    if close:
        return f'; did you mean {close[0]}?'
    return f'; possible: {", ".join(valid)}' if valid else ''


def recipes() -> list[Path]:
    return [path for path in sorted(RECIPES.glob('*.yml')) if path not in ablations()]


def ablations() -> list[Path]:
    """The files that `basicsr ablate` takes by name."""
    return sorted(RECIPES.glob('ablate_*.yml'))


def find_options_file(name: str, named: Callable[[], list[Path]] = recipes) -> Path:
    """The options file at a path, or else the recipe (or the ablation) of that name, with or without .yml.

    Raises:
        UsageError: neither exists.
    """
    path = Path(os.path.expanduser(name))  # noqa: PTH111 (Path's raises for an unknown user)
    if os.path.isfile(path):  # noqa: PTH113 (Path's raises if the name is too long)
        return path
    known = {path.stem: path for path in named()}
    if path.stem in known and path.parent in (Path(), Path('options')):
        return known[path.stem]
    given = f'{name:.200}' or "''"
    what = 'a recipe' if named is recipes else 'an ablation'
    raise UsageError(f'{given} is neither an options file nor {what}{nearest(path.stem[:200], known)}')


def read_options(file: Path) -> Options:
    """Read an options file.

    Raises:
        UsageError: the file is not readable, not YAML or not a mapping, repeats a key, or has a tag that runs code.
    """
    try:
        text = file.read_text(encoding='utf-8')
        node = yaml.compose(text, yaml.SafeLoader)
        lines = _lines(node) if node else {}  # first, because it limits the aliases
        data = yaml.safe_load(text)
    except Exception as error:  # YAML raises errors of many types for values that do not fit their tags
        mark = getattr(error, 'problem_mark', None)
        problem = f'line {mark.line + 1}: {error.problem}' if mark else f'cannot be read: {problem_of(error)}'
        hint = '; tags that would run Python are refused' if 'python/' in problem else ''
        raise UsageError(f'{file}: {problem}{hint}') from None
    if not isinstance(data, dict):
        raise UsageError(f'{file}: an options file must be a mapping (name: …), got {type(data).__name__}')
    return Options(file, _unshare(data), lines)


def problem_of(error: Exception) -> str:
    return 'it is nested too deeply' if isinstance(error, RecursionError) else str(error)


def _unshare(value: Any) -> Any:
    """A copy in which every YAML alias is a separate value, so that changing one does not change the others."""
    if isinstance(value, dict):
        return {key: _unshare(below) for key, below in value.items()}
    return [_unshare(below) for below in value] if isinstance(value, list) else value


def _lines(root: yaml.Node) -> dict[Place, int]:
    lines = {(): 1}

    def refuse(node: yaml.Node, problem: str) -> NoReturn:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)

    def value_of(node: yaml.ScalarNode) -> Any:
        if node.tag == 'tag:yaml.org,2002:merge':
            return node.value
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except yaml.YAMLError:
            raise
        except Exception:
            refuse(node, f'{node.value[:40]!r} cannot be read as {node.tag.rpartition(":")[2]}')

    def walk(node: yaml.Node, place: Place) -> None:
        if len(lines) > MAX_VALUES:
            refuse(node, f'more than {MAX_VALUES:,} values with aliases expanded')
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    refuse(key, 'a key must be a single value')
                name = str(value_of(key))
                below = (*place, name)
                if name in seen and name != '<<':
                    refuse(key, f'{".".join(below)} is given twice, first on line {lines[below]}')
                seen.add(name)
                lines[below] = key.start_mark.line + 1
                walk(value, below)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*place, str(index))] = value.start_mark.line + 1
                walk(value, (*place, str(index)))
        else:
            value_of(node)

    walk(root, ())
    return lines


def override(options: Options, entries: list[str]) -> None:
    """Apply ``--force_yml`` entries such as 'train:optim_g:lr=1e-4'.

    The last key may be new (``check_options`` checks it like those of the file); the sections before it must exist.

    Raises:
        UsageError: an entry has no '=', or a section does not exist.
    """
    for entry in entries:
        keys, equals, text = entry.partition('=')
        place = tuple(key.strip() for key in keys.split(':'))
        if not equals or not all(place):
            raise UsageError(f'--force_yml {entry:.200}: write key:key=value, for example train:ema_decay=0.999')
        section = options.data
        for depth, key in enumerate(place[:-1], 1):
            if not isinstance(section.get(key), dict):
                here = '.'.join(place[:depth])
                raise UsageError(
                    f'--force_yml {entry:.200}: {options.file} has no section {here}'
                    + nearest(key, [name for name, value in section.items() if isinstance(value, dict)])
                )
            section = section[key]
        section[place[-1]] = parse_value(text.strip())
        options.overrides[place] = f'--force_yml {entry:.200}'


def parse_value(text: str, flag: str = '--force_yml') -> Any:
    """The value of an override: YAML, and also 1e-4 and None, which YAML reads as text.

    Raises:
        UsageError: the text is not valid YAML, such as an unclosed bracket or a date that does not exist.
    """
    if text.lower() == 'none':
        return None
    try:
        value = yaml.safe_load(text)
    except Exception as error:  # as in ``read_options``
        problem = getattr(error, 'problem', None) or problem_of(error)
        raise UsageError(f'{flag}: {text:.200} is not a YAML value ({problem})') from None
    if value == text:
        with suppress(ValueError):
            return float(text)
    return value

"""What any check of an options file needs: problems with their lines, sections, types and their arguments, paths."""

import os
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from earn_plugin.errors import UsageError
from earn_plugin.options.argument_types import arguments_of, fits, kind_of, takes_any_key
from earn_plugin.options.options_file import DATASETS_README, Options, Place, nearest
from earn_plugin.options.valid_values import ARGUMENTS, OPTIONS, shown, value_problem, wrong_kind

REGISTERED = ('network', 'data set', 'model type', 'loss', 'metric')  # what users can register


class OptionsChecker:
    """Collects the problems of an options file, which ``raise_problems`` reports all at once."""

    def __init__(self, options: Options, is_train: bool, files: bool = True):
        self.options = options
        self.data = options.data
        self.is_train = is_train
        self.files = files
        self.problems: set[tuple[int, str]] = set()  # by line
        self.warnings: list[str] = []
        self.lacks_data = self.lacks_class = False

    def report(self, place: Place, message: str) -> None:
        self.problems.add((self.options.line(place), f'{self.options.describe(place)}: {message}'))

    def report_if(self, place: Place, problem: str | None) -> None:
        if problem:
            self.report(place, problem)

    def values_are_possible(self) -> bool:
        """Report values that no option can have, before a message or a comparison stumbles over them."""

        def check(value: Any, place: Place) -> None:
            self.report_if(place, value_problem(value))
            for key, below in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(value, dict):
                    self.report_if((*place, str(key)), value_problem(key))
                if isinstance(below, dict | list):
                    check(below, (*place, key))
                else:
                    self.report_if((*place, key), value_problem(below))

        check(self.data, ())
        return not self.problems

    def raise_problems(self) -> None:
        if not self.problems:
            return
        count = '1 problem' if len(self.problems) == 1 else f'{len(self.problems)} problems'
        lines = [f'{self.options.file} has {count}:', *(f'  {text}' for _, text in sorted(self.problems))]
        if self.lacks_data:
            lines.append(f'{DATASETS_README} describes the data sets; the demo recipe (-opt demo_EARN_x4) needs none')
        if self.lacks_class:
            lines.append('--import MODULE or --arch-file FILE registers your own')
        raise UsageError('\n'.join(lines))

    def value(self, place: Place) -> Any:
        value: Any = self.data
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def is_mapping(self, place: Place) -> bool:
        value = self.value(place)
        if not isinstance(value, dict):
            self.report(place, f'must be a mapping, got {value!r}')
        return isinstance(value, dict)

    def section(self, place: Place) -> dict:
        """A section that may be missing, or left out with ~."""
        return self.value(place) if self.value(place) is not None and self.is_mapping(place) else {}

    def check_keys(
        self, place: Place, given: Iterable, valid: set[str], elsewhere: Callable[[], Container[str]] = set
    ) -> None:
        """``elsewhere`` finds the keys that have no effect here; it is called only for one that is not valid."""
        for key in given:
            if key in valid:
                continue
            if key in elsewhere():
                self.warnings.append(f'{self.options.describe((*place, key))} has no effect')
            else:
                self.report((*place, key), f'is not a known option{nearest(key, valid)}')

    def check_values(self, section: Place, keys: Iterable[str] = OPTIONS) -> None:
        given = self.section(section)
        for key in given.keys() & keys:
            if given[key] is not None and (key, given[key]) != ('suffix', ''):  # which is as good as none
                self.report_if((*section, key), OPTIONS[key].problem(given[key]))

    def chosen(self, place: Place, choices: Mapping[str, Any], what: str) -> Any:
        """The choice that a value names; otherwise None, with a report."""
        name = self.value(place)
        if name is None:
            if len(place) > 1:
                self.report(place[:-1], f'needs {place[-1]}')
        elif not isinstance(name, str):
            self.report(place, wrong_kind(str, name))
        elif name not in choices:
            self.report(place, f'unknown {what} {shown(name)}{nearest(name, choices)}')
            self.lacks_class |= what in REGISTERED
        else:
            return choices[name]
        return None

    def check_object(self, place: Place, choices: Mapping[str, Any], what: str, *, skip=(), extra=(), needed=()) -> Any:
        """Check a section whose type is one of the choices and whose other keys are that choice's arguments.

        ``skip`` names arguments that the program passes, ``extra`` keys that are not arguments, ``needed`` arguments
        that must be given although they have a default. Returns the choice, or None.
        """
        if not self.is_mapping(place):
            return None
        given, found = self.value(place), self.chosen((*place, 'type'), choices, what)
        if found is None:
            return None
        parameters, hints = arguments_of(found, skip)
        if not takes_any_key(found):
            self.check_keys(place, given, {*parameters, 'type', *extra})
        limits = {name: valid for name, valid in ARGUMENTS.get(what, {}).items() if name in {*parameters, *extra}}
        if what == 'network':  # a user's may take a list
            limits = {name: valid for name, valid in limits.items() if not isinstance(given.get(name), list)}
        for name in limits.keys() & given.keys():
            self.report_if((*place, name), limits[name].problem(given[name]))
        for name, parameter in parameters.items():
            if name in given and name not in limits:
                kind = kind_of(parameter, hints)
                if not fits(given[name], kind):
                    self.report((*place, name), wrong_kind(kind, given[name]))
            elif name not in given and (parameter.default is parameter.empty or name in needed):
                self.report(place, f'{given["type"]} needs {name}')
        return found

    def check_exists(
        self, place: Place, is_file: bool = False, absence: Callable[[Path], str] = '{} does not exist'.format
    ) -> bool:
        """Whether a folder or, with ``is_file``, a file exists; otherwise it is reported, unless it is not given."""
        value = self.value(place)
        if value is None or not self.files:
            return False
        if not isinstance(value, str) or not value:
            self.report(place, 'must not be empty' if value == '' else wrong_kind(str, value))
            return False
        path = missing = Path(os.path.expanduser(value))  # noqa: PTH111 (Path's raises for an unknown user)
        if os.path.exists(path) and is_file != os.path.isfile(path):  # noqa: PTH110, PTH113 (as below)
            self.report(place, f'{path} is not a {"file" if is_file else "folder"}')
            return False
        if path.suffix == '.lmdb' and os.path.isdir(path):  # noqa: PTH112 (as below)
            missing = next((path / name for name in ('data.mdb', 'meta_info.txt') if not (path / name).is_file()), path)
        if os.path.exists(missing):  # noqa: PTH110 (Path's raises if the name is too long)
            return True
        from earn_plugin.prepare.demo import would_create  # which imports scikit-image

        if not would_create(path) and not os.path.exists(missing):  # noqa: PTH110 (created just now by another process)
            self.report(place, absence(missing))
            self.lacks_data |= path.parts[:1] == ('datasets',)
        return False

"""Ablations: a file names a recipe, variants as overrides of its options, and seeds; all is checked before any runs."""

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.archs import build_network

from earn_plugin.errors import UsageError, reason_of
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import (
    Options,
    Place,
    ablations,
    find_options_file,
    nearest,
    parse_value,
    read_options,
)
from earn_plugin.options.valid_values import OPTIONS, shown

KEYS = ('recipe', 'seeds', 'common', 'variants')


@dataclass
class Variant:
    """``options`` are those of the recipe with the variant's overrides; ``name`` begins those of its experiments."""

    title: str
    name: str
    options: dict[str, Any]
    parameters: int


@dataclass
class Ablation:
    """A checked ablation; results are compared with the first of its variants."""

    file: Path
    recipe: Path
    seeds: list[int]
    variants: list[Variant]


def read_ablation(given: str) -> Ablation:
    """Read and check an ablation: YAML, which never runs code.

    Its keys: ``recipe``, a recipe or an options file, also relative to the ablation; ``seeds``, values of manual_seed;
    ``variants``, names with overrides, as a mapping like the recipe's or as a list like --force_yml; ``common``,
    overrides for all variants.

    Args:
        given: a path, or the name of an ablation of ours.

    Raises:
        UsageError: lists all mistakes of the file and of the options of all variants, each with its line.
    """
    return _Reader(read_options(find_options_file(given, ablations))).read()


class _Overridden(Options):
    """A recipe's options with overrides of an ablation, whose lines messages have."""

    def describe(self, place: Place) -> str:
        text = super().describe(place)
        return text if text.startswith(tuple(self.overrides.values())) else f'{self.file.name}, {text}'


class _Reader:
    def __init__(self, content: Options):
        self.content, self.data = content, content.data
        self.problems: dict[str, None] = {}  # in the order of the file
        self.hints: dict[str, None] = {}

    def report(self, place: Place, problem: str) -> None:
        self.problems[f'{self.content.describe(place)}: {problem}'] = None

    def raise_problems(self) -> None:
        if self.problems:
            count = '1 problem' if len(self.problems) == 1 else f'{len(self.problems)} problems'
            lines = [f'{self.content.file} has {count}:', *(f'  {problem}' for problem in self.problems), *self.hints]
            raise UsageError('\n'.join(lines))

    def read(self) -> Ablation:
        recipe, seeds = self.read_recipe(), self.read_seeds()
        for key in self.data:
            if key not in KEYS:
                self.report((key,), f'is not a key of ablations{nearest(key, KEYS)}')
        common, given = self.overrides(('common',)), self.data.get('variants')
        if not given or not isinstance(given, dict):
            self.report(('variants',), 'must be a mapping of names to overrides, such as {EARN: {}}')
            given = {}
        changes = {name: self.overrides(('variants', name)) for name in given}
        self.raise_problems()  # of the ablation itself

        base = self.apply(_Overridden(**vars(read_options(recipe))), ('common',), common)
        of_recipe = self.check(base, ('recipe',), [])
        if not (base.data.get('val') or {}).get('metrics'):
            self.report(('recipe',), f'{recipe} has no val: metrics, which the table is of')
        is_built = not self.problems
        variants, taken = [], {}
        for title, overrides in changes.items():
            name = f'{self.content.file.stem}_{re.sub("[^A-Za-z0-9.+-]+", "_", str(title))}'
            if name.casefold() in taken:
                self.report(('variants', title), f'its files have the names of those of {taken[name.casefold()]}')
            taken[name.casefold()] = title
            options = self.apply(_Overridden(**vars(read_options(recipe))), ('common',), common)
            self.apply(options, ('variants', title), overrides)
            options.data['name'] = name
            options.overrides[('name',)] = self.content.describe(('variants', title))
            count = len(self.problems)
            self.check(options, ('variants', title), of_recipe)
            parameters = self.count_parameters(title, options.data) if is_built and count == len(self.problems) else 0
            variants.append(Variant(str(title), name, options.data, parameters))
        self.raise_problems()
        return Ablation(self.content.file, recipe, seeds, variants)

    def read_recipe(self) -> Path:
        given = self.data.get('recipe')
        if not isinstance(given, str):
            self.report(('recipe',), f'must be a recipe or an options file, got {shown(given)}')
            return Path()
        beside = self.content.file.parent / given
        try:
            return beside if beside.is_file() else find_options_file(given)
        except UsageError as error:
            self.report(('recipe',), str(error))
            return Path()

    def read_seeds(self) -> list[int]:
        seeds = self.data.get('seeds')
        if not seeds or not isinstance(seeds, list):
            self.report(('seeds',), f'must be a list of whole numbers, such as [0, 1, 2], got {shown(seeds)}')
            return []
        for index, seed in enumerate(seeds):
            twice = 'is given twice' if seed in seeds[:index] else None
            if problem := OPTIONS['manual_seed'].problem(seed) or twice:
                self.report(('seeds', index), problem)
        return seeds

    def overrides(self, place: Place) -> dict[str, Any]:
        """The overrides at a place as a mapping."""
        given: Any = self.data
        for key in place:
            given = given.get(key)
        if isinstance(given, list):
            entries, given = enumerate(given), {}
            for index, entry in entries:
                self.add_entry(given, entry, (*place, index), place)
        elif not isinstance(given, dict | None):
            self.report(place, f'must be overrides, such as {{network_g: {{num_feat: 32}}}}, got {shown(given)}')
            given = {}
        for key in ('name', 'manual_seed'):
            if key in (given or {}):
                self.report((*place, key), 'cannot be overridden: each run has its own')
        return given or {}

    def add_entry(self, changes: dict[str, Any], entry: Any, at: Place, place: Place) -> None:
        """Add an entry as of --force_yml, key:key=value, to a mapping."""
        keys, equals, text = str(entry).partition('=')
        *sections, last = keys = [key.strip() for key in keys.split(':')]
        try:
            value = parse_value(text.strip(), keys[-1])
        except UsageError as error:
            self.report(at, str(error))
            return
        for section in sections:
            changes = changes.setdefault(section, {})
        if not equals or not all(keys) or not isinstance(changes, dict):
            self.report(at, f'write key:key=value, such as train:ema_decay=0.999, got {shown(entry)}')
            return
        changes[last] = value
        self.content.lines[tuple(map(str, (*place, *keys)))] = self.content.line(at)

    def apply(self, options: Options, source: Place, changes: dict[str, Any]) -> Options:
        """Set values of the options; a mapping changes only what it names, and ~ removes a section, such as a loss."""

        def change(section: dict[str, Any], changes: dict[str, Any], place: Place) -> None:
            for key, value in changes.items():
                at = (*place, key)
                is_section = isinstance(section.get(key), dict)
                if is_section and isinstance(value, dict):
                    change(section[key], value, at)
                    continue
                if is_section and value is None:
                    del section[key]
                else:
                    section[key] = copy.deepcopy(value)
                line = self.content.line((*source, *at))
                options.overrides[tuple(map(str, at))] = f'line {line}: {".".join(map(str, source))}'

        change(options.data, changes, ())
        return options

    def check(self, options: Options, place: Place, known: list[str]) -> list[str]:
        """Report the problems of options, but not those known; returns those that are not of an override."""
        found = []
        try:
            check_options(options, is_train=True)
        except UsageError as error:
            for line in str(error).splitlines()[1:]:
                text = line.strip()
                if not line.startswith('  '):
                    self.hints[text] = None
                elif text.startswith(tuple(options.overrides.values())):
                    self.problems[text] = None
                elif text not in known:
                    self.report(place, text)
                    found.append(text)
        return found

    def count_parameters(self, title: Any, options: dict[str, Any]) -> int:
        try:
            network = build_network(copy.deepcopy(options['network_g']))
        except Exception as error:  # networks may raise anything
            self.report(('variants', title, 'network_g'), f'the network cannot be built: {reason_of(error)}')
            return 0
        return sum(parameter.numel() for parameter in network.parameters())

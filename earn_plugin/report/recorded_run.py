"""A training run as its folder records it: the options, its network, and the command that repeats it."""

import ast
import json
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY

from earn_plugin.convert.networks import FoundNetwork, NetworkChoice, find_network
from earn_plugin.convert.weight_files import registered_name
from earn_plugin.errors import UsageError, UserError
from earn_plugin.figures.run_log import files_of, read_run
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.options_file import RECIPES, parse_value, read_options
from earn_plugin.training.checkpoint import states_in
from earn_plugin.training.model import flatten
from earn_plugin.training.resume import load_state

SECTION, VALUE, END = re.compile(r'( +)(\S.*?):\['), re.compile(r'( +)(\S.*?): (.*)'), re.compile(r' +\]')
NETWORK = re.compile(r'net_g_(\d+|latest)\.pth')
# what differs between machines and starts, and is not part of the recipe
OF_A_START = ('auto_resume', 'dist', 'is_train', 'num_gpu', 'rank', 'root_path', 'world_size')
PLACES = ('dataroot_gt', 'dataroot_lq', 'meta_info_file')
OWN_PATHS = ('experiments_root', 'log', 'models', 'resume_state', 'training_states', 'visualization')


@dataclass(frozen=True)
class RecordedRun:
    """A run's folder; ``options`` are the completed ones that it used, empty if none are recorded."""

    folder: Path
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def log(self) -> str:
        """The latest log file, empty if there is none."""
        logs = files_of(self.folder)[0]
        return logs[-1].read_text(encoding='utf-8', errors='replace') if logs else ''

    @cached_property
    def file(self) -> Path | None:
        """The copy of the options file; of several, the latest."""
        return max(self.folder.glob('*.y*ml'), key=lambda path: path.stat().st_mtime_ns, default=None)

    def validation_sets(self) -> list[dict[str, Any]]:
        """The options of the validation sets, with paths relative to where the run was started, if they exist there."""
        root = self.folder.resolve().parent.parent  # of experiments/NAME
        sets = []
        for options in (self.options.get('datasets') or {}).values():
            if isinstance(options, dict) and options.get('phase') != 'train':
                sets.append({key: at(root, value) if key in PLACES else value for key, value in options.items()})
        return sets

    def network_file(self) -> Path:
        """The latest network file of the generator.

        Raises:
            UserError: there is none yet.
        """
        found = {m[1]: p for p in self.folder.glob('models/net_g_*.pth') if (m := NETWORK.fullmatch(p.name))}
        latest = found.pop('latest', None)
        numbered = found[max(found, key=int)] if found else None
        if numbered is None and latest is None:
            raise UserError(
                f'{self.folder / "models"} has no network file net_g_*.pth yet: a run writes its first one at '
                'iteration save_checkpoint_freq'
            )
        # after a run that was continued, the file of its first end is older
        is_newer = numbered and latest and latest.stat().st_mtime_ns < numbered.stat().st_mtime_ns
        return numbered if latest is None or is_newer else latest

    def network(self, file: Path) -> FoundNetwork:
        """The network of a file; of one without metadata, as the options describe it.

        Raises:
            UserError: its architecture is not registered, or the file cannot be loaded.
        """
        arguments = dict(self.options.get('network_g') or {})
        arch = arguments.pop('type', None)
        if arch and registered_name(arch) not in ARCH_REGISTRY:
            raise UserError(f'{arch} is not registered: pass --import MODULE or --arch-file FILE, which register it')
        return find_network(NetworkChoice(str(file), arch=arch, arguments=arguments))

    def changes(self) -> dict[tuple[str, ...], tuple[Any, Any]]:
        """Place → values of the options file and of the run, where they differ: by --force_yml or --hr."""
        if self.file is None or not self.options:
            return {}
        options = read_options(self.file)
        own = flatten(options.data).keys()
        filled, used = flatten(fill_defaults(options, is_train=True)), flatten(self.options)
        places = [place for place in dict.fromkeys([*own, *filled, *used]) if place in own or place not in filled]
        places = [p for p in places if p[0] not in OF_A_START and not (p[0] == 'path' and p[-1] in OWN_PATHS)]
        pairs = {place: (filled.get(place), used.get(place)) for place in places}
        return {place: pair for place, pair in pairs.items() if pair[0] != pair[1]}

    def command(self) -> str:
        """What trains it again, for a shell."""
        if self.file is None:
            return f'basicsr train -opt FILE  # {self.folder} has no options file'
        recipe = RECIPES / self.file.name
        is_recipe = recipe.is_file() and recipe.read_bytes() == self.file.read_bytes()
        words = ['train', '-opt', self.file.stem if is_recipe else str(self.file)]
        if changes := self.changes():
            words += ['--force_yml', *(f'{":".join(place)}={as_override(now)}' for place, (_, now) in changes.items())]
        processes = self.options.get('world_size', 1)
        start = ['basicsr'] if processes == 1 else ['torchrun', f'--nproc_per_node={processes}', '-m', 'earn_plugin']
        return shlex.join([*start, *words])


def find_run(given: str) -> RecordedRun:
    """The run of an experiment, also while it trains.

    Args:
        given: a name under experiments, or a folder.

    Raises:
        UsageError: there is no such experiment.
    """
    for folder in (Path(given), Path('experiments', given)):
        if given and folder.is_dir() and (any(files_of(folder)) or any(folder.glob('models/net_g_*'))):
            return RecordedRun(folder, recorded_options(folder))
    if Path(given).is_file():
        raise UsageError(f'{given} is a file: give the folder of an experiment')
    read_run(given)  # raises what is wrong, unless TensorBoard alone knows the run
    raise UsageError(f'{given} has no folder under experiments')


def recorded_options(folder: Path) -> dict[str, Any]:
    """The options of the latest log, else of the latest training state, which is large; empty if neither has any."""
    for log in reversed(files_of(folder)[0]):
        if options := options_of_log(log.read_text(encoding='utf-8', errors='replace')):
            return options
    for path in states_in(folder / 'training_states'):
        with suppress(UserError, OSError):  # damaged, or deleted by the run in the meantime
            return load_state(path).get('options') or {}
    return {}


def options_of_log(text: str) -> dict[str, Any]:
    """The options at the start of a log, as BasicSR's dict2str writes them; empty if there are none."""
    options: dict[str, Any] = {}
    sections = [options]
    for line in text.splitlines():
        if END.fullmatch(line) and len(sections) > 1:
            sections.pop()
        elif match := SECTION.fullmatch(line):
            sections[-1][match[2]] = below = {}
            sections.append(below)
        elif (match := VALUE.fullmatch(line)) and len(match[1]) == 2 * len(sections):
            sections[-1][match[2]] = value_of_log(match[3])
        elif options:
            break
    return options


def value_of_log(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def at(root: Path, path: Any) -> Any:
    return str(root / path) if isinstance(path, str) and (root / path).exists() else path


def as_override(value: Any) -> str:
    """A value as --force_yml reads it."""
    return value if isinstance(value, str) and parse_value(value) == value else json.dumps(value)

"""What a run has logged: losses, learning rate and metrics, from log files or TensorBoard's, also of stock BasicSR."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from earn_plugin.errors import UsageError, UserError
from earn_plugin.options.options_file import nearest

LINE = re.compile(r'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) [A-Z]+: (.*)')
LOSSES = re.compile(r'\[epoch: *\d+, iter: *([\d,]+), lr:\(([^,)]*).*?\)\](.*)')
RESUMED = re.compile(r'training from epoch: \d+, iter: (\d+)|resuming from .*?(\d+)\.state')
METRICS = re.compile(r'(.+) at iteration ([\d,]+): (.+)')  # ours
BLOCK, METRIC = re.compile(r'Validation (.+)'), re.compile(r'\t # (.+?): (\S+)')  # BasicSR's
FREQUENCY, TOTAL = re.compile(r'\s+val_freq: (\S+)'), re.compile(r'\s+total_iter: (\S+)')  # in the options of a log
NUMBER = r'[-+]?(?:\d[\d.e+-]*|inf|nan)'


class Value(NamedTuple):
    """A value at an iteration: seconds of training until then, and the standard deviation if it is a mean of runs."""

    seconds: float
    value: float
    spread: float = 0.0


@dataclass
class RunLog:
    """What a run has logged.

    ``values``: names as in the log (l_pix, lr, psnr, …) → validation set, '' for training → iteration → value.
    """

    name: str
    values: dict[str, dict[str, dict[int, Value]]]


class Record(NamedTuple):
    iteration: int
    clock: float  # seconds
    dataset: str  # of a validation, '' for training
    values: dict[str, float]


@dataclass
class Session:
    """What one process has logged, from its start to its end."""

    start: float
    records: list[Record] = field(default_factory=list)


def read_run(given: str) -> RunLog:
    """What an experiment has logged, also while it runs.

    Args:
        given: a name under experiments or tb_logger, a folder with log files or TensorBoard's files, or such a file.

    Raises:
        UsageError: there is no such experiment.
        UserError: it has logged nothing.
    """
    places = dict.fromkeys((Path(given), Path('experiments', given), Path('tb_logger', given)))
    existing = [place for place in places if given and place.exists()]  # Path('') is the working directory
    for place in existing:
        logs, events = files_of(place)
        for sessions in (map(read_log, logs), map(read_events, events)):
            if values := combine(sessions):
                return RunLog(place.stem if place.is_file() else place.resolve().name, values)
    if not existing:
        names = {path.name for folder in ('experiments', 'tb_logger') for path in Path(folder).glob('*/')}
        hint = nearest(given, names) or '; experiments and tb_logger of the working directory have none'
        raise UsageError(f'{given[:200] or repr(given)} is not an experiment, a folder or a log file{hint}')
    place = existing[0]
    if any(files_of(place)):
        raise UserError(f'{place} has no values yet: a run logs its first losses at iteration print_freq')
    below = [path.name for path in place.glob('*/') if any(files_of(path))] if place.is_dir() else []
    hint = f'; of its folders these have: {", ".join(sorted(below))}' if below else ''
    raise UsageError(f"{place} has neither log files (*.log) nor TensorBoard's (events.out.tfevents.*){hint}")


def files_of(place: Path) -> tuple[list[Path], list[Path]]:
    """The log files and TensorBoard's files at a place, which may be one."""
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    events = [path for path in files if path.name.startswith('events.out.tfevents')]
    logs = [path for path in files if path.suffix == '.log' or (path == place and path not in events)]
    return logs, events


def combine(sessions: Iterable[Session]) -> dict[str, dict[str, dict[int, Value]]]:
    """The values of a run's sessions. Where one returns to an iteration, all that was logged from there on is replaced.

    Seconds are those of training: without the time between sessions and without iterations that were lost.
    """
    values: dict[str, dict[str, dict[int, Value]]] = {}
    last = (-1, False)
    for session in sorted(sessions, key=lambda session: session.start):
        offset = None
        for record in session.records:
            place = (record.iteration, bool(record.dataset))  # an iteration's validation follows its losses
            if place < last:
                for sets in values.values():
                    for dataset, series in sets.items():
                        for iteration in [i for i in series if (i, bool(dataset)) >= place]:
                            del series[iteration]
            last = place
            if offset is None:
                kept = (
                    value.seconds for sets in values.values() for series in sets.values() for value in series.values()
                )
                offset = max(kept, default=0.0) - session.start
            for name, value in record.values.items():
                series = values.setdefault(name, {}).setdefault(record.dataset, {})
                series[record.iteration] = Value(record.clock + offset, value)
    kept = {name: {dataset: series for dataset, series in sets.items() if series} for name, sets in values.items()}
    return {name: sets for name, sets in kept.items() if sets}


def read_log(path: Path) -> Session:
    """The session of a log file. Its last line does not count before it ends: it may be half-written."""
    text = path.read_bytes().rpartition(b'\n')[0].decode(errors='replace')
    found = _LogReader()
    for line in text.split('\n'):
        found.read(line)
    return found.session


class _LogReader:
    """Reads the lines of a log one after another."""

    def __init__(self):
        self.session = Session(math.inf)
        self.clock = 0.0
        self.iteration = 1  # the first that the next line can be of
        self.frequency = self.total = None
        self.is_ended = False
        self.block: Record | None = None  # of BasicSR's lines of metrics, which do not have the iteration
        self.blocks: dict[str, int] = {}  # validation set → index of its latest block

    def read(self, line: str) -> None:
        if match := LINE.search(line):
            self.block = None
            self.clock = datetime.strptime(match[1], '%Y-%m-%d %H:%M:%S,%f').timestamp()
            self.session.start = min(self.session.start, self.clock)
            self.read_message(match[2])
        elif self.block is not None and (match := METRIC.match(line)):
            self.block.values.update(numbers([match.groups()]))
        elif match := FREQUENCY.fullmatch(line):
            self.frequency = number(match[1])
        elif match := TOTAL.fullmatch(line):
            self.total = number(match[1])

    def read_message(self, message: str) -> None:
        records = self.session.records
        if match := LOSSES.search(message):
            self.iteration = integer(match[1])
            losses = re.findall(r'(\S[^:\]]*): (\S+)', match[3].rpartition('] ')[2])
            records.append(Record(self.iteration, self.clock, '', numbers([('lr', match[2]), *losses])))
        elif match := METRICS.fullmatch(message):
            found = numbers(re.findall(rf'(\S[^,]*?) ({NUMBER})(?: \(bicubic [^)]*\))?(?:, |$)', match[3]))
            record = Record(integer(match[2]), self.clock, match[1], found)
            if (index := self.blocks.pop(match[1], None)) is not None:
                records[index] = record
            elif found:
                records.append(record)
        elif match := BLOCK.fullmatch(message):
            self.block = Record(self.validated_iteration(match[1]), self.clock, match[1], {})
            self.blocks[match[1]] = len(records)
            records.append(self.block)
        elif match := RESUMED.search(message):
            self.iteration = int(match[1] or match[2]) + 1
        self.is_ended |= message.startswith('End of training')

    def validated_iteration(self, dataset: str) -> int:
        """The iteration of a block: the first multiple of val_freq from the last logged iteration on."""
        if self.is_ended:
            return int(self.total or self.iteration)
        if not self.frequency:
            return self.iteration
        iteration = math.ceil(self.iteration / self.frequency) * self.frequency
        if (index := self.blocks.get(dataset)) is not None:  # several between two lines of losses
            iteration = max(iteration, self.session.records[index].iteration + self.frequency)
        return int(iteration)


def integer(text: str) -> int:
    return int(text.replace(',', ''))


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def numbers(pairs: Iterable[tuple[str, str]]) -> dict[str, float]:
    found = {name: number(text) for name, text in pairs}
    return {name: value for name, value in found.items() if value is not None}


def read_events(path: Path) -> Session:
    """The session of a TensorBoard file, up to a record that is half-written."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    session, tags = Session(math.inf), []
    for event in LegacyEventFileLoader(str(path)).Load():
        session.start = min(session.start, event.wall_time)
        tags += [
            (event.step, event.wall_time, v.tag, v.simple_value)
            for v in event.summary.value
            if v.HasField('simple_value')
        ]
    # BasicSR's video models log metrics/METRIC and metrics/METRIC/FOLDER, all others metrics/DATASET/METRIC
    of_video = {name for _, _, tag, _ in tags if (name := tag.removeprefix('metrics/')) != tag and '/' not in name}
    for step, clock, tag, value in tags:
        dataset, name = '', tag.removeprefix('losses/')
        if tag.startswith('metrics/'):
            dataset, _, name = tag.removeprefix('metrics/').rpartition('/')
            if dataset in of_video:
                dataset, name = name, dataset
            dataset = dataset or 'validation'
        session.records.append(Record(step, clock, dataset, {name: value}))
    return session


def mean_run(name: str, runs: Sequence[RunLog]) -> RunLog:
    """The mean of runs, with the standard deviation, at the iterations that all of them have logged."""
    values: dict[str, dict[str, dict[int, Value]]] = {}
    for key, sets in runs[0].values.items():
        for dataset in sets:
            each = [run.values.get(key, {}).get(dataset, {}) for run in runs]
            for iteration in sorted(set.intersection(*map(set, each))):
                seconds, found, _ = zip(*(series[iteration] for series in each), strict=True)
                spread = stdev(found) if len(found) > 1 else 0.0
                value = Value(fmean(seconds), fmean(found), spread)
                values.setdefault(key, {}).setdefault(dataset, {})[iteration] = value
    return RunLog(name, values)

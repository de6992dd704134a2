"""Where the time of a training goes: by phases of an iteration, and by torch's operations."""

import functools
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, record_function

from earn_plugin.atomic_files import atomic_path
from earn_plugin.devices import describe_device
from earn_plugin.errors import UsageError, UserError
from earn_plugin.models.cuda_graph import CudaGraph
from earn_plugin.options.options_file import Options
from earn_plugin.signals import Stopped
from earn_plugin.training import distributed
from earn_plugin.training.train import Training, started

WARM_UP = 5  # iterations, in which a CUDA graph is recorded, and as many as the workers read ahead
PREFETCHED = 2  # batches of each worker
TRACED = 3  # iterations in which the operations are recorded
MOST_LISTED = 10
DATA, COPY, LOSSES, BACKWARD = 'waiting for data', 'copy to the device', 'losses', 'backward'
GRAPH = 'CUDA graph: forward, losses, backward'
OPTIMIZER, AVERAGE, REST = 'optimiser', 'moving average', 'rest of the loop'


class Phases:
    """The seconds of each phase, without those of the phases within it.

    On a GPU these are times of the GPU, which is not waited for: an operation counts where it was started, and while
    the GPU has nothing to do, that counts for the phase that the program is in.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.restart()

    def restart(self) -> None:
        """Forget what was measured."""
        self.current = REST
        self.marks = [(REST, self.now())]  # phase and where it begins

    def now(self) -> Any:
        if self.device.type != 'cuda':
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            yield  # a recording runs nothing
            return
        outer = self.current
        with record_function(name):
            self.switch(name)
            try:
                yield
            finally:
                self.switch(outer)

    def switch(self, name: str) -> None:
        self.current = name
        self.marks.append((name, self.now()))

    def seconds(self) -> dict[str, float]:
        """Phase → seconds up to now."""
        self.switch(self.current)
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        found: dict[str, float] = defaultdict(float)
        for (name, start), (_, end) in itertools.pairwise(self.marks):
            found[name] += start.elapsed_time(end) / 1000 if self.device.type == 'cuda' else end - start
        return dict(found)


@contextmanager
def measured_parts(model: BaseModel, phases: Phases) -> Iterator[None]:
    """In the block, the parts of a BasicSR model of any type are phases: networks, losses, backward, optimisers, …"""

    def measured(call: Callable, phase: str) -> Callable:
        @functools.wraps(call)
        def run(*arguments, **settings):
            with phases(phase):
                return call(*arguments, **settings)

        return run

    with ExitStack() as stack:

        def measure(owner: Any, name: str, phase: str) -> None:
            call = getattr(owner, name)
            setattr(owner, name, measured(call, phase))
            stack.callback(setattr, owner, name, call)

        measure(model, 'feed_data', COPY)
        measure(model, 'model_ema', AVERAGE)
        measure(CudaGraph, '__call__', GRAPH)
        if hasattr(model, 'take_step'):  # of EARNModel: with the clipping of gradients
            measure(model, 'take_step', OPTIMIZER)
        measure(torch.autograd, 'backward', BACKWARD)
        for optimizer in model.optimizers:
            measure(optimizer, 'step', OPTIMIZER)
            measure(optimizer, 'zero_grad', OPTIMIZER)
        for module, phase in parts_of(model).items():
            original = type(module)
            call = measured(original.__call__, phase)
            # not by a hook of the module, which would be compiled with it
            object.__setattr__(module, '__class__', type(original.__name__, (original,), {'__call__': call}))
            stack.callback(object.__setattr__, module, '__class__', original)
        yield


def parts_of(model: BaseModel) -> dict[nn.Module, str]:
    """The networks and losses of a model, by BasicSR's names of its attributes, and their phases."""
    found = {}
    for name, value in vars(model).items():
        for module in value.values() if isinstance(value, dict) else [value]:
            if isinstance(module, nn.Module) and not name.endswith('_ema'):
                found[module] = LOSSES if name.startswith('cri') else f'forward of {name}'
    return found


class ProfiledTraining(Training):
    """A training that ends after some iterations under measurement, without validations and checkpoints.

    Args:
        count: iterations whose phases are measured; some for warming up precede them, and some in which operations are
            recorded follow.
        trace: a file for the trace of the operations.
    """

    def __init__(self, opt: dict[str, Any], file: Path, warnings: list[str], count: int, trace: Path | None):
        self.count, self.trace = count, trace
        self.warm_up = WARM_UP + PREFETCHED * opt['datasets']['train']['num_worker_per_gpu']
        iterations = self.warm_up + count + TRACED
        if periods := opt['train']['scheduler'].get('periods'):
            periods[-1] += iterations  # this schedule has no learning rate after its end
        super().__init__(opt, file, warnings)
        opt['train']['total_iter'] = self.iteration + iterations
        self.phases = Phases(self.model.device)

    def run(self) -> None:
        with measured_parts(self.model, self.phases):
            super().run()

    def saved_on_failure(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches; what the loop does between them is measured, and nothing is saved."""
        yield from self.read(batches, self.warm_up)
        self.phases.restart()
        yield from self.read(batches, self.count)
        self.seconds = self.phases.seconds()
        activities = [ProfilerActivity.CPU]
        if self.model.device.type == 'cuda':
            activities.append(ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as self.operations:
            self.phases.restart()
            yield from self.read(batches, TRACED)
            self.traced_seconds = sum(self.phases.seconds().values())

    def read(self, batches: Iterator[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
        for _ in range(count):
            with self.phases(DATA):
                batch = next(batches)
            yield batch

    def save_checkpoint(self) -> None:
        pass

    def stop_on_signal(self, number: int) -> None:
        raise Stopped(max(distributed.all_gather(number)), f'stopped at iteration {self.iteration:,}; nothing is saved')

    def finish(self) -> None:
        if self.opt['rank'] == 0:
            print(self.report())
            if self.trace is not None:
                write_trace(self.operations, self.trace)

    def report(self) -> str:
        total = sum(self.seconds.values())
        lines = [
            f'{self.opt["name"]}: {self.count} iterations of {self.data.samples_per_iteration} samples after '
            f'{self.warm_up} for warming up, {self.count / total:.2f} iterations/s',
            f'{describe_device(self.model.device)}, torch {torch.__version__}',
            f'{"phase":<40}{"ms/iteration":>14}{"%":>8}',
        ]
        first, last = (DATA, COPY), (LOSSES, BACKWARD, GRAPH, OPTIMIZER, AVERAGE, REST)
        names = [*first, *(name for name in self.seconds if name not in first + last), *last]
        rows = [(name, self.seconds[name]) for name in names if name in self.seconds]
        for name, seconds in [*rows, ('total', total)]:
            lines.append(f'{name:<40}{seconds * 1000 / self.count:>14.2f}{100 * seconds / total:>8.1f}')
        traced = 1000 * self.traced_seconds / TRACED
        rest = 'operations outside the CUDA graph' if GRAPH in self.seconds else 'operations'
        lines += [
            f'{rest} by their own time, recorded in {TRACED} further iterations of {traced:.2f} ms each',
            f'{"operation":<40}{"ms/iteration":>14}{"%":>8}{"calls/iteration":>17}',
        ]
        operations = own_times(self.operations)
        sum_of_all = sum(microseconds for _, microseconds, _ in operations)
        for name, microseconds, calls in operations[:MOST_LISTED]:
            share = 100 * microseconds / sum_of_all
            lines.append(f'{name:<40.40}{microseconds / 1000 / TRACED:>14.2f}{share:>8.1f}{calls / TRACED:>17.0f}')
        return '\n'.join([*lines, *hints(self.seconds, self.opt, self.model.device)])


def own_times(profiler: torch.profiler.profile) -> list[tuple[str, float, int]]:
    """Name, microseconds and calls of each operation, longest first: on the GPU if there is one, else on the CPU."""
    events = profiler.key_averages()
    on_gpu = any(event.self_device_time_total for event in events)
    found = [
        (
            event.key.replace('autograd::engine::evaluate_function', 'autograd'),
            event.self_device_time_total if on_gpu else event.self_cpu_time_total,
            event.count,
        )
        for event in events
        if event.device_type == DeviceType.CPU and not event.is_user_annotation  # kernels count for what starts them
    ]
    return sorted(found, key=lambda row: row[1], reverse=True)


def hints(seconds: dict[str, float], opt: dict[str, Any], device: torch.device) -> list[str]:
    """What may make the training faster, where the figures say so."""
    total, images, found = sum(seconds.values()), opt['datasets']['train'], []
    if seconds[DATA] > 0.1 * total:
        workers = images['num_worker_per_gpu']
        found.append(
            f'hint: the network waits for data: raise num_worker_per_gpu ({workers}), or store smaller or decoded '
            'sub-images (basicsr prepare lmdb --size, --encoding bmp)'
        )
    if device.type == 'cuda' and seconds[COPY] > 0.1 * total:
        found.append('hint: copying takes long: set pin_memory: true and prefetch_mode: cuda for the training data')
    computing = sum(
        value for name, value in seconds.items() if name in (LOSSES, BACKWARD, GRAPH) or name.startswith('forward')
    )
    train = opt['train']
    if computing > 0.7 * total and train.get('precision', 'fp32') == 'fp32' and not train.get('compile'):
        found.append('hint: computing takes most: basicsr benchmark train shows what channels_last, bf16, … would gain')
    return found


def write_trace(profiler: torch.profiler.profile, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            profiler.export_chrome_trace(str(temporary))
    except OSError as error:
        raise UserError(f'cannot write {path}: {error}') from error


def profile_training(
    options: Options, launcher: str = 'none', debug: bool = False, *, count: int, trace: Path | None = None
) -> None:
    """Train for some iterations, and print where their time goes. Runs of the same name are left as they are.

    Args:
        count: iterations to measure.
        trace: a file for the trace of some further iterations, which chrome://tracing and ui.perfetto.dev show.

    Raises:
        UserError: as for training.
    """
    if count < 1:
        raise UsageError(f'--profile must be at least 1, got {count}')
    with (
        started(options, launcher, debug=debug) as (opt, warnings),
        TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        opt['root_path'] = folder
        for key in ('experiments_root', 'models', 'training_states', 'visualization'):
            opt['path'][key] = str(Path(folder, key))
        opt['path']['log'] = opt['path']['experiments_root']
        opt['logger'] |= {'use_tb_logger': False, 'wandb': None}
        opt['val'] = None
        opt['datasets'] = {'train': opt['datasets']['train']}
        ProfiledTraining(opt, options.file, warnings, count, trace).run()

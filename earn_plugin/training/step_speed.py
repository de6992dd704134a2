"""The speed of a recipe's training step: BasicSR's model, and ours with each option that makes it faster."""

import copy
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from basicsr.data.prefetch_dataloader import CUDAPrefetcher
from basicsr.utils import get_root_logger

from earn_plugin import rng
from earn_plugin.atomic_files import write_file
from earn_plugin.data.loaders import keep_until_read
from earn_plugin.devices import cuda_is_optional, describe_device, find_device, kernel_search
from earn_plugin.errors import UsageError, UserError, reason_of
from earn_plugin.measure.memory import peak_bytes
from earn_plugin.measure.speed import Row, interleaved_medians, measure_rows
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import Options
from earn_plugin.training.model import build_checked_model

TITLES = {
    'stock': "BasicSR's",
    'plain': 'ours',
    'channels_last': 'channels_last',
    'bf16': 'bf16',
    'fp16': 'fp16',
    'compile': 'compiled',
    'cuda_graph': 'CUDA graph',
    'losses': 'all losses',
}
FASTER = 'channels_last+bf16'
FASTEST = f'{FASTER}+compile+cuda_graph'
ROWS = {
    'cpu': ('stock', 'plain', 'channels_last', FASTER, f'{FASTER}+compile', f'{FASTER}+losses'),
    'cuda': ('stock', 'plain', 'channels_last', FASTER, f'{FASTER}+cuda_graph', FASTEST, f'{FASTEST}+losses'),
}
PIXEL_LOSSES = ('L1Loss', 'MSELoss', 'CharbonnierLoss')
MEMORY = "tensors that an iteration creates, without weights and the optimisers' states"
BURST = 5  # iterations on a GPU before it is waited for


@dataclass(frozen=True)
class StepBenchmark:
    """What to measure.

    Raises:
        UsageError: a number below 1, or an unknown row.
    """

    batch: int | None = None  # images; None for the recipe's
    gt_size: int | None = None  # side of the HR patches; None for the recipe's
    repeats: int = 7  # timed bursts of each row
    device: str | None = None  # cpu or cuda; None for cuda where there is one
    # stock, plain, or other TITLES joined by +; ratios are relative to the first that runs; None for the device's ROWS
    rows: Sequence[str] | None = None
    threads: int | None = None  # of the CPU; None for torch's own choice
    json: Path | None = None  # where to write the table

    def __post_init__(self):
        numbers = (self.batch, self.gt_size, self.repeats, self.threads)
        if any(number is not None and number < 1 for number in numbers):
            raise UsageError('batch, gt-size, repeats and threads must be at least 1')
        for row in self.rows or ():
            parts = row.split('+')
            if unknown := [part for part in parts if part not in TITLES]:
                raise UsageError(f'no row {unknown[0]!r}; possible: {", ".join(TITLES)}, and several joined by +')
            if (len(parts) > 1 and {'stock', 'plain'}.intersection(parts)) or {'bf16', 'fp16'} <= {*parts}:
                raise UsageError(f'no row {row!r}: stock and plain stand alone, and bf16 excludes fp16')


class TrainingStep:
    """A model that trains on one fixed random batch; calling it runs a burst of iterations and waits for the device.

    The batch is copied to a GPU in every iteration: for BasicSR's model when it is needed, as by its defaults; for ours
    from pinned memory during the iteration before.

    Args:
        opt: the completed options of the recipe.
        name: of the row.

    Raises:
        UserError: there is no such model.
    """

    def __init__(self, opt: dict[str, Any], name: str):
        self.parts = name.split('+')
        with rng.seeded(0):  # the same weights and images in every row
            self.model = build_checked_model(row_options(opt, self.parts))
            network, images = opt['network_g'], opt['datasets']['train']
            batch, size = images['batch_size_per_gpu'], images['gt_size']
            channels = 1 if images.get('color') == 'y' else 3
            lq = torch.rand(batch, network.get('num_in_ch', channels), *2 * [size // int(opt.get('scale', 1))])
            self.batch = {'lq': lq, 'gt': torch.rand(batch, network.get('num_out_ch', channels), size, size)}
        self.device = self.model.device
        self.iterations, self.next_batch = 1, lambda: self.batch
        if self.device.type == 'cuda':
            self.iterations = BURST
            if name != 'stock':
                self.batch = {key: images.pin_memory() for key, images in self.batch.items()}
                self.next_batch = CUDAPrefetcher(map(dict, repeat(self.batch)), opt).next

    def __call__(self) -> None:
        for _ in range(self.iterations):
            batch = self.next_batch()
            keep_until_read(batch)
            self.model.feed_data(batch)
            self.model.optimize_parameters(1)
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def peak_bytes(self) -> int | None:
        """Most bytes of the tensors that an iteration creates, at one time; None if that is hidden in compiled code."""
        for optimizer in self.model.optimizers:
            optimizer.zero_grad()
        if 'cuda_graph' in self.parts or ('compile' in self.parts and self.device.type != 'cuda'):
            self()
            return None
        return peak_bytes(self, self.device)

    def loss(self) -> float | None:
        """The pixel loss of the last iteration, if it has its usual name."""
        log = self.model.get_current_log()
        return log.get('l_pix', log.get('l_g_pix'))


def row_options(opt: dict[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """The options of a row: those of the recipe without what only some rows could have."""
    opt = copy.deepcopy(opt)
    kind = 'SRGANModel' if opt.get('network_d') else 'SRModel'
    opt['model_type'] = kind if parts == ['stock'] else f'EARN{kind.removeprefix("SR")}'
    opt['path'] = {key: value for key, value in opt['path'].items() if not key.startswith('pretrain_network')}
    train = opt['train']
    train |= {'net_d_iters': 1, 'net_d_init_iters': 0, 'accum_iter': 1}  # every iteration trains all networks once
    if 'losses' not in parts:
        pixel_loss = find_pixel_loss(train)
        train |= {'losses': None, 'perceptual_opt': None, 'ldl_opt': None, 'pixel_opt': pixel_loss}
    train['memory_format'] = 'channels_last' if 'channels_last' in parts else 'contiguous'
    train['precision'] = next((part for part in parts if part in ('bf16', 'fp16')), 'fp32')
    train |= {key: key in parts for key in ('compile', 'cuda_graph')}
    return opt


def find_pixel_loss(train: dict[str, Any]) -> dict[str, Any]:
    """The first loss of a recipe that compares pixels, L1Loss if there is none."""
    losses = [train.get('pixel_opt'), *(train.get('losses') or {}).values()]
    return next((loss for loss in losses if loss and loss['type'] in PIXEL_LOSSES), {'type': 'L1Loss'})


def recipe_options(options: Options, benchmark: StepBenchmark, device: torch.device) -> dict[str, Any]:
    """The completed options of a recipe with a benchmark's batch and patches.

    Raises:
        UsageError: lists all mistakes of the recipe; or the patches have no size, or it does not fit the scale.
    """
    check_options(options, is_train=True, files=False)
    opt = fill_defaults(options, is_train=True)
    opt['num_gpu'] = int(device.type == 'cuda')
    images = opt['datasets']['train']
    for key, given in (('batch_size_per_gpu', benchmark.batch), ('gt_size', benchmark.gt_size)):
        if given is not None:
            images[key] = given
    size, scale = images.get('gt_size'), opt.get('scale', 1)
    if size is None:
        raise UsageError(f'{options.file} has no datasets: train: gt_size; pass --gt-size')
    if size % scale:
        raise UsageError(f'a gt_size of {size} is not a multiple of the scale {scale:g}; pass another --gt-size')
    return opt


def measure_steps(opt: dict[str, Any], rows: Sequence[str], repeats: int) -> list[Row]:
    """Median time, iterations per second, peak memory and loss of each row, interleaved; a reason for each that fails.

    Raises:
        UserError: none of the rows can run.
    """
    steps = {}

    def build(name: str, row: Row) -> TrainingStep:
        step = TrainingStep(opt, name)
        start = time.perf_counter()
        try:
            step()
        except Exception as error:  # a network that does not take such a batch raises anything
            raise UserError(reason_of(error)) from error
        row['first_seconds'] = time.perf_counter() - start
        row['peak_memory_bytes'] = step.peak_bytes()
        steps[name] = step
        return step

    measured = measure_rows(rows, build, repeats, f'row of {opt["name"]}')
    for row in measured:
        if step := steps.get(row['row']):
            row['median_ms'] /= step.iterations
            row |= {'iterations_per_second': 1000 / row['median_ms'], 'loss': step.loss()}
    return measured


def faster_memory_format(opt: dict[str, Any], repeats: int = 3) -> str:
    """contiguous or channels_last: in which of them the model of the completed options trains faster on its device.

    Raises:
        UserError: the model does not train on a random batch.
    """
    precision = opt['train'].get('precision', 'fp32')
    rest = ['losses', *([] if precision == 'fp32' else [precision])]
    rest += ['cuda_graph'] if opt['train'].get('cuda_graph') else []
    rows = {'contiguous': rest, 'channels_last': ['channels_last', *rest]}
    opt = opt | {'dist': False, 'world_size': 1}
    with quiet():
        try:
            steps = {name: TrainingStep(opt, '+'.join(parts)) for name, parts in rows.items()}
            seconds = interleaved_medians(steps, repeats)
        except UserError:
            raise
        except Exception as error:  # a network or data set of another kind raises anything
            raise UserError(
                f'train.memory_format: auto cannot be measured on random images ({reason_of(error)}); set contiguous '
                'or channels_last'
            ) from error
    return min(seconds, key=seconds.get)


@contextmanager
def quiet() -> Iterator[None]:
    """In the block, models log no introductions and no warnings."""
    logger = get_root_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def print_steps(rows: list[Row]) -> None:
    print(f'{"training step":<43}{"it/s":>8}{"median ms":>11}{"ratio":>7}{"peak MiB":>10}{"first s":>9}{"loss":>9}')
    for row in rows:
        title = ', '.join(TITLES[part] for part in row['row'].split('+'))
        if 'failure' in row:
            print(f'{title:<43}{row["failure"]}')
            continue
        peak, loss = row['peak_memory_bytes'], row['loss']
        memory = '–' if peak is None else f'{peak / 2**20:.1f}'
        speed = f'{row["iterations_per_second"]:>8.2f}{row["median_ms"]:>11.1f}{row["ratio"]:>7.2f}'
        end = '–' if loss is None else f'{loss:.4f}'
        print(f'{title:<43}{speed}{memory:>10}{row["first_seconds"]:>9.1f}{end:>9}')


def benchmark_training(options: Options, benchmark: StepBenchmark) -> None:
    """Print a table of a recipe's training step on this machine, and write it as JSON where a file is given.

    All rows have the same initial weights and train on the same random batch; reading data is not included. The loss is
    the recipe's first pixel loss, as BasicSR's SRModel has no other terms, and of a GAN the adversarial ones; the rows
    with ``losses`` have all of the recipe.

    Raises:
        UserError: a mistake in the recipe, no such device, or no row that runs.
    """
    device = find_device(benchmark.device)
    rows = list(dict.fromkeys(benchmark.rows or ROWS[device.type]))
    if device.type == 'cpu' and (recorded := [row for row in rows if 'cuda_graph' in row]):
        raise UsageError(f'the row {recorded[0]} needs a GPU')
    if benchmark.threads is not None:
        torch.set_num_threads(benchmark.threads)
    opt = recipe_options(options, benchmark, device)
    with cuda_is_optional(), kernel_search(True):  # as in training
        rows = measure_steps(opt, rows, benchmark.repeats)
    images, loss = opt['datasets']['train'], find_pixel_loss(opt['train'])['type']
    about = {
        'recipe': opt['name'],
        'network': opt['network_g']['type'],
        'batch': images['batch_size_per_gpu'],
        'gt_size': images['gt_size'],
        'loss': loss + (' and the adversarial losses' if opt.get('network_d') else ''),
        'machine': describe_device(device),
        'torch': torch.__version__,
        'repeats': benchmark.repeats,
        'memory': MEMORY,
    }
    size = f'{images["gt_size"]}×{images["gt_size"]}'
    print(f'{about["recipe"]}: {about["network"]}, batches of {about["batch"]} patches of {size}, {about["loss"]}')
    print(f'{about["machine"]}, torch {about["torch"]}')
    print(f'medians of {benchmark.repeats} interleaved runs on one random batch, without reading data')
    print(f'memory: {MEMORY}')
    print_steps(rows)
    if benchmark.json is not None:
        write_file(benchmark.json, json.dumps({**about, 'rows': rows}, indent=2, ensure_ascii=False).encode())

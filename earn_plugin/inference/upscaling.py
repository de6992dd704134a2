"""Enlarges picture files: reading, computing and writing overlap, in memory that does not grow with their number."""

import errno
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor, nn
from tqdm import tqdm

from earn_plugin.atomic_files import remove_leftovers_of
from earn_plugin.convert.networks import output_of
from earn_plugin.devices import find_device
from earn_plugin.errors import UsageError, UserError, reason_of
from earn_plugin.inference.padding import for_any_size
from earn_plugin.inference.picture_files import (
    DEEP,
    LARGEST_SIDE,
    Picture,
    colours_of,
    on_white,
    read_picture,
    stored_channels,
    stored_size,
    write_picture,
)
from earn_plugin.inference.result_array import result_array
from earn_plugin.inference.self_ensemble import EnsembledNetwork
from earn_plugin.inference.targets import Target, find_targets
from earn_plugin.inference.tiles import SMALL, TiledNetwork
from earn_plugin.precision import check_float16
from earn_plugin.protocols import HasReach

ROWS = 256  # of a part that are rounded at a time
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
BAR = '{l_bar}{bar}| {n:.1f}/{total:.1f} MP [{elapsed}<{remaining}, {rate_noinv_fmt}]'


def upscale(
    source: Path | str,
    target: Path | str | None,
    network: nn.Module,
    *,
    format: str | None = None,
    suffix: str | None = None,
    quality: int = 95,
    overwrite: bool = False,
    tile: int | None = None,
    approximate: bool = False,
    self_ensemble: bool = False,
    device: str | None = None,
    dtype: str = 'float32',
    jobs: int = 4,
) -> int:
    """Enlarge pictures, in files of PNG, JPEG, WebP and TIFF.

    In processes started by torchrun, each takes its share.

    Args:
        source, target, format, suffix: see ``targets.find_targets``; ``format`` is its ``kind``. Without a target,
            results are written to the working directory, and the suffix is _x2, _x3, … unless another is given.
        network: N×C×H×W in [0, 1] → N×C×sH×sW, C 3 or 1, in evaluation mode.
        quality: 1 to 100, of JPEG and WebP.
        overwrite: also those whose result exists.
        tile, approximate: see ``TiledNetwork``.
        self_ensemble: the mean of the results for the 8 flips and transpositions, see ``EnsembledNetwork``.
        device, dtype: what the network computes with; None for the GPU where there is one.
        jobs: threads that read, and as many that write.

    Returns:
        The number of results that were written.

    Raises:
        UsageError: arguments that do not fit, before anything is computed.
        UserError: some pictures failed, after all others are written; the message lists them with the reasons.
    """
    rank, processes = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
    if not 1 <= quality <= 100 or jobs < 1 or (tile or 0) < 0:
        raise UsageError('--quality must be 1 to 100, --jobs at least 1, and --tile at least 0')
    if dtype == 'float16':
        check_float16(network, '--dtype float16', 'bfloat16')
    channels, scale = measure_scale(network)
    if target is None:
        suffix = suffix or f'_x{scale}'
    everything = find_targets(Path(source), Path(target or ''), format, suffix or '')
    network = for_any_size(network, channels, scale)
    settings = {'device': device_of_process(device), 'dtype': DTYPES[dtype]}
    tiled = TiledNetwork(network, scale, channels=channels, tile=tile, approximate=approximate, **settings)
    tiled = EnsembledNetwork(tiled) if self_ensemble else tiled
    with _any_size_and_quiet():
        job = _Job(tiled, channels, quality, jobs, announces=rank == 0)
        job.run(everything[rank::processes], overwrite)
    _wait_for_others(processes)
    named = target or (everything[0].path if len(everything) == 1 else Path.cwd())
    return job.finish(len(everything[rank::processes]), named)


def measure_scale(network: nn.Module) -> tuple[int, int]:
    """The channels of a network, 3 or 1, and by how much it enlarges.

    Raises:
        UserError: it fails on both, or does not enlarge both sides by one whole number.
    """
    failure = None
    weight = next(network.parameters(), torch.empty(0))
    for side, channels in product((16, 64), (3, 1)):  # some networks take no smaller pictures
        try:
            with torch.inference_mode():
                shape = tuple(output_of(network, torch.rand(1, channels, side, side).to(weight)).shape)
        except UserError as error:
            failure = failure or error
            continue
        scale = shape[-1] // side
        if shape == (1, channels, scale * side, scale * side) and scale:
            return channels, scale
        raise UserError(f'the network turns 1×{channels}×{side}×{side} into {"×".join(map(str, shape))}')
    raise UserError(f'the network takes neither RGB nor grey pictures: {failure}') from failure


def device_of_process(name: str | None) -> torch.device:
    """The device of that name; in one of several processes on GPUs, the one of its local rank."""
    device = find_device(name)
    if device.type == 'cuda' and device.index is None and 'LOCAL_RANK' in os.environ:
        return torch.device('cuda', int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
    return device


@contextmanager
def _any_size_and_quiet() -> Iterator[None]:
    """In the block, pictures may be of any size, and libraries do not warn of what is reported anyway."""
    limits, level = (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK), cv2.utils.logging.getLogLevel()
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, PngImagePlugin.MAX_TEXT_MEMORY
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', module=r'PIL\.')
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = limits
        cv2.utils.logging.setLogLevel(level)


def _wait_for_others(processes: int) -> None:
    """Wait for the other processes: torchrun ends all once one of them ends with a failure."""
    if processes > 1:
        torch.distributed.init_process_group('gloo', timeout=timedelta(days=30))
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


class _Job:
    def __init__(self, tiled: TiledNetwork | EnsembledNetwork, channels: int, quality: int, jobs: int, announces: bool):
        self.tiled, self.channels, self.quality, self.jobs, self.announces = tiled, channels, quality, jobs, announces
        self.is_ours = isinstance(tiled.network, HasReach)
        self.failures: dict[Path, str] = {}
        self.said: set[str] = set()
        self.written = self.existing = 0

    def run(self, targets: list[Target], overwrite: bool) -> None:
        remove_leftovers_of(item.path for item in targets)
        missing = [item for item in targets if overwrite or not item.path.exists()]
        self.existing = len(targets) - len(missing)
        sizes = {item: size for item in missing if (size := self._size(item))}
        for folder in {item.path.parent for item in sizes}:
            folder.mkdir(parents=True, exist_ok=True)
        megapixels = sum(width * height for width, height in sizes.values()) * self.tiled.scale**2 / 1e6
        with (
            tqdm(total=megapixels, unit='MP', bar_format=BAR, disable=None if self.announces else True) as self.bar,
            ThreadPoolExecutor(self.jobs) as readers,
            ThreadPoolExecutor(self.jobs) as writers,
        ):
            small = [item for item, (width, height) in sizes.items() if width * height <= SMALL]
            large = [item for item, (width, height) in sizes.items() if width * height > SMALL]
            writing: deque[Callable[[], None]] = deque()
            for wait in chain(self._start_small(small, writers), self._start_large(large, readers, writers)):
                writing.append(wait)
                while len(writing) > self.jobs:
                    writing.popleft()()
            while writing:
                writing.popleft()()

    def _start_small(self, items: list[Target], writers: ThreadPoolExecutor) -> Iterator[Callable[[], None]]:
        """Each picture is computed by a thread of its own, which is faster than threads that share one."""
        threads = torch.get_num_threads()
        together = threads if self.is_ours else 1  # other networks may keep something between their layers

        def start(item: Target) -> list[Callable[[], None]]:
            return self._start(item, partial(self._read, item), writers)

        torch.set_num_threads(threads // together)
        try:
            with ThreadPoolExecutor(together) as computers:
                for _, started in _ahead(computers, start, items, 2 * together):
                    yield from started.result()
        finally:
            torch.set_num_threads(threads)

    def _start_large(
        self, items: list[Target], readers: ThreadPoolExecutor, writers: ThreadPoolExecutor
    ) -> Iterator[Callable[[], None]]:
        for item, picture in _ahead(readers, self._read, items, self.jobs):
            yield from self._start(item, picture.result, writers)

    def _start(
        self, item: Target, read: Callable[[], Picture], writers: ThreadPoolExecutor
    ) -> list[Callable[[], None]]:
        """Enlarge a picture and start to write it; returns what waits for the end of that, if it has not failed."""
        with self._failing(item):
            return [self._enlarge(item, read(), writers)]
        return []

    def finish(self, count: int, target: Path | str) -> int:
        existing = f'; {self.existing} exist already (--overwrite replaces them)' if self.existing else ''
        print(f'{self.written} of {count} pictures written to {target}{existing}')
        if self.failures:
            lines = ''.join(f'\n  {path}: {reason}' for path, reason in self.failures.items())
            raise UserError(f'{len(self.failures)} of {count} pictures failed:{lines}')
        return self.written

    @contextmanager
    def _failing(self, item: Target) -> Iterator[None]:
        """In the block, a failure is that of one picture, unless the disk is full."""
        try:
            yield
        except Exception as error:  # networks and damaged files may raise anything
            if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = str(error) if isinstance(error, UserError) else getattr(error, 'strerror', None)
            self.failures[item.source] = reason or reason_of(error)
            tqdm.write(f'{item.source}: {self.failures[item.source]}')

    def _size(self, item: Target) -> tuple[int, int] | None:
        """Width and height of a picture; None for one that cannot be read, or whose result would be too large."""
        with self._failing(item):
            size = stored_size(item.source)
            side, largest = max(size) * self.tiled.scale, LARGEST_SIDE.get(item.kind)
            if largest and side > largest:
                raise ValueError(
                    f'the result would have {side:,} pixels, {item.kind} at most {largest:,}: --format png'
                )
            return size
        return None

    def _read(self, item: Target) -> Picture:
        picture = read_picture(item.source)
        if item.kind == 'jpeg':
            picture = on_white(picture)
        if picture.pixels.dtype == np.uint16 and item.kind not in DEEP:
            picture = picture._replace(notes=(*picture.notes, f'16 bits are reduced to 8: {item.kind} has no more'))
        return picture

    def _enlarge(self, item: Target, picture: Picture, writers: ThreadPoolExecutor) -> Callable[[], None]:
        """Enlarge a picture and start to write it; returns what waits for the end of that."""
        for note in picture.notes:
            tqdm.write(f'{item.source}: {note}')
        height, width, channels = picture.pixels.shape
        if channels > 2 and self.channels == 1:
            raise ValueError('is in colour, but this network enlarges grey pictures only')
        dtype = picture.pixels.dtype if item.kind in DEEP else np.dtype(np.uint8)
        shape = height * self.tiled.scale, width * self.tiled.scale, stored_channels(channels, item.kind, dtype)
        result = result_array(item.path.parent, shape, dtype)
        colours = colours_of(result, item.kind)
        self._fill(colours, picture.pixels[..., : 1 if channels < 3 else 3], self.bar)
        if channels in (2, 4):
            self._fill(result[..., -1:], picture.pixels[..., -1:])
        future = writers.submit(write_picture, item.path, result, picture, item.kind, self.quality)
        return lambda: self._written(item, future)

    def _written(self, item: Target, future: Future) -> None:
        with self._failing(item):
            future.result()
            self.written += 1

    def _fill(self, view: np.ndarray, pixels: np.ndarray, bar: tqdm | None = None) -> None:
        """Write enlarged pixels, H×W×1 or H×W×3, to a view of the result; grey ones are the mean of what RGB gives."""
        image = torch.from_numpy(pixels.astype(np.float32)).div_(np.iinfo(pixels.dtype).max).permute(2, 0, 1)[None]
        image = image.expand(-1, self.channels, -1, -1)
        if self.announces and (text := self.tiled.describe(image)) not in self.said:
            self.said.add(text)
            tqdm.write(text)
        for top, left, part in self.tiled.parts(image):
            for row in range(0, part.shape[2], ROWS):
                rows = part[0, :, row : row + ROWS]
                levels = _levels(rows if pixels.shape[2] > 1 else rows.mean(0, keepdim=True), view.dtype)
                view[top + row : top + row + levels.shape[0], left : left + levels.shape[1]] = levels
            if bar is not None:
                bar.update(part.shape[2] * part.shape[3] / 1e6)


@torch.inference_mode()
def _levels(rows: Tensor, dtype: np.dtype) -> np.ndarray:
    """C×h×w in [0, 1] → h×w×C, rounded as BasicSR rounds."""
    if not rows.sum().isfinite():
        raise ValueError('the network returns NaN or infinite values: its weights are damaged, or need --dtype float32')
    levels = rows.clamp(0, 1).mul_(np.iinfo(dtype).max).round_().to(getattr(torch, dtype.name))
    return levels.permute(1, 2, 0).numpy()


def _ahead(pool: ThreadPoolExecutor, function: Callable, items: Iterable, count: int) -> Iterator[tuple[Any, Future]]:
    """Each item and the future of the function's result, of which ``count`` are computed ahead."""
    items = iter(items)
    waiting = deque((item, pool.submit(function, item)) for item in islice(items, count))
    while waiting:
        yield waiting.popleft()
        waiting.extend((item, pool.submit(function, item)) for item in islice(items, 1))

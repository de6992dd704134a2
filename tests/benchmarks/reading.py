"""How fast training reads its data: BasicSR's way, ours, and without LR files, from folders and LMDBs, by turns."""

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from basicsr.data import build_dataloader
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.data.prefetch_dataloader import CPUPrefetcher
from basicsr.utils.registry import DATASET_REGISTRY
from tqdm import tqdm

from earn_plugin.data.loaders import TrainingData
from earn_plugin.errors import UsageError
from earn_plugin.prepare import demo
from earn_plugin.prepare.lmdb import make_lmdb, make_lr, make_subimages
from tests.benchmarks.preparing import make_large

SCALE, PATCH, BATCH, SEED = 4, 192, 16, 0  # ×4 from crops of 192 in batches of 16, as the papers train
WARM = 2  # batches before the clock starts, in which workers start and caches fill


class Source(NamedTuple):
    """HR and LR as folders, or as LMDBs."""

    name: str
    hr: Path
    lr: Path

    @property
    def count(self) -> int:
        """Of the HR images."""
        if self.hr.suffix == '.lmdb':
            return len((self.hr / 'meta_info.txt').read_text().splitlines())
        return len(list(self.hr.glob('*.png')))

    @property
    def megabytes(self) -> float:
        """Of 1,000 images with their LR."""
        files = [path for root in (self.hr, self.lr) for path in root.iterdir() if not path.name.startswith('.')]
        return sum(path.stat().st_size for path in files) / self.count / 1000


class Figures(NamedTuple):
    """Of a source: samples a second of the readers, and the share of a sample's time that goes into decoding."""

    basicsr: float
    ours: float
    ratio: float
    hr_alone: float
    decoding: float


def benchmark_data(hr: Path | None, root: Path | None, square: int, samples: int, workers: int, repeats: int) -> None:
    """Print a table of reading speeds.

    Args:
        hr: a folder of HR images; the demo's photographs if None.
        root: where the data sets are made, and removed again; the system's folder for such things if None.
        square: side of the sub-images; half of it is measured too.
        samples: read in each measurement.
        workers: ``num_worker_per_gpu``.
        repeats: measurements of each reader; the median counts.

    Raises:
        UsageError: a number that cannot be, no folder ``root``.
    """
    if square < 2 * PATCH or square % (2 * SCALE):
        raise UsageError(f'size must be a multiple of {2 * SCALE} and at least {2 * PATCH}, got {square}')
    if min(samples, repeats) < 1 or workers < 0:
        raise UsageError(f'samples and repeats must be at least 1, got {samples} and {repeats}')
    if root is not None and not root.is_dir():
        raise UsageError(f'there is no folder {root}')
    with tempfile.TemporaryDirectory(dir=root, prefix='benchmark-data-') as folder:
        sources = make_sources(hr, Path(folder), square)
        figures = measure(sources, math.ceil(samples / BATCH), workers, repeats)
        report(sources, figures, workers)


def make_sources(hr: Path | None, folder: Path, square: int) -> list[Source]:
    """The same images, those that are large enough, as folders and LMDBs, whole and in squares.

    Raises:
        UserError: none is, or one cannot be read.
    """
    if hr is None:
        demo.make_demo(folder / 'demo')
        hr = folder / 'demo/train/HR'
    whole = Source('whole images, folder', folder / 'HR', folder / 'LR')
    make_large(hr, whole.hr, SCALE, square)
    make_lr(whole.hr, whole.lr, SCALE)

    def squares(name: str, size: int, ending: str, make: Any, **settings: Any) -> Source:
        made = Source(name, *(folder / f'{part}_{name.replace(" ", "_")}{ending}' for part in ('HR', 'LR')))
        for source, target, shrunk in ((whole.hr, made.hr, 1), (whole.lr, made.lr, SCALE)):
            make(source, target, size // shrunk, size // shrunk, skip_small=True, **settings)
        return made

    return [
        whole,
        squares(f'{square} squares, folder', square, '', make_subimages),
        squares(f'{square} squares, LMDB', square, '.lmdb', make_lmdb),
        squares(f'{square // 2} squares, LMDB', square // 2, '.lmdb', make_lmdb),
        squares(f'{square} squares, BMP LMDB', square, '.lmdb', make_lmdb, encoding='bmp'),
        squares(f'{square // 2} squares, BMP LMDB', square // 2, '.lmdb', make_lmdb, encoding='bmp'),
    ]


def options(source: Source, kind: str, workers: int, samples: int) -> dict[str, Any]:
    """Completed options whose first epoch has as many samples as are read."""
    train = {
        'name': source.name,
        'type': kind,
        'phase': 'train',
        'scale': SCALE,
        'dataroot_gt': str(source.hr),
        'dataroot_lq': str(source.lr),
        'io_backend': {'type': 'lmdb' if source.hr.suffix == '.lmdb' else 'disk'},
        'gt_size': PATCH,
        'use_hflip': True,
        'use_rot': True,
        'batch_size_per_gpu': BATCH,
        'num_worker_per_gpu': workers,
        'dataset_enlarge_ratio': math.ceil(samples / source.count),
    }
    return {'datasets': {'train': train}, 'manual_seed': SEED, 'num_gpu': 0, 'dist': False, 'rank': 0, 'world_size': 1}


def dataset_of(opt: dict[str, Any]) -> Any:
    train = deepcopy(opt['datasets']['train'])
    return DATASET_REGISTRY.get(train['type'])(train)


def basicsr_batches(opt: dict[str, Any]) -> Iterator[dict]:
    """As BasicSR's training reads."""
    train, dataset = opt['datasets']['train'], dataset_of(opt)
    sampler = EnlargedSampler(dataset, 1, 0, train['dataset_enlarge_ratio'])
    prefetcher = CPUPrefetcher(build_dataloader(dataset, train, 0, False, sampler, SEED))
    while (batch := prefetcher.next()) is not None:
        yield batch


def our_batches(opt: dict[str, Any], count: int) -> Iterator[dict]:
    """As our training reads."""
    return TrainingData(dataset_of(opt), opt).batches(0, count)


def samples_per_second(batches: Iterator[dict], count: int) -> float:
    with closing(batches):
        for _ in range(WARM):
            next(batches)
        start = time.perf_counter()
        for _ in range(count):
            next(batches)
        return count * BATCH / (time.perf_counter() - start)


def decoding_share(dataset: Any, count: int) -> float:
    """Which part of the time of reading samples passes in OpenCV's decoder."""
    decode, spent = cv2.imdecode, 0.0

    def timed(*arguments: Any) -> Any:
        nonlocal spent
        start = time.perf_counter()
        try:
            return decode(*arguments)
        finally:
            spent += time.perf_counter() - start

    cv2.imdecode = timed
    try:
        start = time.perf_counter()
        for index in range(count):
            dataset[index % len(dataset)]
        return spent / (time.perf_counter() - start)
    finally:
        cv2.imdecode = decode


def measure(sources: list[Source], count: int, workers: int, repeats: int) -> list[Figures]:
    """Medians over the turns; in a turn every reader reads ``count`` batches from every source."""
    total = (WARM + count) * BATCH
    found: list[list[Figures]] = [[] for _ in sources]
    for turn in tqdm(range(repeats), desc='reading', unit='turn', disable=None):
        for source, figures in zip(sources, found, strict=True):
            pairs = options(source, 'PairedImageDataset', workers, total)
            alone = options(source, 'BicubicPairDataset', workers, total)
            readers = {
                'basicsr': lambda pairs=pairs: basicsr_batches(pairs),
                'ours': lambda pairs=pairs: our_batches(pairs, WARM + count),
                'hr_alone': lambda alone=alone: our_batches(alone, WARM + count),
            }
            order = list(readers) if turn % 2 else list(reversed(readers))
            rates = {name: samples_per_second(readers[name](), count) for name in order}
            ratio = rates['ours'] / rates['basicsr']
            figures.append(Figures(ratio=ratio, decoding=decoding_share(dataset_of(pairs), BATCH), **rates))
    return [Figures(*map(statistics.median, zip(*figures, strict=True))) for figures in found]


def report(sources: list[Source], figures: list[Figures], workers: int) -> None:
    print(f'samples a second, ×{SCALE}, crops of {PATCH}, batches of {BATCH}, {workers} workers, files in memory')
    print(f'{"":<26}{"BasicSR":>9}{"ours":>9}{"ratio":>8}{"HR alone":>10}{"MB / 1000":>11}{"decoding":>10}')
    for source, of in zip(sources, figures, strict=True):
        print(
            f'{source.name:<26}{of.basicsr:>9.0f}{of.ours:>9.0f}{of.ratio:>8.2f}'
            f'{of.hr_alone:>10.0f}{source.megabytes:>11.0f}{of.decoding:>10.0%}'
        )
    usual = figures[2]
    best, fastest = max(zip(sources, figures, strict=True), key=lambda pair: pair[1].ours)
    what = 'decoding' if usual.decoding > 0.5 else 'what follows decoding'
    print(
        f'From {sources[2].name}, {what} takes most of the time; '
        f'{best.name} is the fastest, {fastest.ours / usual.ours:.1f} times as fast.'
    )

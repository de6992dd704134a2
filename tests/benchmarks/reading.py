"""How fast training reads: BasicSR, ours, and ours without LR files, from folders and LMDBs, in interleaved runs.

python -m tests.benchmarks.reading [--hr DIR] [--root DIR] [--size 480] [--samples 128] [--workers 0] [--repeats 5]
"""

import argparse
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
from earn_plugin.prepare import demo
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.lr import make_lr
from earn_plugin.prepare.subimages import SubImages, make_subimages
from tests.benchmarks.preparing import make_large
from tests.helpers.images import pair_options

SCALE, PATCH, BATCH, SEED = 4, 192, 16, 0  # ×4 from crops of 192 in batches of 16, as the papers train
WARM = 2  # batches that are not timed: workers start and caches fill


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
        """Of 1,000 images with their LR, on disk."""
        files = [path for root in (self.hr, self.lr) for path in root.iterdir() if not path.name.startswith('.')]
        return sum(path.stat().st_size for path in files) / self.count / 1000


class Figures(NamedTuple):
    """Of a source: samples per second of each reader, and the share of decoding in the time of a sample."""

    basicsr: float
    ours: float
    ratio: float
    hr_alone: float
    decoding: float


def benchmark_data(hr: Path | None, root: Path | None, size: int, samples: int, workers: int, repeats: int) -> None:
    """Print a table of reading speeds; see ``main`` for the arguments."""
    if size < 2 * PATCH or size % (2 * SCALE):
        raise SystemExit(f'--size must be a multiple of {2 * SCALE} and at least {2 * PATCH}, got {size}')
    with tempfile.TemporaryDirectory(dir=root, prefix='benchmark-data-') as folder:
        sources = make_sources(hr, Path(folder), size)
        figures = measure(sources, math.ceil(samples / BATCH), workers, repeats)
        report(sources, figures, workers)


def make_sources(hr: Path | None, folder: Path, size: int) -> list[Source]:
    """The same images, those that are large enough, as folders and LMDBs, complete and as sub-images."""
    if hr is None:
        demo.make_demo(folder / 'demo')
        hr = folder / 'demo/train/HR'
    complete = Source('complete images, folder', folder / 'HR', folder / 'LR')
    make_large(hr, complete.hr, SCALE, size)
    make_lr(complete.hr, complete.lr, SCALE)

    def cut(name: str, side: int, ending: str, make: Any, **keywords: Any) -> Source:
        source = Source(name, *(folder / f'{part}_{name.replace(" ", "_")}{ending}' for part in ('HR', 'LR')))
        for images, target, scale in ((complete.hr, source.hr, 1), (complete.lr, source.lr, SCALE)):
            make(images, target, SubImages(side // scale, side // scale, skip_small=True), **keywords)
        return source

    half = size // 2
    return [
        complete,
        cut(f'{size} sub-images, folder', size, '', make_subimages),
        cut(f'{size} sub-images, LMDB', size, '.lmdb', make_lmdb),
        cut(f'{half} sub-images, LMDB', half, '.lmdb', make_lmdb),
        cut(f'{size} sub-images, BMP LMDB', size, '.lmdb', make_lmdb, encoding='bmp'),
        cut(f'{half} sub-images, BMP LMDB', half, '.lmdb', make_lmdb, encoding='bmp'),
    ]


def options(source: Source, kind: str, workers: int, samples: int) -> dict[str, Any]:
    """Completed options with an epoch of as many samples as are read."""
    sizes = {'scale': SCALE, 'gt_size': PATCH, 'batch_size_per_gpu': BATCH, 'num_worker_per_gpu': workers}
    train = pair_options(
        source.hr.parent,
        backend='lmdb' if source.hr.suffix == '.lmdb' else 'disk',
        type=kind,
        dataroot_gt=str(source.hr),
        dataroot_lq=str(source.lr),
        dataset_enlarge_ratio=math.ceil(samples / source.count),
        **sizes,
    )
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
    """The share of OpenCV's decoder in the time of reading samples."""
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
    """Medians over the rounds; in each, every reader reads ``count`` batches from every source."""
    total = (WARM + count) * BATCH
    rounds: list[list[Figures]] = [[] for _ in sources]
    for turn in tqdm(range(repeats), desc='reading', unit='round', disable=None):
        for source, figures in zip(sources, rounds, strict=True):
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
    return [Figures(*map(statistics.median, zip(*figures, strict=True))) for figures in rounds]


def report(sources: list[Source], figures: list[Figures], workers: int) -> None:
    print(f'samples per second, ×{SCALE}, crops of {PATCH}, batches of {BATCH}, {workers} workers, files in memory')
    print(f'{"":<28}{"BasicSR":>9}{"ours":>9}{"ratio":>8}{"HR alone":>10}{"MB / 1000":>11}{"decoding":>10}')
    for source, of in zip(sources, figures, strict=True):
        print(
            f'{source.name:<28}{of.basicsr:>9.0f}{of.ours:>9.0f}{of.ratio:>8.2f}'
            f'{of.hr_alone:>10.0f}{source.megabytes:>11.0f}{of.decoding:>10.0%}'
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--hr', type=Path, metavar='DIR', help="HR images (default: the demo's photographs)")
    parser.add_argument('--root', type=Path, metavar='DIR', help='for the data sets, which are removed at the end')
    parser.add_argument('--size', type=int, default=480, help='side of the sub-images; half of it is also measured')
    parser.add_argument('--samples', type=int, default=128, help='read in each measurement')
    parser.add_argument('--workers', type=int, default=0, help='num_worker_per_gpu')
    parser.add_argument('--repeats', type=int, default=5, help='measurements of each; the median counts')
    args = parser.parse_args()
    benchmark_data(args.hr, args.root, args.size, args.samples, args.workers, args.repeats)


if __name__ == '__main__':
    main()

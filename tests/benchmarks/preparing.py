"""``basicsr prepare`` compared with BasicSR's own means, in interleaved runs on the same images.

python -m tests.benchmarks.preparing [--hr DIR] [--size 240] [--step 120] [--scale 4] [--repeats 5]
"""

import argparse
import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from basicsr.utils.matlab_functions import imresize as imresize_basicsr

from earn_plugin.data.image_files import images_in, read_image
from earn_plugin.data.image_headers import read_header
from earn_plugin.measure.speed import interleaved_medians
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.lr import make_lr
from earn_plugin.prepare.resumable_folder import available_cores
from earn_plugin.prepare.subimages import SubImages, make_subimages, subimages


def make_large(folder: Path, hr: Path, scale: int, size: int) -> None:
    """The images cropped to a multiple of the scale, without those that are then smaller than ``size``."""
    make_subimages(folder, hr, SubImages(multiple=scale))
    for path in images_in(hr):
        if min(read_header(path)[:2]) < size:
            path.unlink()
    if not any(hr.glob('*.png')):
        raise SystemExit(f'no image of {folder} is as large as {size}×{size}; use a smaller --size')


def extract_subimages(folder: Path, sub_folder: Path, size: int, step: int) -> None:
    """As BasicSR's script of this name, which pip does not install: PNG level 3, one process a core."""
    sub_folder.mkdir(parents=True)
    with get_context('spawn').Pool(available_cores()) as pool:
        pool.map(partial(_extract, sub_folder, size, step), images_in(folder))


def _extract(sub_folder: Path, size: int, step: int, path: Path) -> None:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    for number, sub_image in enumerate(subimages(image, size, step), 1):
        cv2.imwrite(str(sub_folder / f'{path.stem}_s{number:03d}.png'), sub_image, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def make_lr_basicsr(folder: Path, lr_folder: Path, scale: int) -> None:
    """By BasicSR's imresize, image by image; the values are not MATLAB's."""
    lr_folder.mkdir(parents=True)
    for path in images_in(folder):
        image = imresize_basicsr(read_image(path) / 255.0, 1 / scale)
        cv2.imwrite(str(lr_folder / path.name), (image * 255).round().clip(0, 255).astype('uint8'))


def make_lmdb_basicsr(folder: Path, lmdb: Path) -> None:
    """As BasicSR's script calls it, except for the map size, which it guesses from the first image."""
    paths = images_in(folder)
    lmdb.parent.mkdir(parents=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        names, keys = [path.name for path in paths], [path.stem for path in paths]
        make_lmdb_from_imgs(str(folder), str(lmdb), names, keys, map_size=2**36)


def benchmark_prepare(folder: Path, size: int, step: int, scale: int, repeats: int) -> None:
    """Print seconds and images per second of LR images, sub-images and LMDBs, without images smaller than ``size``."""
    with tempfile.TemporaryDirectory(prefix='.benchmark_', dir=Path.cwd()) as temporary:
        root = Path(temporary)
        hr, sub, out = root / 'HR', root / 'sub', root / 'out'
        make_large(folder, hr, scale, size)
        make_subimages(hr, sub, SubImages(size, step))
        images, sub_images = len(images_in(hr)), len(images_in(sub))
        cores = f'{available_cores()} cores, medians of {repeats} interleaved runs'
        print(f'{images} images, {sub_images} sub-images of {size}×{size}; {cores}')
        target, settings = out / 'x', SubImages(size, step)
        runs = {
            f'LR ×{scale}': (
                images,
                lambda: make_lr(hr, target, scale),
                lambda: make_lr_basicsr(hr, target, scale),
            ),
            'sub-images': (
                images,
                lambda: make_subimages(hr, target, settings),
                lambda: extract_subimages(hr, target, size, step),
            ),
            'LMDB': (
                sub_images,
                lambda: make_lmdb(sub, out / 'x.lmdb'),
                lambda: make_lmdb_basicsr(sub, out / 'x.lmdb'),
            ),
        }
        for what, (count, ours, basicsrs) in runs.items():
            forms = {'earn_plugin': partial(_again, out, ours), 'BasicSR': partial(_again, out, basicsrs)}
            seconds = interleaved_medians(forms, repeats)
            for name, value in seconds.items():
                print(f'{what:<12}{name:<12}{value:>8.2f} s{count / value:>10.1f} images/s')
            print(f'{what:<12}{"ratio":<12}{seconds["BasicSR"] / seconds["earn_plugin"]:>8.2f} ×')


def _again(out: Path, make: Callable[[], object]) -> None:
    shutil.rmtree(out, ignore_errors=True)
    make()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--hr', type=Path, default=Path('datasets/demo/train/HR'), metavar='DIR')
    parser.add_argument('--size', type=int, default=240, help='side of the sub-images')
    parser.add_argument('--step', type=int, default=120, help='distance between sub-images')
    parser.add_argument('--scale', type=int, default=4)
    parser.add_argument('--repeats', type=int, default=5)
    args = parser.parse_args()
    benchmark_prepare(args.hr, args.size, args.step, args.scale, args.repeats)


if __name__ == '__main__':
    main()

"""``basicsr prepare`` beside what BasicSR offers for the same: by turns, on the same images."""

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
from earn_plugin.errors import UsageError, UserError
from earn_plugin.measure.memory import medians
from earn_plugin.prepare.lmdb import make_cropped, make_lmdb, make_lr, make_subimages, subimages
from earn_plugin.prepare.resumable_folder import cores


def make_large(folder: Path, hr: Path, scale: int, size: int) -> None:
    """The images cut to a multiple of the scale, but for those that are then smaller than ``size``.

    Raises:
        UserError: none is as large, or one cannot be read.
    """
    make_cropped(folder, hr, scale)
    for path in images_in(hr):
        if min(read_header(path)[:2]) < size:
            path.unlink()
    if not any(hr.glob('*.png')):
        raise UserError(f'no image of {folder} is as large as {size}×{size}; take a smaller --size')


def extract_subimages(folder: Path, sub_folder: Path, size: int, step: int) -> None:
    """In the manner of BasicSR's script of that name, which pip does not install: PNG level 3, a process a core."""
    sub_folder.mkdir(parents=True)
    with get_context('spawn').Pool(cores()) as pool:
        pool.map(partial(_extract, sub_folder, size, step), images_in(folder))


def _extract(sub_folder: Path, size: int, step: int, path: Path) -> None:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    for number, square in enumerate(subimages(image, size, step), 1):
        cv2.imwrite(str(sub_folder / f'{path.stem}_s{number:03d}.png'), square, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def make_lr_basicsr(folder: Path, lr_folder: Path, scale: int) -> None:
    """By BasicSR's imresize, image by image; the values are not MATLAB's."""
    lr_folder.mkdir(parents=True)
    for path in images_in(folder):
        image = imresize_basicsr(read_image(path) / 255.0, 1 / scale)
        cv2.imwrite(str(lr_folder / path.name), (image * 255).round().clip(0, 255).astype('uint8'))


def make_lmdb_basicsr(folder: Path, lmdb: Path) -> None:
    """As it is called by BasicSR's own script, but for the room, which it guesses from the first image."""
    paths = images_in(folder)
    lmdb.parent.mkdir(parents=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        names, keys = [path.name for path in paths], [path.stem for path in paths]
        make_lmdb_from_imgs(str(folder), str(lmdb), names, keys, map_size=2**36)


def benchmark_prepare(folder: Path, size: int, step: int, scale: int, repeats: int) -> None:
    """Print seconds and images a second of LR, sub-images and LMDB, ours and BasicSR's.

    Images smaller than ``size`` take no part.

    Raises:
        UsageError: a number below 1.
        UserError: none is as large, or one cannot be read.
    """
    if min(size, step, scale, repeats) < 1:
        raise UsageError(f'size, step, scale and repeats must be at least 1, got {size}, {step}, {scale}, {repeats}')
    with tempfile.TemporaryDirectory(prefix='.benchmark_', dir=Path.cwd()) as temporary:
        root = Path(temporary)
        hr, sub, out = root / 'HR', root / 'sub', root / 'out'
        make_large(folder, hr, scale, size)
        make_subimages(hr, sub, size, step)
        images, pieces = len(images_in(hr)), len(images_in(sub))
        print(f'{images} images, {pieces} sub-images of {size}×{size}; {cores()} cores, medians of {repeats} by turns')
        for what, count, ours, basicsrs in (
            (
                f'LR ×{scale}',
                images,
                lambda: make_lr(hr, out / 'x', scale),
                lambda: make_lr_basicsr(hr, out / 'x', scale),
            ),
            (
                'sub-images',
                images,
                lambda: make_subimages(hr, out / 'x', size, step),
                lambda: extract_subimages(hr, out / 'x', size, step),
            ),
            (
                'LMDB',
                pieces,
                lambda: make_lmdb(sub, out / 'x.lmdb'),
                lambda: make_lmdb_basicsr(sub, out / 'x.lmdb'),
            ),
        ):
            forms = {'earn_plugin': partial(anew, out, ours), 'BasicSR': partial(anew, out, basicsrs)}
            seconds = medians(forms, repeats)
            for name, value in seconds.items():
                print(f'{what:<12}{name:<12}{value:>8.2f} s{count / value:>10.1f} images/s')
            print(f'{what:<12}{"ratio":<12}{seconds["BasicSR"] / seconds["earn_plugin"]:>8.2f} ×')


def anew(out: Path, make: Callable[[], object]) -> None:
    """Into a folder that is not there yet."""
    shutil.rmtree(out, ignore_errors=True)
    make()

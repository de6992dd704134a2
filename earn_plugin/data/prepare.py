"""Folders of images made into what training reads: sub-images, LR images, LMDB. Each result is whole or not there."""

import contextlib
import io
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from tqdm import tqdm

from earn_plugin.data.bicubic import crop_to_multiple, imresize
from earn_plugin.data.check import read_header
from earn_plugin.errors import UserError
from earn_plugin.files import whole_folder


def images_in(folder: Path) -> list[Path]:
    """The files of a folder, sorted, hidden ones left out.

    Raises:
        UserError: no folder, or none in it.
    """
    paths = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith('.')) if folder.is_dir() else []
    if not paths:
        raise UserError(f'no images in {folder}')
    return paths


def read_image(path: Path) -> np.ndarray:
    """H×W×3, BGR, uint8.

    Raises:
        UserError: the file cannot be decoded.
    """
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
    if image is None:
        raise UserError(f'{path} cannot be decoded: it is damaged, or not an image')
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode('.png', image)[1].tobytes())


def make_lr(hr_folder: Path, lr_folder: Path, scale: int, border: str = 'replicate', suffix: str = '') -> None:
    """LR images of a folder of HR images, NAME.png → NAMEsuffix.png; HR is cut to a multiple of the scale first."""
    with whole_folder(lr_folder) as made:
        for path in progress(images_in(hr_folder), f'LR ×{scale}'):
            image = crop_to_multiple(read_image(path), scale)
            write_image(made / f'{path.stem}{suffix}.png', imresize(image, Fraction(1, scale), border))


def subimages(image: np.ndarray, size: int, step: int) -> Iterable[np.ndarray]:
    """The squares of side ``size`` at every ``step``, and those flush with the right and bottom; row by row."""

    def starts(length: int) -> list[int]:
        return sorted({*range(0, length - size + 1, step), length - size}) if length >= size else []

    for top in starts(image.shape[0]):
        for left in starts(image.shape[1]):
            yield image[top : top + size, left : left + size]


def make_subimages(folder: Path, sub_folder: Path, size: int, step: int, suffix: str = '') -> None:
    """Sub-images of a folder of images: NAMEsuffix.png → NAME_s001.png, NAME_s002.png, …

    Run on HR with size 480 and step 240 and on LR ×4 with 120 and 60 and the LR's suffix, the names pair.

    Raises:
        UserError: an image smaller than ``size``.
    """
    with whole_folder(sub_folder) as made:
        for path in progress(images_in(folder), 'sub-images'):
            image = read_image(path)
            squares = list(subimages(image, size, step))
            if not squares:
                raise UserError(f'{path} is {image.shape[0]}×{image.shape[1]}, smaller than a sub-image of {size}')
            for number, square in enumerate(squares, 1):
                write_image(made / f'{path.stem.removesuffix(suffix)}_s{number:03d}.png', square)


def make_lmdb(folder: Path, lmdb: Path) -> None:
    """An LMDB of a folder of images by BasicSR's own writer; the keys are the names without their extension."""
    paths = images_in(folder)
    headers = [read_header(path) for path in paths]
    # BasicSR guesses from the first image how much room all need; this is how much they can need at most
    room = sum(3 * h.height * h.width + 4096 for h in headers) * 11 // 10 + 2**20
    names = [path.name for path in paths]
    keys = [path.stem for path in paths]
    with whole_folder(lmdb) as made, quiet():
        make_lmdb_from_imgs(str(folder), str(made / 'x.lmdb'), names, keys, map_size=room)
        for file in (made / 'x.lmdb').iterdir():
            file.rename(made / file.name)
        (made / 'x.lmdb').rmdir()


def progress(items: list, what: str) -> Iterable:
    """The items, with a progress bar on a terminal."""
    return tqdm(items, desc=what, unit='image', disable=None)


@contextlib.contextmanager
def quiet():
    """Keep BasicSR's prints and bars, which it shows on files as well as on terminals, off anything but a terminal."""
    with contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield

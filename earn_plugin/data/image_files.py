"""Image files read and written, as arrays H×W (grey) or H×W×3 (BGR)."""

from pathlib import Path

import cv2
import numpy as np

from earn_plugin.errors import UserError

PNG_LEVEL = 1  # as BasicSR's LMDBs: a third slower to write at 3, and hardly smaller


def images_in(folder: Path) -> list[Path]:
    """The files of a folder, sorted, hidden ones left out.

    Raises:
        UserError: no folder, none in it, or links to what is not there.
    """
    try:
        shown = sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
    except FileNotFoundError:
        raise UserError(f'there is no folder {folder}') from None
    except OSError as error:
        raise UserError(f'{folder} cannot be read as a folder: {error.strerror}') from error
    paths = [path for path in shown if path.is_file()]
    broken = [path for path in shown if path.is_symlink() and not path.exists()]
    if broken:
        more = f', and {len(broken) - 1} more' if len(broken) > 1 else ''
        raise UserError(f'{broken[0]} is a link to what is not there{more}: put it back, or remove the links')
    if not paths:
        raise UserError(f'no images in {folder} (folders in it are not gone into)')
    return paths


def decode(content: bytes, path: Path) -> np.ndarray:
    """An image as it is, but without alpha: grey or BGR, in 8 or 16 bits, turned as its EXIF data says.

    Raises:
        UserError: it cannot be decoded, or has other values; names ``path``.
    """
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # empty, larger than cv2 allows, and the like
        image = None
    if image is None:
        raise UserError(f'{path} cannot be decoded: it is damaged, or not an image')
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(f'{path} has values of {image.dtype}: convert it to 8 or 16 bits')
    return image


def read_image(path: Path) -> np.ndarray:
    """As ``decode``."""
    return decode(path.read_bytes(), path)


def encode(image: np.ndarray, ending: str = '.png') -> bytes:
    """A file's content; PNG keeps every value, BMP those of 8 bits."""
    flags = [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL] if ending == '.png' else []
    return cv2.imencode(ending, image, flags)[1].tobytes()


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image))

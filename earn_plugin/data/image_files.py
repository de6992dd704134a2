"""Image files listed, read and written, as arrays H×W (grey) or H×W×3 (BGR)."""

from pathlib import Path

import cv2
import numpy as np

from earn_plugin.data.folder_or_lmdb import Folder
from earn_plugin.errors import UserError

PNG_LEVEL = 1  # as BasicSR's LMDBs; level 3 takes a third longer to write and is hardly smaller
AS_STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH


def images_in(folder: Path) -> list[Path]:
    """The files of a folder, sorted, without hidden ones.

    Raises:
        UserError: there is no such folder, it is empty, or it holds broken links.
    """
    listed = Folder(folder)
    if listed.broken:
        more = f', and {len(listed.broken) - 1} more' if len(listed.broken) > 1 else ''
        raise UserError(f'{folder / listed.broken[0]} is a broken link{more}: restore the file, or remove the link')
    if not listed.names:
        raise UserError(f'no images in {folder} (subfolders are not searched)')
    return [folder / name for name in listed.names]


def decode(content: bytes, flags: int = AS_STORED) -> np.ndarray:
    """The image in a file's content, rotated as its EXIF data says: by default grey or BGR in 8 or 16 bits, no alpha.

    Raises:
        ValueError: it cannot be decoded, or has values other than 8-bit and 16-bit.
    """
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # empty, larger than cv2 allows, and the like
        image = None
    if image is None:
        raise ValueError('cannot be decoded: it is damaged, or in a format that cv2 does not read')
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'has values of {image.dtype}: convert it to 8 or 16 bits')
    return image


def read_image(path: Path) -> np.ndarray:
    """The image in a file, as ``decode`` returns it.

    Raises:
        UserError: it cannot be decoded.
    """
    try:
        return decode(path.read_bytes())
    except ValueError as error:
        raise UserError(f'{path} {error}') from error


def encode(image: np.ndarray, ending: str = '.png') -> bytes:
    """A file's content. PNG keeps all 8-bit and 16-bit values, BMP all 8-bit values."""
    flags = [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL] if ending == '.png' else []
    return cv2.imencode(ending, image, flags)[1].tobytes()


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image))

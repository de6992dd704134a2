"""Size and kind of an image, read from the first bytes of its file, without decoding."""

from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
PNG_END = b'\0\0\0\0IEND\xaeB`\x82'
KINDS = {  # of Pillow's modes; the other modes are named as Pillow names them
    'L': 'grey',
    '1': '1-bit grey',
    'LA': 'grey with alpha',
    'PA': 'palette with alpha',
    'I': '32-bit grey',
    'F': 'grey of floats',
    **dict.fromkeys(('I;16', 'I;16L', 'I;16B', 'I;16N'), '16-bit grey'),
    **dict.fromkeys(('RGB', 'YCbCr', 'P'), ''),
}
ORIENTATION = 0x0112


class Header(NamedTuple):
    """The size with which BasicSR reads an image, after a rotation by EXIF, and the kind of image.

    ``kind`` is empty for an 8-bit RGB image, else what differs from one: 'grey', '16-bit RGB', …
    """

    height: int
    width: int
    kind: str


def read_header(file: Path | BinaryIO, verify: bool = False) -> Header:
    """Size and kind of an image; for a PNG also a look at its last bytes.

    Args:
        verify: compare all checksums of a PNG.

    Raises:
        ValueError: not an image, or a PNG that is cut off or so damaged in front of its pixels that cv2 cannot read it.
    """
    if isinstance(file, Path):
        with file.open('rb') as opened:
            return read_header(opened, verify)
    signature = file.read(len(PNG_SIGNATURE))
    if not signature:
        raise ValueError('is empty')
    is_png = signature == PNG_SIGNATURE
    if is_png and not _png_ends(file):
        raise ValueError('is cut off: the PNG does not end')
    file.seek(0)
    try:
        with PngImageFile(file) if is_png else Image.open(file) as image:  # no limit to a PNG's size, as in cv2
            header = _header(image)
            if verify:
                image.verify()
            return header
    except Image.DecompressionBombError as error:
        raise ValueError(f'is too large: {error}') from error
    except Exception as error:  # Pillow raises whatever the damage leads to
        if is_png and (isinstance(error, ValueError) or not verify) and (header := _header_by_cv2(file)):
            return header
        raise ValueError(f'is damaged: {error}' if is_png else 'is not an image') from error


def _header_by_cv2(file: BinaryIO) -> Header | None:
    """For a PNG that Pillow refuses for its metadata, which cv2 and BasicSR ignore."""
    file.seek(0)
    with suppress(cv2.error):
        image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
        return None if image is None else Header(*image.shape[:2], '')
    return None


def _png_ends(file: BinaryIO) -> bool:
    """Whether a PNG has its end; only if that is not at the file's end, all bytes are read."""
    length = file.seek(0, 2)
    for start in (max(0, length - len(PNG_END)), 0):
        file.seek(start)
        if PNG_END in file.read():
            return True
    return False


def _header(image: Image.Image) -> Header:
    kind = KINDS.get(image.mode, image.mode)
    if ';16' in str(image.tile[:1]) and not kind.startswith('16-bit'):  # Pillow opens 16-bit RGB in its 8-bit mode
        kind = f'16-bit {kind or image.mode}'
    if 'transparency' in image.info:
        kind = f'{kind or ("palette" if image.mode == "P" else image.mode)} with transparency'
    size = image.height, image.width
    kinds = [kind, 'of several frames' if getattr(image, 'is_animated', False) else '']
    orientation = _orientation(image.info.get('exif', b''))
    if orientation != 1:
        kinds.append(f'rotated by its EXIF orientation {orientation}')
    if orientation >= 5:  # cv2 obeys it
        size = size[::-1]
    return Header(*size, ', '.join(filter(None, kinds)))


def _orientation(exif: bytes) -> int:
    """1 to 8; 1 is upright, and also what damaged EXIF data counts as."""
    tags, orientation = Image.Exif(), 1
    with suppress(Exception):  # as above
        tags.load(exif)
        orientation = tags.get(ORIENTATION)
    return orientation if orientation in range(1, 9) else 1

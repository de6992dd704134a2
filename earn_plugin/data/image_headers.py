"""What an image is, read from the first bytes of its file: a size and a kind, without decoding."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
PNG_END = b'IEND\xaeB`\x82'
PNG_COLOURS = {0: 'grey', 2: 'RGB', 3: 'palette', 4: 'grey with alpha', 6: 'RGBA'}
PILLOW_MODES = {
    'L': 'grey',
    '1': '1-bit grey',
    'LA': 'grey with alpha',
    'PA': 'palette with alpha',
    'I': '32-bit grey',
    'F': 'grey of floats',
    **dict.fromkeys(('I;16', 'I;16L', 'I;16B', 'I;16N'), '16-bit grey'),
}
USUAL = {'RGB', 'palette', 'P', 'YCbCr'}  # what is read as 8-bit RGB without a loss
ORIENTATION = 0x0112
BITS_PER_SAMPLE = 258


class Header(NamedTuple):
    """The size that BasicSR reads an image with, which EXIF can turn, and what the image is.

    ``kind`` is empty for an 8-bit RGB image, else what is odd about it: 'grey', '16-bit RGB', …
    """

    height: int
    width: int
    kind: str


class PNGChunk(NamedTuple):
    name: bytes
    start: int  # of its data in the file
    length: int


def read_header(file: Path | BinaryIO) -> Header:
    """Size and kind of an image from the first bytes of its file, and a look at the last ones.

    Raises:
        ValueError: not an image, or cut off.
    """
    if isinstance(file, Path):
        with file.open('rb') as opened:
            return read_header(opened)
    signature = file.read(len(PNG_SIGNATURE))
    if signature == PNG_SIGNATURE:
        return _read_png(file)
    if not signature:
        raise ValueError('is empty')
    file.seek(0)
    try:
        with Image.open(file) as image:
            return _header(image.height, image.width, *_oddities(image), exif=image.info.get('exif', b''))
    except Image.DecompressionBombError as error:
        raise ValueError(f'is too large: {error}') from error
    except Exception as error:  # Pillow raises whatever the damage leads to
        raise ValueError('is not an image') from error


def png_chunks(file: BinaryIO) -> Iterator[PNGChunk]:
    """The chunks of a PNG up to its end, or to where it is cut off."""
    at = len(PNG_SIGNATURE)
    name = b''
    while name != b'IEND':
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        length, name = struct.unpack('>I4s', head)
        yield PNGChunk(name, at + 8, length)
        at += 12 + length


def _read_png(file: BinaryIO) -> Header:
    ahead = {}
    for chunk in png_chunks(file):
        if chunk.name == b'IDAT':
            break
        if chunk.name in (b'IHDR', b'eXIf'):
            file.seek(chunk.start)
            ahead[chunk.name] = file.read(chunk.length)
        else:
            ahead[chunk.name] = b''
    if len(ahead.get(b'IHDR', b'')) < 13:
        raise ValueError('is cut off')
    end = file.seek(0, 2)
    file.seek(max(0, end - len(PNG_END)))
    if file.read() != PNG_END and not any(
        chunk.name == b'IEND' and chunk.start + 4 <= end for chunk in png_chunks(file)
    ):
        raise ValueError('is cut off: the PNG does not end')
    width, height, depth, colour = struct.unpack('>IIBB', ahead[b'IHDR'][:10])
    kind = PNG_COLOURS.get(colour, f'PNG colour type {colour}')
    if depth != 8 and kind != 'palette':
        kind = f'{depth}-bit {kind}'
    if b'tRNS' in ahead:
        kind += ' with transparency'
    return _header(height, width, kind, 'of several frames' if b'acTL' in ahead else '', exif=ahead.get(b'eXIf', b''))


def _oddities(image: Image.Image) -> Iterator[str]:
    mode = PILLOW_MODES.get(image.mode, image.mode)
    depth = max(getattr(image, 'tag_v2', {}).get(BITS_PER_SAMPLE, (8,)))  # Pillow opens TIFF of 16-bit RGB as of 8
    yield f'{depth}-bit {mode}' if depth > 8 and mode in USUAL else mode
    yield 'of several frames' if getattr(image, 'is_animated', False) else ''


def _header(height: int, width: int, *oddities: str, exif: bytes) -> Header:
    odd = [oddity for oddity in oddities if oddity and oddity not in USUAL]
    orientation = _orientation(exif) if exif else 1
    if orientation != 1:
        odd.append(f'turned by its EXIF orientation {orientation}')
    if orientation >= 5:  # cv2 obeys it
        height, width = width, height
    return Header(height, width, ', '.join(odd))


def _orientation(exif: bytes) -> int:
    """1 to 8; 1 is upright, and what a damaged EXIF counts as."""
    tags = Image.Exif()
    try:
        tags.load(exif)
        orientation = tags.get(ORIENTATION, 1)
    except Exception:  # as above
        return 1
    return orientation if orientation in range(1, 9) else 1

"""Pictures read from and written to PNG, JPEG, WebP and TIFF, with their EXIF data and colour profiles."""

import errno
import io
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

from earn_plugin.atomic_files import atomic_path
from earn_plugin.data.image_headers import ORIENTATION
from earn_plugin.errors import UserError, reason_of

ENDINGS = {'png': ('.png',), 'jpeg': ('.jpg', '.jpeg'), 'webp': ('.webp',), 'tiff': ('.tif', '.tiff')}
LARGEST_SIDE = {'jpeg': 65_500, 'webp': 16_383}  # of libjpeg and libwebp
DEEP = ('png', 'tiff')  # have 16 bits
DEEPEST = 2**16 - 1
LARGEST_EXIF = 65_533  # bytes in a JPEG
LARGEST_ICC = 65_519  # bytes in a single segment of a JPEG
FULL_CHROMA = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
BITS, PHOTOMETRIC, SAMPLES, PLANES, EXTRA_SAMPLES = 258, 262, 277, 284, 338  # tags of a TIFF
WIDTH, HEIGHT = 0xA002, 0xA003  # tags of the Exif IFD
# The other tags of a file's first IFD are about the pixels of that file, or about its thumbnail.
KEPT_TAGS = {270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 33432, *range(40091, 40096), EXIF_IFD, GPS_IFD}
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}  # by EXIF's orientation


class Picture(NamedTuple):
    """A picture, upright.

    ``pixels`` is H×W×C in uint8 or uint16; C is 1 for grey, 2 for grey and alpha, 3 for RGB, 4 for RGB and alpha.
    ``notes`` say what of the file is not kept.
    """

    pixels: np.ndarray
    exif: Image.Exif
    icc: bytes
    notes: tuple[str, ...] = ()


def format_of(path: Path) -> str | None:
    """The format of a file by its ending; None if it has that of no picture."""
    return next((name for name, endings in ENDINGS.items() if path.suffix.lower() in endings), None)


def stored_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as it is stored; raises as ``read_picture``."""
    with _opened(path) as image:
        return image.size


def read_picture(path: Path) -> Picture:
    """The first picture of a file, whatever its ending.

    Raises:
        UserError: not a picture, damaged, or with other values than 8-bit and 16-bit.
        OSError: the file cannot be read.
    """
    with _opened(path) as image:
        return _picture(path, image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if path.is_fifo():  # opening one would wait for its writer
        raise UserError('is a pipe, not a file')
    try:
        # not by name: Pillow would map the file, which it reads wrongly if a TIFF is rotated
        with path.open('rb') as file, Image.open(file, formats=('PNG', 'JPEG', 'WEBP', 'TIFF')) as image:
            yield image
    except Image.UnidentifiedImageError:
        kinds = 'PNG, JPEG, WebP or TIFF with 8-bit or 16-bit values'
        raise UserError(f'is damaged, or not a picture in {kinds}; save it as a PNG') from None
    except (UserError, MemoryError):
        raise
    except Exception as error:  # to which damage leads in Pillow
        if getattr(error, 'errno', None):
            raise
        raise UserError(f'is damaged, or of an unusual kind: {reason_of(error)}') from error


def _picture(path: Path, image: Image.Image) -> Picture:
    notes = []
    if (count := getattr(image, 'n_frames', 1)) > 1:
        notes.append(f'only the first of its {count} pictures is used')
    if image.mode in ('I', 'F') and ';16' not in str(image.tile[:1]):
        raise UserError('has 32-bit values; convert it to 8 or 16 bits')
    tags = getattr(image, 'tag_v2', {})
    is_deep = (';16' in str(image.tile[:1]) or 16 in tags.get(BITS, ())) and image.mode != 'CMYK'
    if is_deep and not _is_plain(tags):
        raise UserError('has 16-bit values in a kind of TIFF that is not read correctly; save it as a PNG')
    image.load()  # upright if it is a TIFF; a PNG may have EXIF data after its pixels
    exif, icc = _exif(image), image.info.get('icc_profile') or b''
    orientation = exif.pop(ORIENTATION, 1)
    for tag in set(exif) - KEPT_TAGS:
        del exif[tag]
    if image.mode == 'CMYK':
        image, how = _without_cmyk(image, icc)
        notes.append(f'CMYK is converted to sRGB{how}')
        icc = b''
    pixels = _deep_pixels(path, image) if is_deep else _pixels(image)
    if icc and icc[16:20] != (b'GRAY' if pixels.shape[2] < 3 else b'RGB '):
        notes.append('its ICC profile is that of another kind of picture, and not kept')
        icc = b''
    return Picture(UPRIGHT.get(orientation, UPRIGHT[1])(pixels), exif, icc, tuple(notes))


def _exif(image: Image.Image) -> Image.Exif:
    exif = Image.Exif()
    with suppress(Exception):  # damaged EXIF data
        exif = image.getexif()
        for tag in (EXIF_IFD, GPS_IFD):
            _ifd(exif, tag)
    return exif


def _ifd(exif: Image.Exif, tag: int) -> dict:
    return exif.get_ifd(tag) if tag in exif else {}  # get_ifd alone would add an empty one


def _pixels(image: Image.Image) -> np.ndarray:
    has_alpha = 'transparency' in image.info or image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa')
    mode = ('L' if image.mode in ('1', 'L', 'LA', 'La') else 'RGB') + 'A' * has_alpha
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array.reshape(*array.shape[:2], -1)


def _is_plain(tags: Mapping) -> bool:
    """Whether cv2 reads 16-bit values as they are meant: interleaved, 0 is black, and colours without alpha in them."""
    is_interleaved = tags.get(SAMPLES, 1) == 1 or tags.get(PLANES, 1) == 1
    return is_interleaved and tags.get(PHOTOMETRIC, 1) in (1, 2) and 1 not in tags.get(EXTRA_SAMPLES, ())


def _deep_pixels(path: Path, image: Image.Image) -> np.ndarray:
    """16-bit pixels, of which Pillow keeps 8 bits."""
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise UserError('has 16-bit values that cv2 cannot read; save it as a PNG')
    if pixels.ndim == 2:
        transparent = image.info.get('transparency')
        alpha = () if transparent is None else (np.where(pixels == transparent, 0, DEEPEST).astype(np.uint16),)
        return np.dstack([pixels, *alpha])
    if image.mode.startswith(('I', 'L')):  # grey and alpha come as BGRA
        return pixels[..., ::3]
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _without_cmyk(image: Image.Image, icc: bytes) -> tuple[Image.Image, str]:
    try:
        profiles = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile('sRGB')
        return ImageCms.profileToProfile(image, *profiles, outputMode='RGB'), ' by its ICC profile, which is not kept'
    except (OSError, ImageCms.PyCMSError):  # none, or damaged
        return image.convert('RGB'), ' without an ICC profile; colours are approximate'


def on_white(picture: Picture) -> Picture:
    """The picture without alpha, for a format that has none."""
    if picture.pixels.shape[2] in (1, 3):
        return picture
    colours, alpha = picture.pixels[..., :-1], picture.pixels[..., -1:].astype(np.float64)
    white = np.iinfo(colours.dtype).max
    pixels = np.rint(colours * (alpha / white) + (white - alpha)).astype(colours.dtype)
    return picture._replace(pixels=pixels, notes=(*picture.notes, 'transparency is shown on white: JPEG has none'))


def stored_channels(channels: int, kind: str, dtype: np.dtype) -> int:
    """The channels of a picture of so many channels in a format; only PNG and TIFF in 8 bits have grey with alpha."""
    if kind == 'webp' or (channels == 2 and dtype == np.uint16):
        return {1: 3, 2: 4}.get(channels, channels)
    return channels


def colours_of(stored: np.ndarray, kind: str) -> np.ndarray:
    """A view of pixels as ``write_picture`` takes them: the grey channel, or red, green and blue."""
    if stored.shape[2] < 3:
        return stored[..., :1]
    return stored[..., :3] if kind == 'tiff' else stored[..., 2::-1]  # cv2 writes the others, from BGR


def write_picture(path: Path, pixels: np.ndarray, picture: Picture, kind: str, quality: int) -> None:
    """Write a picture atomically, with the EXIF data and profile of another, and little memory besides the pixels.

    Args:
        pixels: H×W×C in uint8 or uint16, with C of ``stored_channels`` in the order of ``colours_of``.
        quality: 1 to 100, for JPEG and WebP; 100 is lossless WebP.

    Raises:
        OSError: it cannot be written.
    """
    height, width, channels = pixels.shape
    icc = picture.icc if picture.icc[16:20] == (b'GRAY' if channels < 3 else b'RGB ') else b''
    exif = picture.exif
    for tag, side in ((WIDTH, width), (HEIGHT, height)):
        if tag in (ifd := _ifd(exif, EXIF_IFD)):
            ifd[tag] = side
    with atomic_path(path) as temporary:
        if kind == 'tiff':
            _write_tiff(temporary, pixels, exif, icc)
            return
        content = b''
        with suppress(Exception):  # values that EXIF cannot hold
            content = exif.tobytes() if len(exif) else b''
        if kind == 'jpeg' and len(content) > LARGEST_EXIF:
            content = b''
        if channels == 2 or (kind == 'jpeg' and len(icc) > LARGEST_ICC):  # which cv2 cannot write
            image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels[..., :: 1 if channels == 2 else -1])
            image.save(temporary, kind, exif=content, icc_profile=icc, quality=quality, subsampling=0)
            return
        metadata = {cv2.IMAGE_METADATA_EXIF: content.removeprefix(b'Exif\0\0'), cv2.IMAGE_METADATA_ICCP: icc}
        metadata = {key: np.frombuffer(value, np.uint8) for key, value in metadata.items() if value}
        flags = {
            'png': [],
            'jpeg': [cv2.IMWRITE_JPEG_QUALITY, quality, *FULL_CHROMA],
            'webp': [cv2.IMWRITE_WEBP_QUALITY, quality + (quality == 100)],  # above 100 is lossless
        }
        settings = pixels, [*metadata], [*metadata.values()], flags[kind]
        try:
            str(temporary).encode()
        except UnicodeEncodeError:  # such names crash cv2
            done, encoded = cv2.imencodeWithMetadata(path.suffix, *settings)
            temporary.write_bytes(encoded)
        else:
            done = cv2.imwriteWithMetadata(str(temporary), *settings)
        if not done:
            if shutil.disk_usage(path.parent).free < 2**20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            raise OSError('cannot be written')


def _write_tiff(path: Path, pixels: np.ndarray, exif: Image.Exif, icc: bytes) -> None:
    import tifffile  # takes 0.2 s

    _, width, channels = pixels.shape
    ifds = {}
    for tag in (EXIF_IFD, GPS_IFD) if pixels.nbytes < 2**31 else ():  # larger ones may be BigTIFF
        with suppress(Exception):  # as above
            ifd = TiffImagePlugin.ImageFileDirectory_v2(prefix=b'II' if sys.byteorder == 'little' else b'MM')
            ifd.update(_ifd(exif, tag))
            if len(ifd) and ifd.tobytes():
                ifds[tag] = ifd
    texts = [(tag, 's', 0, value.encode(), True) for tag, value in exif.items() if isinstance(value, str)]
    tifffile.imwrite(
        path,
        pixels[..., 0] if channels == 1 else pixels,
        photometric='rgb' if channels > 2 else 'minisblack',
        planarconfig=None if channels == 1 else 'contig',
        extrasamples=['unassalpha'] if channels in (2, 4) else None,
        compression='zlib',
        compressionargs={'level': 1},
        predictor=True,
        rowsperstrip=max(1, 2**20 // (width * channels * pixels.itemsize)),
        iccprofile=icc or None,
        extratags=[*texts, *((tag - 1, 'I', 1, 0, True) for tag in ifds)],
        metadata=None,
        software=False,
    )
    if not ifds:
        return
    with tifffile.TiffFile(
        path, mode='r+'
    ) as file:  # which writes no IFDs of EXIF; their tags are those minus 1 so far
        for number, ifd in ifds.items():
            tag, offset = file.pages[0].tags[number - 1], file.filehandle.seek(0, 2)
            file.filehandle.write(ifd.tobytes(offset))
            tag.overwrite(offset)
            file.filehandle.seek(tag.offset)
            file.filehandle.write(number.to_bytes(2, sys.byteorder))

"""Compared with cv2 as BasicSR calls it."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from earn_plugin.data.image_headers import read_header
from tests.helpers.images import photograph


def encoded(image: Image.Image, form: str = 'PNG', **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def rotated(orientation: int, form: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(photograph(12, 20)), form, exif=exif)


def cv2_size(content: bytes) -> tuple[int, int]:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape[:2]


@pytest.mark.parametrize('kind', ['png', 'jpg', 'bmp'])
def test_usual_images(tmp_path, kind):
    path = tmp_path / f'x.{kind}'
    cv2.imwrite(str(path), photograph(6, 9))
    assert read_header(path) == (6, 9, '')


@pytest.mark.parametrize(
    ('mode', 'kind'),
    [
        ('L', 'grey'),
        ('RGBA', 'RGBA'),
        ('LA', 'grey with alpha'),
        ('P', ''),
        ('1', '1-bit grey'),
        ('I;16', '16-bit grey'),
    ],
)
def test_kinds_of_png(mode, kind):
    image = Image.new('I;16', (5, 4)) if mode == 'I;16' else Image.fromarray(photograph(4, 5)).convert(mode)
    assert read_header(io.BytesIO(encoded(image))) == (4, 5, kind)


@pytest.mark.parametrize('form', ['.png', '.tif'])
def test_sixteen_bit_colour(form):
    content = cv2.imencode(form, photograph(4, 5).astype(np.uint16) * 256)[1].tobytes()
    assert read_header(io.BytesIO(content)) == (4, 5, '16-bit RGB')


def test_kinds_of_other_formats():
    image = Image.fromarray(photograph(4, 5))
    assert read_header(io.BytesIO(encoded(image.convert('CMYK'), 'JPEG'))).kind == 'CMYK'
    assert read_header(io.BytesIO(encoded(image.convert('L'), 'JPEG'))).kind == 'grey'
    assert (
        read_header(io.BytesIO(encoded(image.convert('P'), 'PNG', transparency=0))).kind == 'palette with transparency'
    )
    other = [Image.fromarray(photograph(4, 5, 1))]
    for form in ('GIF', 'PNG'):
        content = encoded(image, form, save_all=True, append_images=other)
        assert read_header(io.BytesIO(content)).kind == 'of several frames'


@pytest.mark.parametrize('form', ['JPEG', 'PNG'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_size_is_what_cv2_reads_by_exif(form, orientation):
    content = rotated(orientation, form)
    header = read_header(io.BytesIO(content))
    assert header[:2] == cv2_size(content)
    assert header.kind == ('' if orientation == 1 else f'rotated by its EXIF orientation {orientation}')


def test_invalid_exif_is_upright():
    content = encoded(Image.fromarray(photograph(12, 20)), 'JPEG', exif=b'Exif\x00\x00nothing at all')
    assert read_header(io.BytesIO(content)) == (12, 20, '')
    assert read_header(io.BytesIO(rotated(9, 'PNG'))) == (12, 20, '')


def test_cut_off_at_any_place():
    content = encoded(Image.fromarray(photograph(4, 5)))
    for length in range(1, len(content)):
        with pytest.raises(ValueError, match='is cut off' if length >= 8 else 'is not an image'):
            read_header(io.BytesIO(content[:length]))


def test_bytes_after_the_end_are_ignored():
    content = encoded(Image.fromarray(photograph(4, 5))) + b'\n'
    assert read_header(io.BytesIO(content)) == (*cv2_size(content), '')


@pytest.mark.parametrize(('content', 'message'), [(b'', 'is empty'), (b'text', 'is not an image')])
def test_not_an_image(content, message):
    with pytest.raises(ValueError, match=message):
        read_header(io.BytesIO(content))


def test_damage_at_which_pillow_raises_other_errors():
    frame = encoded(Image.fromarray(photograph(8, 8)).convert('P'), 'GIF').removesuffix(b';')
    another_cut_off_in_its_palette = struct.pack('<cHHHHB', b',', 0, 0, 8, 8, 0x87) + bytes([0, 0, 0, 1])
    with pytest.raises(ValueError, match='is not an image'):
        read_header(io.BytesIO(frame + another_cut_off_in_its_palette))


def test_too_large_to_open(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 8)
    with pytest.raises(ValueError, match='is too large'):
        read_header(io.BytesIO(encoded(Image.fromarray(photograph(4, 5)), 'BMP')))


def test_large_png_is_not_limited(monkeypatch):
    """cv2 and BasicSR read PNG images that Pillow takes for an attack."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 8)
    assert read_header(io.BytesIO(encoded(Image.fromarray(photograph(4, 5))))) == (4, 5, '')


@pytest.mark.parametrize(
    ('name', 'data', 'spoil', 'is_damage'),
    [(b'zTXt', b'Raw\0\0' + zlib.compress(bytes(2**21)), 0, False), (b'tEXt', b'Comment\0text', 1, True)],
)
def test_metadata_that_pillow_refuses(name, data, spoil, is_damage):
    """cv2 and BasicSR ignore them: only a full check reports a wrong checksum."""
    content = encoded(Image.fromarray(photograph(4, 5)))
    checksum = zlib.crc32(name + data) ^ spoil
    chunk = struct.pack(f'>I4s{len(data)}sI', len(data), name, data, checksum)
    content = content[:33] + chunk + content[33:]
    assert read_header(io.BytesIO(content)) == (*cv2_size(content), '')
    if is_damage:
        with pytest.raises(ValueError, match='is damaged'):
            read_header(io.BytesIO(content), verify=True)
    else:
        assert read_header(io.BytesIO(content), verify=True) == (4, 5, '')


def test_damage_in_front_of_the_pixels():
    content = bytearray(encoded(Image.fromarray(photograph(4, 5))))
    content[20] ^= 1  # the height
    with pytest.raises(ValueError, match='is damaged'):
        read_header(io.BytesIO(content))

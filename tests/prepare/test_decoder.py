import os

import cv2
import numpy as np
import pytest
from PIL import Image

from earn_plugin.prepare.decoder import Decoder
from tests.data.test_image_headers import encoded, rotated
from tests.helpers.images import photograph


@pytest.fixture
def decoder():
    with Decoder() as entered:
        yield entered


PNG = cv2.imencode('.png', photograph(30, 40))[1].tobytes()
JPEG = cv2.imencode('.jpg', photograph(30, 40))[1].tobytes()


@pytest.mark.parametrize('content', [PNG, JPEG])
def test_valid_images(decoder, content):
    image = decoder.inspect(content)
    assert image.header == (30, 40, '')
    assert image.size == len(content)
    assert decoder.inspect(content) == image


def test_any_changed_byte_of_a_png_is_found(decoder):
    for place in range(len(PNG)):
        changed = bytearray(PNG)
        changed[place] ^= 0x10
        assert isinstance(decoder.inspect(bytes(changed)).header, str), place


def test_damaged_chunk_is_named(decoder):
    changed = bytearray(PNG)
    changed[len(PNG) // 2] ^= 1
    header = decoder.inspect(bytes(changed)).header
    assert header.startswith('is damaged')
    assert 'IDAT' in header


@pytest.mark.parametrize('lost', [1, 2, 10, 200])
def test_jpeg_cut_off(decoder, lost):
    assert decoder.inspect(JPEG[:-lost]).header == 'is cut off: the JPEG does not end'


def test_warnings_that_libjpeg_prints_are_captured():
    """Each byte near the end in turn becomes a marker that does not belong there."""
    captured = 0
    with Decoder() as decoder:  # here, because pytest swaps standard error between a fixture and its test
        for place in range(len(JPEG) - 60, len(JPEG) - 2):
            changed = bytearray(JPEG)
            changed[place] = 0xFF
            image = decoder.inspect(bytes(changed))
            if cv2.imdecode(np.frombuffer(changed, np.uint8), cv2.IMREAD_COLOR) is not None:
                captured += str(image.header).startswith('is damaged, although it can be decoded: Corrupt JPEG data')
            assert decoder.inspect(JPEG).header == (30, 40, '')
    assert captured > 5


def test_standard_error_is_silent_and_restored(capfd):
    with Decoder() as decoder:
        assert isinstance(decoder.inspect(PNG[:-12] + JPEG).header, str)
        assert isinstance(decoder.inspect(encoded(Image.fromarray(photograph(8, 8)), 'BMP')[:100]).header, str)
        decoder.terminal.write('bar')
        decoder.terminal.flush()
    os.write(2, b' after')
    assert capfd.readouterr().err == 'bar after'


def test_pixels_are_compared_not_files(decoder):
    image = photograph(30, 40)
    bmp = cv2.imencode('.bmp', image)[1].tobytes()
    assert decoder.inspect(bmp).pixels == decoder.inspect(PNG).pixels
    image[7, 9, 1] ^= 1
    other = decoder.inspect(cv2.imencode('.bmp', image)[1].tobytes())
    assert other.pixels != decoder.inspect(PNG).pixels
    wide = photograph(30, 40).reshape(20, 60, 3)  # the same bytes in another shape
    assert decoder.inspect(cv2.imencode('.bmp', wide)[1].tobytes()).pixels != decoder.inspect(PNG).pixels
    flat = np.full((8, 9, 3), (1, 2, 3), np.uint8)
    assert decoder.inspect(cv2.imencode('.png', flat)[1].tobytes()).pixels == b''


def test_size_is_as_decoded(decoder):
    assert decoder.inspect(rotated(6, 'JPEG')).header == (20, 12, 'rotated by its EXIF orientation 6')

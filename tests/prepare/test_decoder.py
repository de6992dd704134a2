import os

import cv2
import numpy as np
import pytest
from PIL import Image

from earn_plugin.prepare.decoder import Decoder
from tests.data.test_image_headers import encoded, turned
from tests.helpers.images import photograph


@pytest.fixture
def decoder():
    with Decoder() as entered:
        yield entered


PNG = cv2.imencode('.png', photograph(30, 40))[1].tobytes()
JPEG = cv2.imencode('.jpg', photograph(30, 40))[1].tobytes()


@pytest.mark.parametrize('content', [PNG, JPEG])
def test_sound_images(decoder, content):
    look = decoder.look_at(content)
    assert look.header == (30, 40, '')
    assert look.size == len(content)
    assert decoder.look_at(content) == look


def test_any_changed_byte_of_a_png_is_seen(decoder):
    for place in range(len(PNG)):
        changed = bytearray(PNG)
        changed[place] ^= 0x10
        assert isinstance(decoder.look_at(bytes(changed)).header, str), place


def test_where_a_png_is_damaged_is_told(decoder):
    changed = bytearray(PNG)
    changed[len(PNG) // 2] ^= 1
    assert decoder.look_at(bytes(changed)).header == 'is damaged: the checksum of its IDAT at byte 41 is wrong'


@pytest.mark.parametrize('lost', [1, 2, 10, 200])
def test_jpeg_cut_off(decoder, lost):
    assert decoder.look_at(JPEG[:-lost]).header == 'is cut off: the JPEG does not end'


def test_what_libjpeg_only_prints_is_caught():
    """Each byte of the end in turn made a marker that does not belong there."""
    told = 0
    with Decoder() as decoder:  # here, for pytest turns standard error about between a fixture and its test
        for place in range(len(JPEG) - 60, len(JPEG) - 2):
            changed = bytearray(JPEG)
            changed[place] = 0xFF
            look = decoder.look_at(bytes(changed))
            if cv2.imdecode(np.frombuffer(changed, np.uint8), cv2.IMREAD_COLOR) is not None:
                told += str(look.header).startswith('is damaged, though it can be decoded: Corrupt JPEG data')
            assert decoder.look_at(JPEG).header == (30, 40, '')
    assert told > 5


def test_nothing_reaches_standard_error_and_it_is_given_back(capfd):
    with Decoder() as decoder:
        assert isinstance(decoder.look_at(PNG[:-12] + JPEG).header, str)
        assert isinstance(decoder.look_at(encoded(Image.fromarray(photograph(8, 8)), 'BMP')[:100]).header, str)
        decoder.terminal.write('bar')
        decoder.terminal.flush()
    os.write(2, b' after')
    assert capfd.readouterr().err == 'bar after'


def test_pixels_are_compared_not_files(decoder):
    image = photograph(30, 40)
    bmp = cv2.imencode('.bmp', image)[1].tobytes()
    assert decoder.look_at(bmp).pixels == decoder.look_at(PNG).pixels
    image[7, 9, 1] ^= 1
    other = decoder.look_at(cv2.imencode('.bmp', image)[1].tobytes())
    assert other.pixels != decoder.look_at(PNG).pixels
    wide = photograph(30, 40).reshape(20, 60, 3)  # the same bytes in another shape
    assert decoder.look_at(cv2.imencode('.bmp', wide)[1].tobytes()).pixels != decoder.look_at(PNG).pixels
    flat = np.full((8, 9, 3), (1, 2, 3), np.uint8)
    assert decoder.look_at(cv2.imencode('.png', flat)[1].tobytes()).pixels == b''


def test_size_is_as_decoded(decoder):
    assert decoder.look_at(turned(6, 'JPEG')).header == (20, 12, 'turned by its EXIF orientation 6')

"""An image decoded in full, with the damage that decoders pass over or tell only on standard error."""

import hashlib
import io
import os
import tempfile
import threading
import zlib
from typing import NamedTuple

import cv2
import numpy as np

from earn_plugin.data.image_headers import PNG_SIGNATURE, Header, png_chunks, read_header

JPEG_SIGNATURE, JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
JPEG_COMPLAINTS = ('Corrupt JPEG data', 'Premature end of JPEG')


class Look(NamedTuple):
    """What an image is, or what is wrong with it; its pixels' hash, empty for one colour alone; its file."""

    header: Header | str
    pixels: bytes = b''
    size: int = 0
    sha256: str = ''


class Decoder:
    """Decodes as training does. While entered, it holds back what the decoders print to standard error.

    libjpeg fills what is damaged with what it can and only prints so; that is caught, and JPEGs go one by one so that
    it is known which. Other formats may be decoded by many threads at once.
    """

    def __enter__(self):
        self._printed = tempfile.TemporaryFile('a+b')
        self._stderr = os.dup(2)
        os.dup2(self._printed.fileno(), 2)
        self._one_jpeg = threading.Lock()
        self.terminal = os.fdopen(os.dup(self._stderr), 'w', encoding='utf-8', errors='replace')
        return self

    def __exit__(self, *exception):
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        self._printed.close()
        self.terminal.close()

    def look_at(self, content: bytes) -> Look:
        """Never raises for what is in the file."""
        try:
            header = read_header(io.BytesIO(content))
            if content.startswith(PNG_SIGNATURE):
                check_chunks(content)
            image = self._decode_jpeg(content) if content.startswith(JPEG_SIGNATURE) else decode(content)
            header, pixels = Header(*image.shape[:2], header.kind), hash_of(image)
        except ValueError as error:
            header, pixels = str(error), b''
        return Look(header, pixels, len(content), hashlib.sha256(content).hexdigest())

    def _decode_jpeg(self, content: bytes) -> np.ndarray:
        with self._one_jpeg:
            self._printed.truncate(0)
            try:
                image = decode(content)
            except ValueError:
                if not content.rstrip(b'\0').endswith(JPEG_END):
                    raise ValueError('is cut off: the JPEG does not end') from None
                raise
            self._printed.seek(0)
            for line in self._printed.read().decode(errors='replace').splitlines():
                if line.startswith(JPEG_COMPLAINTS):
                    raise ValueError(f'is damaged, though it can be decoded: {line}')
        return image


def decode(content: bytes) -> np.ndarray:
    """H×W×3, BGR, uint8, as BasicSR reads it.

    Raises:
        ValueError: cannot be decoded.
    """
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # larger than cv2 allows, and the like
        image = None
    if image is None:
        raise ValueError('cannot be decoded: it is damaged, or of a format that cv2 does not read')
    return image


def check_chunks(content: bytes) -> None:
    """Compare each chunk of a PNG with its checksum.

    Raises:
        ValueError: names the first that differs.
    """
    data = memoryview(content)
    for chunk in png_chunks(io.BytesIO(content)):
        end = chunk.start + chunk.length
        if zlib.crc32(data[chunk.start - 4 : end]) != int.from_bytes(data[end : end + 4], 'big'):
            name = chunk.name.decode('ascii', 'backslashreplace')
            raise ValueError(f'is damaged: the checksum of its {name} at byte {chunk.start} is wrong')


def hash_of(image: np.ndarray) -> bytes:
    """The same for the same pixels; empty for an image of one colour, which says nothing of where it is from."""
    if (image == image[:1, :1]).all():
        return b''
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16, salt=b'%dx%d' % image.shape[:2]).digest()

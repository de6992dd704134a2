"""An image decoded in full, with the damage that decoders ignore or only print to standard error."""

import hashlib
import io
import os
import tempfile
import threading
from typing import NamedTuple

import cv2
import numpy as np

from earn_plugin.data.image_files import decode
from earn_plugin.data.image_headers import Header, read_header

JPEG_SIGNATURE, JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
JPEG_WARNINGS = ('Corrupt JPEG data', 'Premature end of JPEG')


class Inspection(NamedTuple):
    """An image's header, or what is wrong; its pixels' hash, empty if all are equal; its file's size and hash."""

    header: Header | str
    pixels: bytes = b''
    size: int = 0
    sha256: str = ''


class Decoder:
    """Decodes as training does. While entered, it captures what the decoders print to standard error.

    libjpeg only prints a warning about damage and fills in pixels. The warnings are captured, and JPEGs are decoded one
    at a time to know which image a warning is about. Other formats may be decoded by many threads at once.
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

    def inspect(self, content: bytes) -> Inspection:
        """Never raises for what is in the file."""
        try:
            header = read_header(io.BytesIO(content), verify=True)
            if content.startswith(JPEG_SIGNATURE):
                image = self._decode_jpeg(content)
            else:
                image = decode(content, cv2.IMREAD_COLOR)  # as BasicSR reads it
            header, pixels = Header(*image.shape[:2], header.kind), hash_of(image)
        except ValueError as error:
            header, pixels = str(error), b''
        return Inspection(header, pixels, len(content), hashlib.sha256(content).hexdigest())

    def _decode_jpeg(self, content: bytes) -> np.ndarray:
        with self._one_jpeg:
            self._printed.truncate(0)
            try:
                image = decode(content, cv2.IMREAD_COLOR)
            except ValueError:
                if not content.rstrip(b'\0').endswith(JPEG_END):
                    raise ValueError('is cut off: the JPEG does not end') from None
                raise
            self._printed.seek(0)
            for line in self._printed.read().decode(errors='replace').splitlines():
                if line.startswith(JPEG_WARNINGS):
                    raise ValueError(f'is damaged, although it can be decoded: {line}')
        return image


def hash_of(image: np.ndarray) -> bytes:
    """Equal for equal pixels; empty for an image of one colour, which says nothing about its origin."""
    if (image == image[:1, :1]).all():
        return b''
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16, salt=b'%dx%d' % image.shape[:2]).digest()

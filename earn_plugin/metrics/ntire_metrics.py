"""NTIRE's metrics, computed by BasicSR's: HR cropped to a multiple of 4, a border of 4, RGB or, for quality, Y."""

from typing import Any

import numpy as np
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils.registry import METRIC_REGISTRY

from earn_plugin.data.bicubic import crop_to_multiple

SCALE = BORDER = 4
TRACKS = ('efficient', 'quality')


def by_track(metric, img: np.ndarray, img2: np.ndarray, track: str) -> float:
    if track not in TRACKS:
        raise ValueError(f'track must be one of {", ".join(TRACKS)}, got {track!r}')
    img, img2 = crop_to_multiple(img, SCALE), crop_to_multiple(img2, SCALE)
    return float(metric(img, img2, crop_border=BORDER, test_y_channel=track == 'quality'))


@METRIC_REGISTRY.register()
def calculate_ntire_psnr(img: np.ndarray, img2: np.ndarray, track: str = 'efficient', **kwargs: Any) -> float:
    """PSNR in dB, in float64, as measured by NTIRE: BasicSR's with crop_border 4 and, for the quality track, on Y.

    Args:
        img, img2: the ×4 result and HR, H×W×3, BGR, uint8 or float in [0, 255].
        track: 'efficient' measures all channels, 'quality' Y.

    Raises:
        ValueError: an unknown track.
        AssertionError: the sizes differ.
    """
    return by_track(calculate_psnr, img, img2, track)


@METRIC_REGISTRY.register()
def calculate_ntire_ssim(img: np.ndarray, img2: np.ndarray, track: str = 'efficient', **kwargs: Any) -> float:
    """SSIM with an 11×11 Gaussian window, averaged over the channels; arguments as ``calculate_ntire_psnr``."""
    return by_track(calculate_ssim, img, img2, track)

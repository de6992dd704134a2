"""What figures and JSON say about the readings of attentions, in numbers."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from earn_plugin.figures.attention_maps import Reading

AT_IMAGE_SIZE = ('mask', 'pixel_attention', 'gate', 'channel_spatial_attention')  # kinds with one value a pixel
SIGMA = 1.2  # pixels, of the Gaussian that separates high from low frequencies
FREQUENCIES = ('high', 'low')


def entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy of the weights of each pixel's window, k²×H×W → H×W: 0 for a single pixel, 1 for equal weights."""
    logarithms = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return -(weights * logarithms).sum(0) / max(np.log(len(weights)), 1)


def mean_window(weights: np.ndarray) -> np.ndarray:
    """Mean of the weights over all pixels, k²×H×W → k×k."""
    side = math.isqrt(len(weights))
    return weights.mean((1, 2)).reshape(side, side)


def frequencies(luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The strength of high frequencies, |Y − Gauss(Y)|, and the low frequencies, Gauss(Y): H×W each."""
    low = gaussian_filter(luma, SIGMA)
    return np.abs(luma - low), low


def frequency_correlations(readings: Sequence[Reading], luma: np.ndarray) -> dict[str, np.ndarray]:
    """Spearman's correlation of each map with the image's high and low frequencies, for each kind of map.

    Args:
        luma: the image, H×W.

    Returns:
        By kind: 2×blocks, in the order of FREQUENCIES; NaN where a map or the image is constant.
    """
    parts, found = frequencies(luma.astype(np.float64)), defaultdict(list)
    for reading in readings:
        if reading.kind in AT_IMAGE_SIZE:
            found[reading.kind].append([_spearman(reading.values, part) for part in parts])
    return {kind: np.array(values).T for kind, values in found.items()}


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float('nan') if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a.ravel(), b.ravel())[0])


def by_kind(readings: Sequence[Reading]) -> dict[str, list[Reading]]:
    """The readings of each kind, in the order of the blocks."""
    found = defaultdict(list)
    for reading in sorted(readings, key=lambda reading: (reading.block, reading.call)):
        found[reading.kind].append(reading)
    return dict(found)


def stacked(images: Sequence[Sequence[Reading]], kind: str) -> np.ndarray:
    """The values of a kind, whose shape does not depend on the image: images×blocks×…"""
    return np.stack([[reading.values for reading in by_kind(readings)[kind]] for readings in images])


def numbers_of(readings: Sequence[Reading], correlations: dict[str, np.ndarray]) -> dict[str, Any]:
    """The readings of an image as plain data, of local attention the entropy and the mean window."""
    found: dict[str, Any] = {'attention': {}, 'frequencies': {}}
    for kind, of_kind in by_kind(readings).items():
        entries = found['attention'][kind] = []
        for reading in of_kind:
            values = {'values': reading.values}
            if kind == 'local_attention':
                values = {'entropy': entropy(reading.values), 'mean': mean_window(reading.values)}
            values = {name: _plain(array) for name, array in values.items()}
            entries.append({'block': reading.block, 'call': reading.call, **values})
    for kind, values in correlations.items():
        found['frequencies'][kind] = dict(zip(FREQUENCIES, _plain(values), strict=True))
    return found


def _plain(values: np.ndarray) -> Any:
    """Nested lists with five significant digits; None for what is not finite."""
    if values.ndim:
        return [_plain(value) for value in values]
    return float(f'{values:.5g}') if np.isfinite(values) else None

"""MATLAB's antialiased bicubic ``imresize``, byte for byte: it made the LR images of the benchmarks.

BasicSR's ``imresize`` computes in float throughout and differs in a tenth of the values. To get the same bytes, the
height is resized first, and a uint8 image is rounded (halves up) and clipped after each of the two axes.
"""

import functools
from fractions import Fraction

import numpy as np

BORDERS = ('replicate', 'symmetric')
CACHED = 2**19  # bytes of float64 sums at a time; measured: 2**18 to 2**20 are equally fast


def cubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel with a = −0.5 (Keys 1981), zero beyond ±2."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x**2 + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


@functools.lru_cache(64)
def taps(length: int, scale: Fraction, border: str) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights for every output pixel of an axis: two arrays of ceil(length·scale) × taps."""
    out_length = -(-length * scale.numerator // scale.denominator)
    widening = float(min(scale, 1))  # shrinking needs a wider kernel against aliasing
    count = int(np.ceil(4 / widening)) + 2
    centre = (np.arange(out_length) + 0.5) / float(scale) - 0.5
    index = np.floor(centre - 2 / widening)[:, None] + np.arange(count)
    weight = widening * cubic(widening * (centre[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    index = index.astype(np.int64)
    if border == 'replicate':
        index = index.clip(0, length - 1)
    else:
        index = index % (2 * length)
        index = np.where(index < length, index, 2 * length - 1 - index)
    used = np.flatnonzero(weight.any(axis=0))
    index, weight = (array[:, used[0] : used[-1] + 1] for array in (index, weight))
    for array in (index, weight):
        array.flags.writeable = False  # the cache returns it again
    return index, weight


def fraction_of(scale: Fraction | float, border: str) -> Fraction:
    """The exact fraction of a scale: 1/3 for 0.333…

    Raises:
        ValueError: the scale is not above 0, or the border is unknown.
    """
    if border not in BORDERS:
        raise ValueError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    fraction = Fraction(scale).limit_denominator(10_000) if 0 < scale < float('inf') else 0
    if not fraction:
        raise ValueError(f'scale must be above 0 and finite, got {scale}')
    return fraction


def imresize(
    image: np.ndarray,
    scale: Fraction | float,
    border: str = 'replicate',
    part: tuple[slice, slice] = (slice(None), slice(None)),
) -> np.ndarray:
    """Resize an image as MATLAB's ``imresize(image, scale, 'bicubic')`` does.

    Args:
        image: H×W or H×W×C, uint8 or float.
        scale: below 1 to shrink, above 1 to enlarge; 0.333… is taken as 1/3.
        border: 'replicate' (the LR files of RCAN and SelfExSR) or 'symmetric' (those of the EDSR benchmark).
        part: the rows and columns of the result to compute, all by default; they equal the full result's bit for bit.

    Returns:
        ceil(H·scale) × ceil(W·scale) of the same type; uint8 is rounded, float is not.

    Raises:
        ValueError: the scale is not above 0, the border is unknown, or the image is empty or has another type.
    """
    fraction = fraction_of(scale, border)
    if image.ndim not in (2, 3) or not image.size:
        raise ValueError(f'image must be H×W or H×W×C and not empty, got shape {image.shape}')
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f'image must be uint8 or float, got {image.dtype}; scale the values to one of them first')
    filters = [
        tuple(array[wanted] for array in taps(length, fraction, border))
        for length, wanted in zip(image.shape[:2], part, strict=True)
    ]
    rows, columns = (slice(index.min(), index.max() + 1) for index, _ in filters)
    result = image[rows, columns]
    if image.dtype != np.uint8:
        result = result.astype(np.float64)
    for index, weight in filters:
        filtered = _filter(result.reshape(len(result), -1), index - index.min(), weight)
        result = filtered.reshape(len(index), *result.shape[1:]).swapaxes(0, 1)  # so that the other axis is next
    return np.ascontiguousarray(result, dtype=image.dtype)


def _filter(lines: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sums of the lines of a matrix, from the first tap to the last: the order decides how a half is rounded.

    They are computed in blocks that fit into the processor's cache.
    """
    result = np.empty((len(index), lines.shape[1]), lines.dtype)
    step = max(1, CACHED // (8 * lines.shape[1]))
    for start in range(0, len(index), step):
        block = slice(start, start + step)
        first = index[block].min()
        source = lines[first : index[block].max() + 1].astype(np.float64)
        summed = np.zeros((len(index[block]), lines.shape[1]))
        for tap in range(index.shape[1]):
            term = source[index[block, tap] - first]
            term *= weight[block, tap, None]
            summed += term
        if lines.dtype == np.uint8:
            summed = np.floor(summed + 0.5).clip(0, 255)
        result[block] = summed
    return result


def crop_to_multiple(image: np.ndarray, scale: int) -> np.ndarray:
    """Crop an image, H×W[×C], at the bottom and the right to a height and width that are multiples of ``scale``."""
    height, width = (length - length % scale for length in image.shape[:2])
    return image[:height, :width]

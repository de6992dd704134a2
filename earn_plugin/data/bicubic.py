"""MATLAB's antialiased bicubic ``imresize``, byte for byte: the way the LR images of the benchmarks were made.

BasicSR's ``imresize`` works in float throughout and differs in a tenth of the values. Facts that make the bytes come
out: the height goes first, and a uint8 image is rounded (halves up) and clipped after each of the two axes.
"""

from fractions import Fraction

import numpy as np

BORDERS = ('replicate', 'symmetric')


def cubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel with a = −0.5 (Keys 1981), zero beyond ±2."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x**2 + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


def taps(length: int, scale: Fraction, border: str) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights of every output pixel of an axis: two arrays of ceil(length·scale) × taps."""
    out_length = -(-length * scale.numerator // scale.denominator)
    widening = float(min(scale, 1))  # a smaller image needs a wider kernel, so that nothing aliases
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
    return index, weight


def imresize(image: np.ndarray, scale: Fraction | float, border: str = 'replicate') -> np.ndarray:
    """Resize an image as MATLAB's ``imresize(image, scale, 'bicubic')`` does.

    Args:
        image: H×W or H×W×C, uint8 or float.
        scale: below 1 to shrink, above 1 to enlarge; 1/3 and the like are taken as the fractions they mean.
        border: 'replicate' (the LR files of RCAN and SelfExSR) or 'symmetric' (those of the EDSR benchmark).

    Returns:
        ceil(H·scale) × ceil(W·scale) of the same type; uint8 is rounded, float is not.

    Raises:
        ValueError: a scale that is not above 0, another border, an image that is empty or of another type.
    """
    if border not in BORDERS:
        raise ValueError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    if not scale > 0:
        raise ValueError(f'scale must be above 0, got {scale}')
    if image.ndim not in (2, 3) or not image.size:
        raise ValueError(f'image must be H×W or H×W×C and not empty, got shape {image.shape}')
    is_uint8 = image.dtype == np.uint8
    if not is_uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f'image must be uint8 or float, got {image.dtype}; scale the values to one of them first')
    fraction = Fraction(scale).limit_denominator(10_000)
    result = image.astype(np.float64)
    for axis in (0, 1):
        index, weight = taps(image.shape[axis], fraction, border)
        source = np.moveaxis(result, axis, 0)
        shape = (-1,) + (1,) * (source.ndim - 1)
        summed = np.zeros((len(index), *source.shape[1:]))
        for tap in range(index.shape[1]):
            summed += weight[:, tap].reshape(shape) * source[index[:, tap]]
        if is_uint8:
            summed = np.floor(summed + 0.5).clip(0, 255)
        result = np.moveaxis(summed, 0, axis)
    return np.ascontiguousarray(result, dtype=image.dtype)


def crop_to_multiple(image: np.ndarray, scale: int) -> np.ndarray:
    """Cut the bottom and the right of an image, H×W[×C], so that ``scale`` divides its height and width."""
    height, width = (length - length % scale for length in image.shape[:2])
    return image[:height, :width]

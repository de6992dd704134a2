"""MATLAB's bicubic imresize in exact arithmetic, pixel by pixel: the reference for the fast forms."""

from fractions import Fraction

import numpy as np


def kernel(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x <= 2 else Fraction(0)


def contributions(length: int, scale: Fraction, border: str) -> list[list[tuple[int, Fraction]]]:
    """For every output pixel of an axis, the source pixels and their weights. Indices start at 1, as in MATLAB."""
    width = Fraction(4) / min(scale, 1)
    mirrored = [*range(1, length + 1), *range(length, 0, -1)]
    result = []
    for x in range(1, -int(-length * scale // 1) + 1):
        u = x / scale + (1 - 1 / scale) / 2
        left = (u - width / 2) // 1
        indices = [left + i for i in range(-int(-width // 1) + 2)]
        weights = [min(scale, 1) * kernel(min(scale, 1) * (u - index)) for index in indices]
        if border == 'replicate':
            sources = [min(max(index, 1), length) for index in indices]
        else:
            sources = [mirrored[(index - 1) % len(mirrored)] for index in indices]
        result.append([(source - 1, w / sum(weights)) for source, w in zip(sources, weights, strict=True) if w])
    return result


def slow_resize(image: np.ndarray, scale: Fraction, border: str) -> tuple[np.ndarray, bool]:
    """H×W, uint8 or float; and whether all pixels are certain.

    A pixel is not certain if its exact sum is a half and its weights are not binary fractions: then MATLAB's rounding
    errors decide, and they depend on the order of the sum.
    """
    scale, is_uint8, certain = Fraction(scale), image.dtype == np.uint8, True
    lines = [[Fraction(value) for value in line] for line in image.tolist()]
    for _ in range(2):
        height, resized = len(lines), []
        for pixels in contributions(height, scale, border):
            line = [sum(weight * lines[source][j] for source, weight in pixels) for j in range(len(lines[0]))]
            if is_uint8:
                binary = all(w.denominator & (w.denominator - 1) == 0 for _, w in pixels)
                certain &= binary or not any((value - Fraction(1, 2)).denominator == 1 for value in line)
                line = [min(max((value + Fraction(1, 2)) // 1, 0), 255) for value in line]
            resized.append(line)
        lines = [list(column) for column in zip(*resized, strict=True)]
    return np.array([[float(value) for value in line] for line in lines]).astype(image.dtype), certain

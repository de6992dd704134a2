"""The region of an image that a comparison enlarges: given, or where the results differ most."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

SMALLEST, SHARE = 48, 10  # pixels of a chosen region's side; the image's side divided by it


class Region(NamedTuple):
    """A rectangle of an image, in its pixels; ``x`` and ``y`` are the left and upper edge."""

    x: int
    y: int
    width: int
    height: int

    @property
    def part(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def usual_size(height: int, width: int) -> tuple[int, int]:
    """Width and height of a region for an image: a square with a tenth of its side, at least 48 pixels if they fit."""
    side = max(SMALLEST, math.isqrt(height * width) // SHARE)
    side = max(1, min(side, min(height, width) // 2))
    return side, side


def choose_region(target: np.ndarray, results: Iterable[np.ndarray], size: tuple[int, int], border: int = 0) -> Region:
    """The region in which the errors of the results differ most, the first of equals.

    The error of a result in a region is the sum of its squared differences from the target. Regions are compared by the
    largest error less the smallest; if that is zero everywhere, as for a single result, by the largest. If there is no
    error either, it is the region in the middle.

    Args:
        target: H×W×C, uint8.
        results: of the same shape.
        size: width and height of the region, at most those of the image.
        border: pixels at each edge that the region does not reach into, if the image is large enough.
    """
    (width, height), (rows, columns) = size, target.shape[:2]
    border = max(0, min(border, (rows - height) // 2, (columns - width) // 2))
    inside = slice(border, rows - border), slice(border, columns - border)
    target = target[inside].astype(np.int32)
    largest = smallest = None
    for result in results:
        error = window_sums(((result[inside] - target) ** 2).sum(2), height, width)
        largest = error if largest is None else np.maximum(largest, error)
        smallest = error if smallest is None else np.minimum(smallest, error)
    for merit in (largest - smallest, largest):
        if merit.any():
            y, x = np.unravel_index(merit.argmax(), merit.shape)
            return Region(int(x) + border, int(y) + border, width, height)
    return Region((columns - width) // 2, (rows - height) // 2, width, height)


def window_sums(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """The sum over each window of an array of integers: H×W → (H − height + 1)×(W − width + 1)."""
    sums = np.pad(values.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]

"""Geometric self-ensemble: the mean of a network's results for the 8 flips and transpositions of an image.

Timofte et al., "Seven ways to improve example-based single image super resolution", CVPR 2016; papers mark results
with it by a plus, such as EDSR+.
"""

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earn_plugin.inference.tiles import TiledNetwork

TRANSFORMS = [(axes, swaps) for swaps in (False, True) for axes in ((), (-2,), (-1,), (-2, -1))]
IN_MEMORY = 256 * 2**20  # bytes of a sum; a larger one is kept in a temporary file
BAND = 256  # rows of a part


def transform(image: Any, axes: tuple[int, ...], swaps: bool) -> Any:
    """Flip an image, …×H×W, along axes, and then swap height and width; a view of a NumPy array."""
    image = image.flip(axes) if isinstance(image, Tensor) else np.flip(image, axes)
    return image.swapaxes(-2, -1) if swaps else image


def transform_back(image: Tensor, axes: tuple[int, ...], swaps: bool) -> Tensor:
    return (image.swapaxes(-2, -1) if swaps else image).flip(axes)


class SelfEnsemble(nn.Module):
    """A network's self-ensemble, N×C×H×W → N×C×sH×sW in float32 at least; takes 8 times as long as the network."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        total = 0
        for change in TRANSFORMS:
            output = transform_back(self.network(transform(x, *change).contiguous()), *change)
            total = total + (output if output.dtype == torch.float64 else output.float())
        return total / len(TRANSFORMS)


class EnsembledNetwork:
    """The self-ensemble of a network that returns its result in parts; used like a ``TiledNetwork``.

    All parts of the 8 results are added up, in float32 and in a fixed order, before the first part of the mean is
    known. A sum of more than 256 MB is kept in a file in the system's temporary folder (``TMPDIR``).
    """

    def __init__(self, tiled: TiledNetwork):
        self.tiled, self.scale, self.network = tiled, tiled.scale, tiled.network

    def describe(self, image: Tensor) -> str:
        return f'{self.tiled.describe(image)}, self-ensemble'

    def parts(self, image: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """As ``TiledNetwork.parts``, in bands of rows.

        Raises:
            OSError: the temporary folder has no space for the sum.
        """
        total = None
        for change in TRANSFORMS:
            for top, left, part in self.tiled.parts(transform(image, *change).contiguous()):
                if total is None:  # now that the number of channels is known
                    height, width = (side * self.scale for side in image.shape[-2:])
                    total = zeros((1, part.shape[1], height, width))
                place = slice(top, top + part.shape[-2]), slice(left, left + part.shape[-1])
                transform(total, *change)[(..., *place)] += part.numpy()
        for top in range(0, total.shape[-2], BAND):
            yield top, 0, torch.from_numpy(total[..., top : top + BAND, :] / len(TRANSFORMS))


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array, which is in a temporary file if it is large."""
    size = 4 * int(np.prod(shape))
    if size <= IN_MEMORY:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        # reserves the space: without it a full disk would end the process by a signal, at any later moment
        allocate = getattr(os, 'posix_fallocate', lambda number, _, end: os.truncate(number, end))
        allocate(file.fileno(), 0, size)
        return np.memmap(file, np.float32, 'r+', shape=shape)

"""Runs a network on an image of any size."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class TiledNetwork:
    """A network that takes an image of any size; returns the result in parts, so that it need not fit in memory.

    Args:
        network: in evaluation mode.
        scale: s.
        tile: side of the tiles in pixels of the input; 0 for the whole image at once, None for what fits in memory.
        approximate: allow tiles whose result differs from that of the whole image.
        device, dtype: what the network computes with.
    """

    def __init__(
        self,
        network: nn.Module,
        scale: int,
        *,
        tile: int | None = None,
        approximate: bool = False,
        device: torch.device | str = 'cpu',
        dtype: torch.dtype = torch.float32,
    ):
        self.network, self.scale, self.tile, self.approximate = network.to(device, dtype), scale, tile, approximate
        self.device, self.dtype = torch.device(device), dtype

    def describe(self, height: int, width: int) -> str:
        """What happens to an image of that size: 'whole image', 'exact (overlap 84)', …"""
        return 'whole image'

    def parts(self, image: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """The result for an image, 1×C×H×W in [0, 1] on the CPU, part by part.

        Yields:
            Top row, left column, and 1×C×h×w in float32 on the CPU, not clamped. The parts cover the result once.
        """
        with torch.inference_mode():
            yield 0, 0, self.network(image.to(self.device, self.dtype)).float().cpu()

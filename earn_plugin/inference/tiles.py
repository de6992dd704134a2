"""Runs a network on an image of any size, in tiles that equal the whole image."""

import logging
import math
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from earn_plugin.errors import UserError
from earn_plugin.inference.layout import faster_layout
from earn_plugin.inference.onnx_network import OnnxNetwork
from earn_plugin.inference.parts import PartRunner, Result, checked_size, is_out_of_memory, on_cpu
from earn_plugin.inference.reach import Reach, measure_reach
from earn_plugin.measure.memory import available_bytes, peak_bytes
from earn_plugin.protocols import HasReach, RunsByParts

WORKING_MEMORY = 3 * 2**28  # bytes of a tile, unless less is free
SMALL = 128**2  # pixels of an image whose memory need not be measured
APPROXIMATE_OVERLAP = 32  # LGVAN's largest difference is 0.01/255
LARGEST_WINDOW = 16  # of the usual attention in windows, where tiles had better start
PARTS_TILE = 128  # of the result of a network that runs by parts: few pixels around a tile are computed twice
PROBE = 48  # side, in pixels
LARGE_PROBE = 192  # of one that shows what bands within a network save


class Plan(NamedTuple):
    """How an image is processed: 'whole', in tiles that are 'exact' or 'approximate', or in 'parts'."""

    way: str
    tile: int = 0  # side, in pixels of the input
    overlap: int = 0
    alignment: int = 1


class TiledNetwork:
    """A network that takes an image of any size; returns the result in parts, so that it need not fit in memory.

    Tiles overlap by the network's reach, and so equal the whole image. What a network computes from the entire image it
    computes first (``protocols.RunsByParts``). For networks that state no reach it is measured; where that is too
    large, tiles are approximate.

    Args:
        network: in evaluation mode.
        scale: s.
        channels: of the image.
        tile: side of the tiles in pixels of the input; 0 for the whole image at once, None for what fits in memory.
        approximate: overlap by 32 pixels, whatever the reach, and compute everything from the tile alone.
        device, dtype: what the network computes with.
    """

    def __init__(
        self,
        network: nn.Module,
        scale: int,
        *,
        channels: int = 3,
        tile: int | None = None,
        approximate: bool = False,
        device: torch.device | str = 'cpu',
        dtype: torch.dtype = torch.float32,
    ):
        self.network, self.scale, self.channels = faster_layout(network.to(device, dtype)), scale, channels
        self.tile, self.approximate = tile, approximate
        self.device, self.dtype = torch.device(device), dtype
        self._difference: float | None = None  # on the first image
        self._measured: dict[int, float] = {}
        self._too_large = math.inf  # pixels of an image that did not fit

    def describe(self, image: Tensor) -> str:
        """What ``parts`` does with an image: 'whole image', 'exact (overlap 84)', …"""
        plan = self.plan(*image.shape[2:])
        if plan.way == 'approximate':
            if self._difference is None:
                self._difference = self._difference_on_probe(image)
            return f'approximate (overlap {plan.overlap}): largest difference {self._difference:.2g}/255 on a probe'
        exact = f'exact (overlap {plan.overlap})'
        return {'whole': 'whole image', 'exact': exact, 'parts': 'exact (global statistics first)'}[plan.way]

    def parts(self, image: Tensor) -> Iterator[Result]:
        """The result for an image, 1×C×H×W in [0, 1], part by part.

        Yields:
            Top row, left column, and 1×C×h×w in float32 on the CPU, not clamped. The parts cover the result once.

        Raises:
            UserError: there is not enough memory for the smallest tile.
        """
        yield from self._run(self.plan(*image.shape[2:]), image)

    def __call__(self, image: Tensor) -> Tensor:
        """The parts put together: 1×C×sH×sW."""
        return self._assembled(self.plan(*image.shape[2:]), image)

    @torch.inference_mode()
    def _run(self, plan: Plan, image: Tensor) -> Iterator[Result]:
        image = image.to(self.device, self.dtype)
        if plan.way == 'whole':
            if (whole := self._whole(image)) is not None:
                yield 0, 0, whole
                return
            plan = self.plan(*image.shape[2:])
            logging.getLogger('earn_plugin').warning('too little memory for the whole image: %s', self.describe(image))
        settings = {'smallest': 1} if plan.way == 'approximate' else {}
        runner = PartRunner(self.device, self.scale, plan.tile, self.tile, **settings)
        if plan.way == 'parts':
            yield from self.network.by_parts(image, runner)
        else:
            yield from runner.output(self.network, image, reach=plan.overlap, alignment=plan.alignment)

    def _whole(self, image: Tensor) -> Tensor | None:
        """The result for the whole image; None if memory runs out, which is then planned for."""
        try:
            return on_cpu(checked_size(self.network(image), image, self.scale))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if self.tile == 0:
            raise UserError('not enough memory for the whole picture: leave out --tile 0, or use another --device')
        self._too_large = image.shape[2:].numel()
        return None

    def plan(self, height: int, width: int) -> Plan:
        """How an image of that size is processed."""
        fits = self._fits(height * width) if self.tile is None else not 0 < self.tile < max(height, width)
        if self.tile == 0 or (fits and height * width < self._too_large):
            return Plan('whole')
        if self.approximate:
            return self._approximate
        if isinstance(self.network, RunsByParts):
            needed = self._map_bytes * height * width
            return Plan('parts', self.tile or PARTS_TILE) if needed < 0.7 * self._available else self._approximate
        if self.reach is None:
            return self._approximate
        return Plan('exact', self.tile or self._tile_around(self.reach.pixels), *self.reach)

    @cached_property
    def reach(self) -> Reach | None:
        """The reach that the network states, or that is measured; None where it is too large."""
        if isinstance(self.network, HasReach):
            return Reach(self.network.reach, self.network.alignment)
        return measure_reach(self.network, self.channels, self.scale)

    @property
    def _approximate(self) -> Plan:
        overlap, alignment = APPROXIMATE_OVERLAP, self.reach.alignment if self.reach else LARGEST_WINDOW
        if self.reach and not isinstance(self.network, RunsByParts):
            overlap = min(overlap, self.reach.pixels)
        return Plan('approximate', self.tile or self._tile_around(overlap), overlap, alignment)

    @torch.inference_mode()
    def _difference_on_probe(self, image: Tensor) -> float:
        """Largest difference, in 255ths, that tiles make in the middle of an image."""
        plan = self._approximate
        tile = min(plan.tile, 2 * PROBE)
        side = tile + max(tile, 2 * plan.overlap)  # more than any tile sees
        top, left = (max(0, (size - side) // 2) for size in image.shape[2:])
        window = image[:, :, top : top + side, left : left + side]
        whole = self.network(window.to(self.device, self.dtype)).float().cpu()
        return 255 * float((self._assembled(plan._replace(tile=tile), window) - whole).abs().max())

    def _assembled(self, plan: Plan, image: Tensor) -> Tensor:
        whole = None
        for top, left, part in self._run(plan, image):
            if whole is None:
                height, width = (self.scale * size for size in image.shape[2:])
                whole = part.new_empty(1, part.shape[1], height, width)
            whole[:, :, top : top + part.shape[2], left : left + part.shape[3]] = part
        return whole

    def _fits(self, pixels: int) -> bool:
        if pixels <= SMALL or pixels * self._pixel_bytes(PROBE) <= self._memory:
            return True
        return not isinstance(self.network, RunsByParts) and pixels * self._pixel_bytes(LARGE_PROBE) <= self._memory

    def _tile_around(self, overlap: int) -> int:
        side = math.isqrt(int(self._memory / self._pixel_bytes(LARGE_PROBE))) - 2 * overlap
        return max(side, math.isqrt(SMALL) // 2)

    @cached_property
    def _available(self) -> int:
        return available_bytes(self.device)

    @property
    def _memory(self) -> int:
        """Bytes that a tile may take."""
        return self._available // 2 if self.device.type == 'cuda' else min(WORKING_MEMORY, self._available // 4)

    def _pixel_bytes(self, side: int) -> float:
        """Bytes that the network takes at most, for each pixel of an image of that side."""
        if isinstance(self.network, OnnxNetwork):  # torch does not see what onnxruntime takes
            return self.network.pixel_bytes
        if side not in self._measured:
            probe = torch.zeros(1, self.channels, side, side, device=self.device, dtype=self.dtype)
            try:
                with torch.inference_mode():
                    self._measured[side] = peak_bytes(lambda: self.network(probe)) / side**2
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._measured[side] = math.inf
        return self._measured[side]

    @cached_property
    @torch.inference_mode()
    def _map_bytes(self) -> float:
        """Bytes that a network that runs by parts keeps, for each pixel of an image."""

        def peak(height: int) -> int:
            probe = torch.zeros(1, self.channels, height, PROBE, device=self.device, dtype=self.dtype)
            runner = PartRunner(self.device, self.scale, tile=8, rows=8, smallest=1)
            return peak_bytes(lambda: deque(self.network.by_parts(probe, runner), maxlen=0))

        return (peak(2 * PROBE) - peak(PROBE)) / PROBE**2

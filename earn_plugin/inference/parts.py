"""Runs the local parts of a network on a large image band by band or tile by tile, with what they see around."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from earn_plugin.errors import UserError

Part = Callable[..., Tensor]
Result = tuple[int, int, Tensor]  # top row and left column of the result, 1×C×h×w

# torch computes convs with fewer than 20,480 input values by another kernel, which rounds differently. So no window is
# smaller than that, for a layer of a single channel.
SMALLEST_AREA = 144**2
# what torch, C++ and oneDNN, on a CPU, say where memory runs out
OUT_OF_MEMORY = ("can't allocate memory", 'bad_alloc', 'could not create a primitive')
CONV_MEMORY = 8  # of a part in work, in maps as wide as its inputs


def ranges(length: int, most: int, alignment: int = 1) -> list[tuple[int, int]]:
    """Equal parts of a length: start and end of each, at most about ``most`` long, each start divisible."""
    count = max(1, -(-length // max(most, alignment)))
    starts = [round(length * i / count / alignment) * alignment for i in range(count)]
    starts = sorted({start for start in starts if start < length})
    return list(zip(starts, [*starts[1:], length], strict=True))


def rounded_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
    )


def checked_size(out: Tensor, image: Tensor, scale: int) -> Tensor:
    """The network's result for an image; raises UserError unless its sides are ``scale`` times those of the image."""
    sizes = [tuple(x.shape[2:]) for x in (image, out)]
    if sizes[1] != tuple(scale * side for side in sizes[0]):
        (height, width), found = sizes[0], '×'.join(map(str, sizes[1]))
        raise UserError(f'the network turns {height}×{width} pixels into {found}, not {height * scale}×{width * scale}')
    return out


def on_cpu(out: Tensor) -> Tensor:
    """A result in float32 at least, on the CPU."""
    return (out.float() if out.element_size() == 2 else out).cpu()


class PartRunner:
    """Runs parts of a network on maps: tensors 1×C×H×W of the height and width of the image.

    Each part is run on windows that are larger than its result by the part's reach, so the result is that of the whole
    map, to the bit where the machine computes the same sums in the same order. Where memory runs out, the window is
    halved.

    Args:
        device: where the parts are run; the maps stay where they are.
        scale: of the network's result.
        tile: side of the tiles of the result, in pixels of the input.
        rows: of a band; None for what ``memory`` allows.
        memory: bytes that a part may take.
        smallest: pixels of a window; smaller ones are enlarged where the map allows.
    """

    def __init__(
        self,
        device: torch.device,
        scale: int,
        tile: int = 128,
        rows: int | None = None,
        memory: int = 2**28,
        smallest: int = SMALLEST_AREA,
    ):
        self.device, self.scale, self.tile, self.rows = device, scale, tile, rows
        self.memory, self.smallest = memory, smallest

    def map(self, part: Part, *maps: Tensor, reach: int = 0, alignment: int = 1) -> Tensor:
        """A new map: the part's result for all of the maps.

        Args:
            part: any function that keeps height and width.
            reach: pixels around a pixel that its result depends on.
            alignment: a window must start at a multiple of it.
        """
        return self._fill(None, part, maps, reach, alignment)

    def update(self, part: Part, *maps: Tensor, reach: int = 0, alignment: int = 1) -> Tensor:
        """The same in place of the first map."""
        return self._fill(maps[0], part, maps, reach, alignment)

    def mean(self, part: Part, features: Tensor) -> Tensor:
        """``spatial_mean`` of a pixelwise part's result for the entire map: 1×C."""
        total = 0
        for _, _, out in self._bands(part, (features,), 0, 1):
            total = total + out.sum((2, 3), dtype=torch.float64)
        return (total / features.shape[2:].numel()).to(features.dtype)

    def output(self, part: Part, *maps: Tensor, reach: int, alignment: int = 1) -> Iterator[Result]:
        """The network's result, tile by tile."""
        height, width = maps[0].shape[2:]
        for top, bottom in ranges(height, self.tile, alignment):
            for left, right in ranges(width, self.tile, alignment):
                yield from self._tile(part, maps, (top, bottom, left, right), reach, alignment)

    def _tile(self, part, maps, core, reach, alignment) -> Iterator[Result]:
        top, bottom, left, right = core
        rows = rounded_up(max(reach, math.isqrt(self.smallest) - (bottom - top)), alignment)
        side = -(-self.smallest // min(maps[0].shape[2], bottom - top + rows))
        cols = rounded_up(max(reach, side - (right - left)), alignment)
        y, x = max(0, top - rows), max(0, left - cols)
        try:
            windows = [m[:, :, y : bottom + rows, x : right + cols] for m in maps]
            s = self.scale
            out = checked_size(part(*[window.to(self.device) for window in windows]), windows[0], s)
            out = out[:, :, (top - y) * s : (bottom - y) * s, (left - x) * s : (right - x) * s]
            out = on_cpu(out)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            out, self.smallest = None, 1
        if out is not None:
            yield top * self.scale, left * self.scale, out
            return
        halves = self._halves(max(bottom - top, right - left), alignment)
        for start, stop in halves:
            if bottom - top >= right - left:
                half = top + start, min(top + stop, bottom), left, right
            else:
                half = top, bottom, left + start, min(left + stop, right)
            yield from self._tile(part, maps, half, reach, alignment)

    def _fill(self, result: Tensor | None, part, maps, reach, alignment) -> Tensor:
        in_place = result is not None
        for top, bottom, out in self._bands(part, maps, reach, alignment, in_place):
            if result is None:
                shape = (*out.shape[:2], *maps[0].shape[2:])
                result = torch.empty(shape, dtype=out.dtype, device=maps[0].device, memory_format=layout_of(out))
            result[:, :, top:bottom] = out
        return result

    def _bands(self, part, maps, reach, alignment, in_place: bool = False) -> Iterator[tuple[int, int, Tensor]]:
        """Start and end row of each band, and the part's result; the first map's rows may be overwritten with it."""
        height = maps[0].shape[2]
        reach = rounded_up(reach, alignment)
        pending = ranges(height, self._rows_of(maps, reach), alignment)
        before = maps[0][:, :, :0]  # the rows above the band as they were
        while pending:
            top, bottom = pending.pop(0)
            start, stop = max(0, top - reach), min(height, bottom + reach)
            windows = [m[:, :, start:stop] for m in maps]
            if in_place:
                window = torch.cat([before[:, :, before.shape[2] - (top - start) :], maps[0][:, :, top:stop]], 2)
                window = window.contiguous(memory_format=layout_of(maps[0]))  # which cat loses if no rows are above
                windows = [window if m is maps[0] else windows[n] for n, m in enumerate(maps)]
            try:
                out = part(*[window.to(self.device) for window in windows])[:, :, top - start : bottom - start]
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                out, self.smallest = None, 1
            if out is None:
                pending[:0] = [(top + a, min(top + b, bottom)) for a, b in self._halves(bottom - top, alignment)]
                self.rows = pending[0][1] - top
                continue
            if in_place:
                before = windows[0][:, :, max(0, bottom - start - reach) : bottom - start].clone()
            yield top, bottom, out

    def _rows_of(self, maps, reach: int) -> int:
        width = maps[0].shape[3]
        values = sum(m.shape[1] * m.element_size() for m in maps) * width
        rows = self.rows or max(4 * reach, self.memory // (CONV_MEMORY * values))
        return max(rows, -(-self.smallest // width))

    def _halves(self, length: int, alignment: int) -> list[tuple[int, int]]:
        halves = ranges(length, -(-length // 2), alignment)
        if len(halves) < 2:
            raise UserError(f'not enough memory for a single pixel row on {self.device}: use another --device')
        return halves


def layout_of(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.stride(1) == 1 and x.shape[1] > 1 else torch.contiguous_format

"""How far a pixel of a network's result sees, measured."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from earn_plugin.inference.parts import rounded_up

LARGEST = 64  # alignment that is looked for
TOLERANCE = 1e-4  # of results that are the same, relative to the largest value


class Reach(NamedTuple):
    """What tiles need in order to equal the whole image.

    ``pixels`` of the input around a pixel are all that its result depends on; a tile starts at multiples of
    ``alignment``.
    """

    pixels: int
    alignment: int


def measure_reach(network: nn.Module, channels: int, scale: int, length: int = 512, across: int = 16) -> Reach | None:
    """The reach of a network, by the results that a NaN in its input changes.

    Args:
        network: in evaluation mode.
        channels: of its input.
        scale: of its result.
        length, across: size of the strip that is measured, once in each direction.

    Returns:
        None if the reach is larger than half of the strip, as it is if anything is computed from all pixels.
    """
    found = [_along(network, channels, scale, length, across, upright) for upright in (False, True)]
    if None in found:
        return None
    return Reach(max(reach.pixels for reach in found), max(reach.alignment for reach in found))


@torch.inference_mode()
def _along(network, channels, scale, length, across, upright: bool) -> Reach | None:
    parameter = next(network.parameters(), torch.empty(0))  # an ONNX file's network has none

    def run(strip: Tensor) -> Tensor:
        """channels × across × any length → the result in the same direction."""
        strip = strip.transpose(1, 2) if upright else strip
        out = network(strip[None].to(parameter))[0].double().cpu()
        return out.transpose(1, 2) if upright else out

    strip = torch.rand(channels, across, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = run(strip)
    tolerance = TOLERANCE * float(plain.abs().max())

    def reach_of(column: int) -> int:
        """How far a column is seen; infinite, about, if it is seen at the border or nowhere."""
        changed = strip.clone()
        changed[:, :, column] = torch.nan
        seen = run(changed).isnan().any(0).any(0).nonzero().flatten() // scale
        if not len(seen) or seen[0] == 0 or seen[-1] == length - 1:
            return length
        return max(column - int(seen[0]), int(seen[-1]) - column)

    def border_of(alignment: int) -> int:
        """How far strips that start later or end earlier have another result; infinite, about, if the network fails."""
        cut = LARGEST + alignment
        try:
            later = run(strip[:, :, cut:]) - plain[:, :, cut * scale :]
            earlier = run(strip[:, :, :-cut]) - plain[:, :, : -cut * scale]
        except Exception:  # many networks take multiples of a size only, and raise anything for others
            return length
        differs = [~(difference.abs() <= tolerance).flatten(0, 1).all(0) for difference in (later, earlier.flip(2))]
        return -(-max(int(columns.nonzero().max()) + 1 if columns.any() else 0 for columns in differs) // scale)

    middle = length // 2 // LARGEST * LARGEST
    reach = reach_of(middle)
    if reach == length:
        return None
    alignment = 1
    while (border := border_of(alignment)) > reach + alignment:
        alignment *= 2
        if alignment > LARGEST:
            return None
    # columns at other places within an aligned window may be seen farther
    reach = max([reach, *map(reach_of, range(middle + 1, middle + alignment))])
    # a network that turns NaN into numbers seems to see less than it does
    return Reach(reach, alignment) if border <= rounded_up(reach, alignment) < length else None

"""How far a pixel of a network's result sees, measured."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

LARGEST = 64  # alignment that is looked for


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
    pixels = 0
    for middle in (length // 2, length // 2 + 1):  # both phases of a network that halves the image
        changed = strip.clone()
        changed[:, :, middle] = torch.nan
        seen = run(changed).isnan().any(0).any(0).nonzero().flatten() // scale
        if not len(seen) or seen[0] == 0 or seen[-1] == length - 1:
            return None
        pixels = max(pixels, middle - int(seen[0]), int(seen[-1]) - middle)
    tolerance = 1e-3 * float(plain.abs().max())
    alignment = 1
    while alignment <= LARGEST:
        shifted = run(strip[:, :, alignment:])
        inside = slice(pixels * scale, (length - alignment - pixels) * scale)
        expected = plain[:, :, alignment * scale :]
        if bool((shifted[:, :, inside] - expected[:, :, inside]).abs().max() <= tolerance):
            return Reach(pixels, alignment)
        alignment *= 2
    return None

"""The bicubic ``imresize`` of ``data.bicubic`` for batches of torch, on any device."""

from fractions import Fraction

import torch
from torch import Tensor

from earn_plugin.data.bicubic import fraction_of, taps


def imresize(images: Tensor, scale: Fraction | float, border: str = 'replicate') -> Tensor:
    """Resize a batch as ``data.bicubic.imresize`` does each image; uint8 to the same bytes, float differentiably.

    uint8 is summed in float64, tap after tap: where a sum lies on a half, its last bit decides where it rounds to.
    float32 and float64 are summed as they are, smaller types in float32.

    Args:
        images: N×C×H×W, uint8 or float.
        scale, border: as there.

    Returns:
        N×C×ceil(H·scale)×ceil(W·scale) of the same type; uint8 is rounded, float is not.

    Raises:
        ValueError: a scale that is not above 0, another border, a batch that is empty or of another type.
    """
    fraction = fraction_of(scale, border)
    if images.dim() != 4 or not images.numel():
        raise ValueError(f'images must be N×C×H×W and not empty, got shape {tuple(images.shape)}')
    is_uint8 = images.dtype == torch.uint8
    if not is_uint8 and not images.is_floating_point():
        raise ValueError(f'images must be uint8 or float, got {images.dtype}; scale the values to one of them first')
    result = images.to(torch.float64 if is_uint8 else torch.promote_types(images.dtype, torch.float32))
    for axis in (2, 3):
        index, weight = taps(images.shape[axis], fraction, border)
        index = torch.tensor(index.T, device=images.device)
        weight = torch.tensor(weight.T, device=images.device, dtype=result.dtype)
        weight = weight.unflatten(1, (-1, 1) if axis == 2 else (1, -1))
        summed = 0
        for source, factor in zip(index, weight, strict=True):
            summed = summed + factor * result.index_select(axis, source)
        result = (summed + 0.5).floor().clamp(0, 255) if is_uint8 else summed
    return result.to(images.dtype)

"""``data.bicubic.imresize`` for batches of torch, on any device."""

from fractions import Fraction

import torch
from torch import Tensor

from earn_plugin.data.bicubic import fraction_of, taps


def imresize_tensor(images: Tensor, scale: Fraction | float, border: str = 'replicate') -> Tensor:
    """Resize a batch as ``data.bicubic.imresize`` resizes an image: the same bytes for uint8, differentiable for float.

    uint8 is summed in float64, tap by tap: where a sum is close to a half, its last bit decides how it is rounded.
    float32 and float64 are summed in their own type, smaller types in float32.

    Args:
        images: N×C×H×W, uint8 or float.
        scale, border: as in ``data.bicubic.imresize``.

    Returns:
        N×C×ceil(H·scale)×ceil(W·scale) of the same type; uint8 is rounded, float is not.

    Raises:
        ValueError: the scale is not above 0, the border is unknown, or the batch is empty or has another type.
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

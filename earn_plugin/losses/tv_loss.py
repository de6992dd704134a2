"""Total variation."""

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from earn_plugin.losses.weighted_loss import WeightedLoss


@LOSS_REGISTRY.register()
class TVLoss(WeightedLoss):
    """Total variation of ``pred`` (N×C×H×W): differences of vertical and horizontal neighbours, to the power ``p``.

    The two directions are reduced separately and added; a direction of length 1 adds 0. ``target`` is ignored, so that
    the loss has the arguments of the others.

    Source: Rudin, Osher, Fatemi (1992), the anisotropic form (p = 1); Mahendran and Vedaldi (CVPR 2015) for p = 2,
    which the code of the ODE paper uses; that code doubles the sum, so its weight 2e-8 is 4e-8 here.

    Args:
        loss_weight: factor on the loss.
        reduction: 'mean' or 'sum'.
        p: 1 or 2.

    Raises:
        ValueError: an unknown reduction or power.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean', p: int = 1):
        super().__init__(loss_weight, reduction)
        if reduction == 'none':
            raise ValueError('reduction must be mean or sum, because the directions have different sizes, got none')
        if p not in (1, 2):
            raise ValueError(f'p must be 1 or 2, got {p!r}')
        self.p = p

    def compare(self, pred: Tensor, target: Tensor | None) -> Tensor:
        power = torch.abs if self.p == 1 else torch.square
        down = pred[..., 1:, :] - pred[..., :-1, :]
        right = pred[..., :, 1:] - pred[..., :, :-1]
        return sum(self.weighted(power(d)) if d.numel() else d.sum() for d in (down, right))

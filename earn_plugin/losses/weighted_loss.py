"""The weight and the reduction that all losses have, as in BasicSR."""

import torch
from basicsr.losses.loss_util import reduce_loss
from torch import Tensor, nn

REDUCTIONS = ('none', 'mean', 'sum')


class WeightedLoss(nn.Module):
    """A loss with BasicSR's ``loss_weight`` and ``reduction`` ('none', 'mean' or 'sum').

    A subclass defines ``compare``; it gets images in float32 or float64, also from a network in half precision and
    under autocast, which does not apply to it.

    Raises:
        ValueError: an unknown reduction.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean'):
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction must be one of {", ".join(REDUCTIONS)}, got {reduction!r}')
        self.loss_weight = loss_weight
        self.reduction = reduction

    def forward(self, pred: Tensor, target: Tensor | None = None) -> Tensor:
        images = (x.float() if x is not None and x.element_size() == 2 else x for x in (pred, target))
        with torch.autocast(pred.device.type, enabled=False):
            return self.compare(*images)

    def compare(self, pred: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def weighted(self, loss: Tensor) -> Tensor:
        return self.loss_weight * reduce_loss(loss, self.reduction)

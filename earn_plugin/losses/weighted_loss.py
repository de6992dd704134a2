"""The weight and the reduction that all losses have, as in BasicSR."""

from basicsr.losses.loss_util import reduce_loss
from torch import Tensor, nn

REDUCTIONS = ('none', 'mean', 'sum')


class WeightedLoss(nn.Module):
    """A loss with BasicSR's ``loss_weight`` and ``reduction`` ('none', 'mean' or 'sum').

    Raises:
        ValueError: an unknown reduction.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean'):
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction must be one of {", ".join(REDUCTIONS)}, got {reduction!r}')
        self.loss_weight = loss_weight
        self.reduction = reduction

    def weighted(self, loss: Tensor) -> Tensor:
        return self.loss_weight * reduce_loss(loss, self.reduction)

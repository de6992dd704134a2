"""L1 distance of the spectra."""

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from earn_plugin.losses.weighted_loss import WeightedLoss


@LOSS_REGISTRY.register()
class FrequencyLoss(WeightedLoss):
    """L1 between the unnormalised 2-D FFTs of ``pred`` and ``target``, both N×C×H×W in [0, 1].

    Source: Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring" (ICCV 2021), equation 6;
    LGVAN uses it with weight 0.5.

    Args:
        loss_weight: factor on the loss.
        reduction: 'none' (N×C×H×W×2, real and imaginary parts), 'mean' or 'sum'.
    """

    def compare(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.weighted(torch.view_as_real(torch.fft.fft2(pred - target)).abs())

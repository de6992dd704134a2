"""L1 distance of the spectra."""

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from earn_plugin.losses.weighted_loss import WeightedLoss


def spectral_difference(pred: Tensor, target: Tensor) -> Tensor:
    """Absolute difference of the 2-D Fourier transforms: N×C×H×W → N×C×H×W×2, real and imaginary parts."""
    spectrum = torch.fft.fft2((pred - target).float() if pred.dtype in _HALF else pred - target)
    return torch.view_as_real(spectrum).abs()


_HALF = (torch.float16, torch.bfloat16)  # for which there is no FFT


@LOSS_REGISTRY.register()
class FrequencyLoss(WeightedLoss):
    """L1 between the unnormalised 2-D FFTs of ``pred`` and ``target``, both N×C×H×W in [0, 1].

    Source: Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring" (ICCV 2021), equation 6;
    LGVAN has it with weight 0.5.

    Args:
        loss_weight: factor on the loss.
        reduction: 'none' (N×C×H×W×2), 'mean' or 'sum'.
    """

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.weigh(spectral_difference(pred, target))

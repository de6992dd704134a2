"""Structural similarity, single and multi-scale."""

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor
from torch.nn import functional as F

from earn_plugin.losses.weighted_loss import WeightedLoss

# Wang, Simoncelli, Bovik (2003), section 3.2: weight of each scale, the finest first
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def gaussian(window_size: int, sigma: float) -> Tensor:
    """The window along one axis: window_size weights that sum to 1, float64."""
    offset = torch.arange(window_size, dtype=torch.float64) - (window_size - 1) / 2
    weight = torch.exp(-0.5 * (offset / sigma) ** 2)
    return weight / weight.sum()


def blur(x: Tensor, window: list[float]) -> Tensor:
    """Weighted mean over the window along both axes, without padding: N×C×H×W → N×C×(H−k+1)×(W−k+1)."""
    for axis in (2, 3):
        length = x.shape[axis] - len(window) + 1
        x = sum(weight * x.narrow(axis, i, length) for i, weight in enumerate(window))
    return x


def ssim_maps(pred: Tensor, target: Tensor, window: list[float], data_range: float) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure factor at every position of the window, N×C×H'×W' each.

    Computed in float64: a variance is a small difference of large numbers, of which float32 keeps 4 digits.
    """
    pred, target = pred.double(), target.double()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_p, mean_t = blur(pred, window), blur(target, window)
    var_p = blur(pred**2, window) - mean_p**2
    var_t = blur(target**2, window) - mean_t**2
    covariance = blur(pred * target, window) - mean_p * mean_t
    contrast = (2 * covariance + c2) / (var_p + var_t + c2)
    luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
    return luminance * contrast, contrast


@LOSS_REGISTRY.register()
class SSIMLoss(WeightedLoss):
    """1 − SSIM of ``pred`` and ``target``, both N×C×H×W in [0, data_range], for each channel.

    Its mean is 1 minus BasicSR's ``calculate_ssim`` without a border. EARN's authors use window_size 7 and sigma 1.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004), equation
    13; for several scales Wang, Simoncelli, Bovik, "Multi-Scale Structural Similarity" (2003), equation 7, with its
    five weights; fewer scales use the first of them, normalised to sum to 1.

    Args:
        loss_weight: factor on the loss.
        reduction: 'mean', 'sum', or 'none' for the map N×C×(H−k+1)×(W−k+1) (with several scales N×C).
        window_size: of the Gaussian window, in pixels; odd.
        sigma: its standard deviation in pixels.
        data_range: the largest pixel value.
        num_scale: 1 to 5; each halves the image.

    Raises:
        ValueError: an argument out of range; an image smaller than the window at the coarsest scale.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        reduction: str = 'mean',
        window_size: int = 11,
        sigma: float = 1.5,
        data_range: float = 1.0,
        num_scale: int = 1,
    ):
        super().__init__(loss_weight, reduction)
        if window_size < 1 or window_size % 2 == 0:
            raise ValueError(f'window_size must be odd and at least 1, got {window_size}')
        if not sigma > 0 or not data_range > 0:
            raise ValueError(f'sigma and data_range must be above 0, got {sigma} and {data_range}')
        if not 1 <= num_scale <= len(SCALE_WEIGHTS):
            raise ValueError(f'num_scale must be 1 to {len(SCALE_WEIGHTS)}, got {num_scale}')
        self.window = gaussian(window_size, sigma).tolist()
        self.data_range = data_range
        self.num_scale = num_scale
        self.smallest = window_size * 2 ** (num_scale - 1)  # as ``protocols.HasSmallestPatch``

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        if min(pred.shape[2:]) < self.smallest:
            raise ValueError(
                f'an image of {pred.shape[2]}×{pred.shape[3]} is too small for an SSIM window of {len(self.window)} '
                f'at {self.num_scale} scale(s), which needs at least {self.smallest}×{self.smallest}; use larger '
                'patches, or a smaller window_size or num_scale'
            )
        similarity, contrast = ssim_maps(pred, target, self.window, self.data_range)
        if self.num_scale > 1:
            factors = []
            for _ in range(self.num_scale - 1):
                factors.append(contrast.mean(dim=(2, 3)))
                pred, target = F.avg_pool2d(pred, 2), F.avg_pool2d(target, 2)
                similarity, contrast = ssim_maps(pred, target, self.window, self.data_range)
            factors.append(similarity.mean(dim=(2, 3)))
            weights = torch.tensor(SCALE_WEIGHTS[: self.num_scale], dtype=torch.float64, device=pred.device)
            # the power is not defined for negative factors, and its slope at 0 is infinite
            similarity = (torch.stack(factors, -1).clamp(min=1e-6) ** (weights / weights.sum())).prod(-1)
        return self.weighted(1 - similarity).to(pred.dtype)

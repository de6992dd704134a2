"""Structural similarity, single and multi-scale."""

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from earn_plugin.losses.weighted_loss import WeightedLoss

# Wang, Simoncelli, Bovik (2003), section 3.2: weight of each scale, the finest first
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def gaussian(window_size: int, sigma: float) -> Tensor:
    """The window along one axis: window_size weights that sum to 1, float64."""
    offset = torch.arange(window_size, dtype=torch.float64) - (window_size - 1) / 2
    weight = torch.exp(-0.5 * (offset / sigma) ** 2)
    return weight / weight.sum()


def moments(mean: Tensor, variance: Tensor | None, window: list[float], axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance in the window along one axis, of pixels that have a mean and a variance themselves.

    Applied along both axes, this gives the moments in the square window (law of total variance). Pixels are compared
    with the centre of their window: E[x²] − E[x]² is a small difference of large numbers, of which float32 keeps 4
    digits. Also returns the shift from the centre to the mean. Each step is one pass over the memory.
    """
    length, middle = mean.shape[axis] - len(window) + 1, len(window) // 2
    centre = mean.narrow(axis, middle, length)
    shift = torch.zeros(centre.shape, dtype=mean.dtype, device=mean.device)
    spread, offset = torch.zeros_like(shift), torch.empty_like(shift)
    for i, weight in enumerate(window):
        if i != middle:
            torch.sub(mean.narrow(axis, i, length), centre, out=offset)
            shift.add_(offset, alpha=weight)
            spread.addcmul_(offset, offset, value=weight)
        if variance is not None:
            spread.add_(variance.narrow(axis, i, length), alpha=weight)
    return centre + shift, spread.addcmul_(shift, shift, value=-1), shift


def mean_gradient(
    mean: Tensor, shift: Tensor, window: list[float], axis: int, by_mean: Tensor, by_variance: Tensor
) -> Tensor:
    """Gradient with respect to the first argument of ``moments``, from those with respect to its results."""
    length = shift.shape[axis]
    centre = mean.narrow(axis, len(window) // 2, length)
    slope = 2 * by_variance
    level = torch.addcmul(by_mean, slope, shift, value=-1)
    gradient, part = torch.zeros_like(mean), torch.empty_like(shift)
    for i, weight in enumerate(window):  # weight · (by_mean + slope · (pixel − mean of the window))
        torch.sub(mean.narrow(axis, i, length), centre, out=part)
        torch.addcmul(level, slope, part, out=part)
        gradient.narrow(axis, i, length).add_(part, alpha=weight)
    return gradient


def variance_gradient(window: list[float], axis: int, by_variance: Tensor) -> Tensor:
    """Gradient with respect to the second argument of ``moments``."""
    shape = list(by_variance.shape)
    shape[axis] += len(window) - 1
    gradient = by_variance.new_zeros(shape)
    for i, weight in enumerate(window):
        gradient.narrow(axis, i, by_variance.shape[axis]).add_(by_variance, alpha=weight)
    return gradient


class Similarity(torch.autograd.Function):
    """SSIM and its contrast-structure factor at every position of the window, N×C×H'×W' each.

    Args: both images and what was subtracted from them; the window; the constants of the luminance and the contrast.
    The gradient, which ``target`` does not get, is written in the difference d and the sum s of the images, so that
    nothing cancels where they are alike: 1 − contrast = var(d) / (½·var(s) + ½·var(d) + c2).
    """

    @staticmethod
    def forward(ctx, pred, target, offset_p, offset_t, window, c1, c2) -> tuple[Tensor, Tensor]:
        pixels = torch.stack((pred - target, pred + target))  # 2×N×C×H×W
        rows, variance, row_shift = moments(pixels, None, window, -1)
        mean, variance, shift = moments(rows, variance, window, -2)
        (mean_d, mean_s), (var_d, var_s) = mean, variance
        mean_p, mean_t = (mean_s + mean_d) / 2 + offset_p, (mean_s - mean_d) / 2 + offset_t
        mean_d = mean_d + (offset_p - offset_t)

        squares, variances = mean_p**2 + mean_t**2 + c1, (var_s + var_d) / 2 + c2
        luminance = (2 * mean_p * mean_t + c1) / squares
        contrast = ((var_s - var_d) / 2 + c2) / variances
        by_mean = -2 * contrast * mean_d * (mean_t * (mean_p + mean_t) + c1) / squares**2
        by_variance = torch.stack((var_s / -2 - c2, var_d / 2)) / variances**2
        ctx.save_for_backward(pixels, rows, row_shift, shift, luminance, by_mean, by_variance)
        ctx.window = window
        return luminance * contrast, contrast

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, grad_contrast: Tensor) -> tuple[Tensor | None, ...]:
        pixels, rows, row_shift, shift, luminance, by_mean, by_variance = ctx.saved_tensors
        by_mean = torch.stack((grad * by_mean, torch.zeros_like(by_mean)))  # of pred, through d alone
        by_variance = by_variance * (grad * luminance + grad_contrast)
        by_mean = mean_gradient(rows, shift, ctx.window, -2, by_mean, by_variance)
        by_variance = variance_gradient(ctx.window, -2, by_variance)
        by_pixels = mean_gradient(pixels, row_shift, ctx.window, -1, by_mean, by_variance)
        return by_pixels.sum(0), *[None] * 6


@LOSS_REGISTRY.register()
class SSIMLoss(WeightedLoss):
    """1 − SSIM of ``pred`` and ``target``, both N×C×H×W in [0, data_range], for each channel.

    Its mean is 1 minus BasicSR's ``calculate_ssim`` without a border. EARN's authors use window_size 7 and sigma 1.
    ``target`` gets no gradient. In float32, the gradient differs from that of float64 by at most 1e-4 of its largest
    entry, also on flat images.

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

    def compare(self, pred: Tensor, target: Tensor) -> Tensor:
        if min(pred.shape[2:]) < self.smallest:
            raise ValueError(
                f'an image of {pred.shape[2]}×{pred.shape[3]} is too small for an SSIM window of {len(self.window)} '
                f'at {self.num_scale} scale(s), which needs at least {self.smallest}×{self.smallest}; use larger '
                'patches, or a smaller window_size or num_scale'
            )
        # on a CPU the tensors of a single image stay in the cache
        size = 1 if pred.device.type == 'cpu' else len(pred)
        pairs = zip(pred.split(size), target.split(size), strict=True)
        return self.weighted(1 - torch.cat([self.similarity(*pair) for pair in pairs]))

    def similarity(self, pred: Tensor, target: Tensor) -> Tensor:
        # variances do not depend on an offset, and without it float32 resolves the noise of flat images
        offsets = [x.detach().mean((2, 3), keepdim=True) for x in (pred, target)]
        pred, target = pred - offsets[0], target - offsets[1]
        constants = *offsets, self.window, (0.01 * self.data_range) ** 2, (0.03 * self.data_range) ** 2
        similarity, contrast = Similarity.apply(pred, target, *constants)
        if self.num_scale == 1:
            return similarity
        factors = []
        for _ in range(self.num_scale - 1):
            factors.append(contrast.mean((2, 3)))
            pred, target = F.avg_pool2d(pred, 2), F.avg_pool2d(target, 2)
            similarity, contrast = Similarity.apply(pred, target, *constants)
        factors.append(similarity.mean((2, 3)))
        weights = torch.tensor(SCALE_WEIGHTS[: self.num_scale], dtype=pred.dtype, device=pred.device)
        # the power is not defined for negative factors, and its slope at 0 is infinite
        return (torch.stack(factors, -1).clamp(min=1e-6) ** (weights / weights.sum())).prod(-1)

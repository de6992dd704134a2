"""Local attribution maps: which pixels of the input a network uses for a window of its result, and how widely.

Gu and Dong, "Interpreting Super-Resolution Networks with Local Attribution Maps", CVPR 2021; constants of their demo.
The strength of the edges in the window is attributed to the pixels of the input: its gradient, integrated while the
input goes from blurred to sharp. The diffusion index (DI) says how evenly the attributions are spread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from earn_plugin.convert.networks import output_of
from earn_plugin.errors import UsageError, UserError, reason_of
from earn_plugin.inference.parts import checked_size, is_out_of_memory

SIGMA, KERNEL = 1.2, 9  # of the blur that the path starts from
WINDOW = 16  # side, in pixels of the result
ROUNDING = 1e-10  # of the input's path from blurred to sharp
INCOMPLETE = 0.01  # missing share above which the attributions are not to be trusted


class Rule(NamedTuple):
    """How the integral is summed up: the gradient of each step is that at ``point``, 0 its start and 1 its end."""

    name: str
    steps: int
    point: float


MIDPOINT = Rule('midpoint', 10, 0.5)
AS_PUBLISHED = Rule('as published', 50, 1)


class Window(NamedTuple):
    """A square of the result, in its pixels: left column, top row, side."""

    x: int
    y: int
    size: int = WINDOW


@dataclass(frozen=True)
class Attribution:
    """What a window of the result is attributed to.

    ``map`` is H×W, as the input: the sums of the channels without their sign, divided by the largest. ``missing`` is
    the share of the difference between the edges for the sharp and for the blurred input that the attributions do not
    add up to; None if there is no difference. ``flat`` of the ``terms`` of all steps were exactly 0, where the square
    root has no gradient; theirs is taken as 0.
    """

    map: np.ndarray
    missing: float | None
    flat: int
    terms: int

    @property
    def diffusion_index(self) -> float:
        """DI: 100 if all pixels contribute equally, near 0 if one contributes everything. Falls with their number."""
        return 100 * (1 - gini(self.map))

    @property
    def involved(self) -> float:
        """DI/100 · pixels of the input, which hardly depends on their number."""
        return self.diffusion_index / 100 * self.map.size


def find_window(result: tuple[int, int], x: int | None = None, y: int | None = None, size: int = WINDOW) -> Window:
    """The window of a result of that height and width; in its centre unless a place is given.

    Raises:
        UsageError: the window and the pixels to the right of it and below are not all in the result.
    """
    height, width = result
    if x is None or y is None:
        x, y = (width - size) // 2, (height - size) // 2
    if size < 1 or min(x, y) < 0 or x + size >= width or y + size >= height:
        possible = f'X 0 to {width - size - 1}, Y 0 to {height - size - 1}' if 0 < size < min(result) else 'none'
        raise UsageError(
            f'--window {x} {y} {size}: the window and the next pixel to the right and below must be in the result, '
            f'which has {width}×{height} pixels; possible with SIZE {size}: {possible}'
        )
    return Window(x, y, size)


def attribute(
    network: nn.Module,
    image: np.ndarray,
    scale: int,
    window: Window,
    rule: Rule = MIDPOINT,
    on_step: Callable[[], object] = lambda: None,
) -> Attribution:
    """Attribute a window of the result to the pixels of the input. One step at a time is in memory.

    Args:
        network: 1×C×H×W in [0, 1] → 1×C×sH×sW, in evaluation mode; its result is not clamped.
        image: H×W×C in [0, 1], float32.
        on_step: called after each step.

    Raises:
        UserError: the network passes no gradient to its input, or one that is not finite, or memory runs out.
    """
    weight = next(network.parameters(), torch.empty(0))

    def edges_of(x: Tensor) -> tuple[Tensor, Tensor]:
        return edges(checked_size(output_of(network, x), x, scale), window)

    def input_at(alpha: float) -> Tensor:
        return torch.from_numpy(blurred(image, alpha)).permute(2, 0, 1)[None].to(weight)

    attributions, flat, terms, steepest = np.zeros(image.shape), 0, 0, 0.0
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            for step in range(rule.steps):
                gradient, is_flat = _gradient(edges_of, input_at((step + rule.point) / rule.steps))
                start, end = (blurred(image, alpha / rule.steps) for alpha in (step, step + 1))
                attributions += gradient * (end - start)
                flat, terms = flat + int(is_flat.sum()), terms + is_flat.numel()
                steepest = max(steepest, np.abs(gradient).max())
                on_step()
            with torch.no_grad():
                blurry, sharp = (float(edges_of(input_at(alpha))[0]) for alpha in (0, 1))
    except (UserError, RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error.__cause__ or error):
            raise (
                error if isinstance(error, UserError) else UserError(f'has no gradient: {reason_of(error)}')
            ) from error
        height, width = image.shape[:2]
        raise UserError(f'not enough memory for the gradients of {width}×{height} pixels: crop the picture') from error
    contributions = np.abs(attributions.sum(2))
    if flat == terms:
        raise UserError('the result is flat in the window, so there is nothing to attribute: choose another --window')
    if not steepest:
        raise UserError(
            'the gradient is 0 for every pixel, so the map would be black: the network detaches or rounds its input; '
            'remove .data, detach(), no_grad, inference_mode or round() from its forward'
        )
    if contributions.max() <= ROUNDING * steepest:
        raise UserError('the pixels that the window depends on are all alike: choose another --window, with edges')
    missing = 1 - attributions.sum() / (sharp - blurry) if sharp != blurry else None
    return Attribution(contributions / contributions.max(), missing, flat, terms)


def _gradient(edges_of: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[np.ndarray, Tensor]:
    """The gradient of the edges, H×W×C, and which of their terms are flat."""
    with torch.enable_grad():
        x.requires_grad_()
        total, is_flat = edges_of(x.clone())  # which networks may change in place
        gradient = torch.autograd.grad(total, x, allow_unused=True)[0] if total.requires_grad else None
    gradient = torch.zeros_like(x) if gradient is None else gradient
    if not gradient.isfinite().all():
        raise UserError('the gradient has NaN or infinite values: the weights are damaged, or the network divides by 0')
    return gradient[0].permute(1, 2, 0).double().cpu().numpy(), is_flat


def edges(result: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """The sum of the gradient magnitudes of all channels in the window, and which of them are exactly 0.

    Args:
        result: 1×C×H×W.
    """
    x, y, size = window
    part = result[:, :, y : y + size + 1, x : x + size + 1]
    corner = part[:, :, :-1, :-1]
    squared = (corner - part[:, :, 1:, :-1]) ** 2 + (corner - part[:, :, :-1, 1:]) ** 2
    is_flat = squared == 0
    return squared.masked_fill(is_flat, 1).sqrt().masked_fill(is_flat, 0).sum(), is_flat


def blurred(image: np.ndarray, alpha: float) -> np.ndarray:
    """The path from the blurred image (α = 0) to the image (α = 1): a Gaussian of σ = 1.2·(1 − α), 9×9, reflected.

    Args:
        image: H×W×C.

    Returns:
        The same in float64, so that flat areas stay flat.
    """
    offsets = np.arange(KERNEL) - KERNEL // 2
    kernel = np.exp(-0.5 * (offsets / (SIGMA * (1 - alpha) + 1e-5)) ** 2)
    kernel /= kernel.sum()
    return cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101).reshape(image.shape)


def gini(values: np.ndarray) -> float:
    """The Gini coefficient of values that are not negative: 0 if all are equal, near 1 if one is everything."""
    ordered = np.sort(values.ravel()) + 1e-7
    ranks = np.arange(1, len(ordered) + 1)
    return float(((2 * ranks - len(ordered) - 1) * ordered).sum() / (len(ordered) * ordered.sum()))


def contribution_area(contributions: np.ndarray) -> np.ndarray:
    """The density of the contributions, H×W, largest value 1: Gaussian kernels with Scott's bandwidth, as in scipy.

    Args:
        contributions: H×W, not negative.
    """
    weights = contributions / contributions.sum()
    places = np.stack(np.mgrid[: weights.shape[0], : weights.shape[1]], -1)
    away = places - (weights[..., None] * places).sum((0, 1))
    concentration = (weights**2).sum()  # 1 over the effective number of pixels
    covariance = np.einsum('hw,hwi,hwj->ij', weights, away, away) / max(1 - concentration, 1e-12)
    covariance = covariance * concentration ** (1 / 3) + 1e-6 * np.eye(2)  # also of a single pixel or a line
    offsets = np.stack(np.mgrid[tuple(slice(1 - side, side) for side in weights.shape)], -1)
    kernel = np.exp(-0.5 * np.einsum('hwi,ij,hwj->hw', offsets, np.linalg.inv(covariance), offsets))
    size = tuple(3 * side - 2 for side in weights.shape)
    density = np.fft.irfft2(np.fft.rfft2(weights, size) * np.fft.rfft2(kernel, size), size)
    height, width = weights.shape
    density = density[height - 1 : 2 * height - 1, width - 1 : 2 * width - 1].clip(0)
    return density / density.max()

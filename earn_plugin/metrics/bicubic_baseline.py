"""A model's metrics compared with those of bicubic upscaling, computed by BasicSR on the same images."""

import inspect
from typing import Any

import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils import tensor2img
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor
from tqdm import tqdm

from earn_plugin.data.bicubic import imresize


def bicubic_metrics(dataset: Any, metrics: dict[str, dict[str, Any]], scale: int) -> list[dict[str, float]] | None:
    """Metrics of MATLAB's bicubic upscaling for each image; None if the data set has no pairs of single images.

    Args:
        dataset: yields {'lq': 3×H×W, 'gt': 3×sH×sW} in [0, 1].
        metrics: ``val: metrics:`` of the options.
        scale: s.
    """
    results = []
    hidden = None if get_dist_info()[0] == 0 else True  # None: hidden unless on a terminal
    for index in tqdm(range(len(dataset)), desc='bicubic', unit='image', disable=hidden):
        sample = dataset[index]
        if 'gt' not in sample or sample['lq'].dim() != 3:
            return None
        results.append(metrics_of_bicubic(sample['lq'], tensor2img(sample['gt']), metrics, scale))
    return results


def metrics_of_bicubic(
    lq: Tensor, target: np.ndarray, metrics: dict[str, dict[str, Any]], scale: int
) -> dict[str, float]:
    """As ``bicubic_metrics``, for one image, 3×H×W, and its target, sH×sW×3, BGR, uint8."""
    return metrics_of(imresize(tensor2img(lq), scale), target, metrics)


def applicable(metrics: dict[str, dict[str, Any]], has_target: bool) -> dict[str, dict[str, Any]]:
    """The metrics that can be computed: without targets, only those that need none, such as NIQE."""
    if has_target:
        return metrics
    functions = {name: METRIC_REGISTRY.get(opt['type']) for name, opt in metrics.items()}
    return {name: metrics[name] for name, f in functions.items() if 'img2' not in inspect.signature(f).parameters}


def metrics_of(image: np.ndarray, target: np.ndarray | None, metrics: dict[str, dict[str, Any]]) -> dict[str, float]:
    """All metrics of an image, H×W×3, BGR, uint8, against its target if it has one."""
    images = {'img': image} if target is None else {'img': image, 'img2': target}
    return {name: float(calculate_metric(images, opt)) for name, opt in metrics.items()}


def mean_metrics(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([result[name] for result in results])) for name in results[0]}


def compare_metrics(results: dict[str, float], bicubic: dict[str, float] | None) -> str:
    """'psnr 27.9123 (bicubic 27.4001, +0.5122), ssim …'"""
    parts = []
    for name, value in results.items():
        comparison = f' (bicubic {bicubic[name]:.4f}, {value - bicubic[name]:+.4f})' if bicubic else ''
        parts.append(f'{name} {value:.4f}{comparison}')
    return ', '.join(parts)

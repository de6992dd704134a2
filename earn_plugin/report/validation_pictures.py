"""A network compared with bicubic on validation images: metrics of each image, and pictures of some."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.utils import tensor2img
from torch import nn
from tqdm import tqdm

from earn_plugin.convert.networks import output_of
from earn_plugin.data.bicubic import imresize
from earn_plugin.data.loaders import build_checked
from earn_plugin.data.stream import Readable
from earn_plugin.errors import UserError
from earn_plugin.figures.region import Region, choose_region
from earn_plugin.metrics.bicubic_baseline import applicable, metrics_of
from earn_plugin.metrics.fast_metrics import fast_metrics
from earn_plugin.training.test import result_names

KEPT = 8
LARGEST = 640  # pixels of a picture's side; of a larger image, the part is shown where the results differ most


class Versions(NamedTuple):
    """The same image, H×W×3 (or H×W), BGR, uint8: the LR input, enlarged, and the original where there is one."""

    lr: np.ndarray
    bicubic: np.ndarray
    network: np.ndarray | None
    hr: np.ndarray | None


class MeasuredImage(NamedTuple):
    """An image of a validation set: its metrics by name, of bicubic and of the network, and the gain in the first."""

    name: str
    index: int
    bicubic: dict[str, float]
    network: dict[str, float]
    gain: float = 0.0


class ValidationComparison:
    """The images of a validation set, one after another, enlarged by bicubic and by a network.

    Args:
        dataset_opt: the data set's options, with ``phase`` and ``scale``.
        metrics: ``val: metrics:`` of the options.
        network: 1×C×H×W → 1×C×sH×sW, in evaluation mode; None to compare nothing with bicubic.

    Raises:
        UserError: the data set cannot be built, or has no single images.
    """

    def __init__(self, dataset_opt: dict[str, Any], metrics: dict[str, Any], scale: int, network: nn.Module | None):
        dataset, _ = build_checked(dataset_opt)
        self.dataset, self.network, self.scale = Readable(dataset), network, scale
        self.name: str = dataset_opt['name']
        first = self.dataset[0]
        if not isinstance(first, dict) or 'lq' not in first or first['lq'].dim() != 3:
            raise UserError(f'{self.name} has no single LR images ({dataset_opt["type"]}), which pictures need')
        self.metrics = applicable(metrics, 'gt' in first)
        self.names = result_names(dataset)
        self.seconds: list[float] = []  # of the network, for each image
        self.kept: dict[int, Versions] = {}  # of the first images, so that most sets are computed once

    def versions(self, index: int) -> Versions:
        if index in self.kept:
            return self.kept[index]
        sample = self.dataset[index]
        lr = tensor2img(sample['lq'])
        hr = tensor2img(sample['gt']) if 'gt' in sample else None
        return Versions(lr, imresize(lr, self.scale), self.result(sample['lq'][None]), hr)

    @torch.inference_mode()
    def result(self, x: torch.Tensor) -> np.ndarray | None:
        """The network's result as validation sees it: clamped to [0, 1] and rounded to 8 bits."""
        if self.network is None:
            return None
        weight = next(self.network.parameters(), torch.empty(0))
        start = time.perf_counter()
        result = output_of(self.network, x.to(weight)).cpu()
        self.seconds.append(time.perf_counter() - start)
        return tensor2img(result.float())

    def compare(self) -> list[MeasuredImage]:
        """The metrics of all images."""
        compared = []
        with fast_metrics():
            for index, name in enumerate(tqdm(self.names, desc=self.name, unit='image', disable=None)):
                versions = self.versions(index)
                if index < KEPT:
                    self.kept[index] = versions
                bicubic, network = (
                    {} if image is None else metrics_of(image, versions.hr, self.metrics)
                    for image in (versions.bicubic, versions.network)
                )
                gains = (better_sign(opt) * (network[m] - bicubic[m]) for m, opt in self.metrics.items() if network)
                compared.append(MeasuredImage(name, index, bicubic, network, next(gains, 0.0)))
        return compared


def better_sign(metric: dict[str, Any]) -> int:
    """1 if more of a metric is better, −1 if less is."""
    return -1 if metric.get('better') == 'lower' else 1


def part_to_show(versions: Versions, scale: int, largest: int = LARGEST) -> Region:
    """The part of an image to show, aligned with the LR pixels: all of it, or where the results differ most."""
    height, width = (side // scale for side in versions.bicubic.shape[:2])
    size = min(width, max(1, largest // scale)), min(height, max(1, largest // scale))
    results = [image for image in (versions.bicubic, versions.network) if image is not None]
    target, *others = (image.reshape(*image.shape[:2], -1) for image in (versions.hr, *results) if image is not None)
    x, y, *_ = choose_region(target, others, (size[0] * scale, size[1] * scale))
    return Region(x // scale * scale, y // scale * scale, size[0] * scale, size[1] * scale)


def cut(versions: Versions, part: Region, scale: int) -> Versions:
    """The part of all versions; of the LR picture, what it is enlarged from."""
    lr_part = Region(*(side // scale for side in part)).part
    rest = (None if image is None else image[part.part] for image in versions[1:])
    return Versions(versions.lr[lr_part], *rest)


def spread(compared: Sequence[MeasuredImage], count: int) -> list[MeasuredImage]:
    """At most so many images, from the largest gain over bicubic to the smallest, evenly spaced by rank."""
    ranked = sorted(compared, key=lambda image: -image.gain)
    if len(ranked) <= count:
        return ranked
    return [ranked[round(n * (len(ranked) - 1) / max(1, count - 1))] for n in range(count)]

"""What results.json records next to its figures, so that they can be compared: the network, and how it was measured."""

import inspect
from collections.abc import Sequence
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import METRIC_REGISTRY
from torch import nn

import earn_plugin
from earn_plugin.convert.weight_files import describe_network
from earn_plugin.data.bicubic import BORDERS, imresize
from earn_plugin.devices import describe_device
from earn_plugin.prepare.resumable_folder import sha256
from earn_plugin.weights import checkpoint_file

LR_SOURCES = {'replicate': "MATLAB's bicubic", 'symmetric': "MATLAB's bicubic, symmetric border"}
GIVEN = 'given files'  # LR images that are not MATLAB's bicubic of the HR images
MULTIPLE = 12  # that test sets are cropped to if one set serves ×2, ×3 and ×4


def describe_test(model: BaseModel, opt: dict[str, Any]) -> dict[str, Any]:
    """The network with all its arguments, its parameters and checkpoint; the versions and the device."""
    network, found = getattr(model, 'net_g', None), describe_network('net_g', opt)
    given = opt['path'].get('pretrain_network_g')
    checkpoint = checkpoint_file(Path(given).expanduser()) if given else None
    digest = sha256(checkpoint.read_bytes()) if checkpoint and checkpoint.is_file() else None
    processes = f', one of {opt["world_size"]} processes' if opt['world_size'] > 1 else ''
    return {
        'network_g': {'type': found['arch'], **found['arguments']} if found else None,
        'parameters': sum(p.numel() for p in network.parameters()) if isinstance(network, nn.Module) else None,
        'checkpoint': {'file': checkpoint.name, 'sha256': digest} if checkpoint else None,
        'versions': {'earn_plugin': earn_plugin.__version__, 'torch': torch.__version__},
        'device': describe_device(model.device) + processes,
    }


def describe_paths(paths: dict[str, Any]) -> dict[str, Any]:
    """Paths below the working directory relative to it: elsewhere they would mean nothing."""
    here = Path.cwd()
    below = {
        key: Path(path) for key, path in paths.items() if isinstance(path, str) and Path(path).is_relative_to(here)
    }
    return paths | {key: str(path.relative_to(here)) for key, path in below.items()}


def lr_borders(lr: np.ndarray, hr: np.ndarray, scale: int, among: Sequence[str]) -> tuple[str, ...]:
    """The borders with which MATLAB's bicubic makes an LR image, H×W×3, of its HR image, sH×sW×3, value for value."""
    if scale == 1:
        return ()
    return tuple(border for border in among if np.array_equal(imresize(hr, 1 / Fraction(scale), border), lr))


def describe_protocol(
    sizes: Sequence[tuple[int, int]], borders: Sequence[tuple[str, ...]], metrics: dict[str, dict[str, Any]], scale: int
) -> dict[str, Any]:
    """How a data set was measured.

    Args:
        sizes: height and width of each HR image, as it was compared with the result.
        borders: of each pair, see ``lr_borders``.
        metrics: ``val: metrics:`` of the options.

    Returns:
        scale and number of images; hr_multiple, the largest of 12, the scale and 1 that divides all sizes; lr, where
        the LR images come from; and all arguments of each metric's function.
    """
    divisor = gcd(*(side for size in sizes for side in size))
    border = next((border for border in BORDERS if all(border in found for found in borders)), None)
    return {
        'scale': scale,
        'images': len(sizes),
        'hr_multiple': next(multiple for multiple in (MULTIPLE, scale, 1) if divisor % multiple == 0),
        'lr': LR_SOURCES.get(border, GIVEN),
        'metrics': {name: with_defaults(metric) for name, metric in metrics.items()},
    }


def with_defaults(metric: dict[str, Any]) -> dict[str, Any]:
    """The type and all arguments of a metric; whether more is better says nothing of how it is computed."""
    parameters = inspect.signature(METRIC_REGISTRY.get(metric['type'])).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {'type': metric['type'], **defaults, **{key: value for key, value in metric.items() if key != 'better'}}

"""What a comparison compares: networks and stored results, each of which gives its result for an image."""

from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.utils import img2tensor, tensor2img
from torch import nn

from earn_plugin.convert.networks import ENDINGS, NetworkChoice
from earn_plugin.data.bicubic import crop_to_multiple, imresize
from earn_plugin.devices import find_device
from earn_plugin.errors import UsageError, UserError, reason_of
from earn_plugin.figures.result_images import find_result, read_as_basicsr, shown_size
from earn_plugin.inference.network_file import open_network
from earn_plugin.inference.padding import for_any_size
from earn_plugin.inference.tiles import TiledNetwork
from earn_plugin.inference.upscaling import measure_scale
from earn_plugin.weights import absence

SSIM_WINDOW = 11  # pixels


class ComparedImage(NamedTuple):
    """An HR image, cropped to a multiple of the scale, and its LR image: H×W×3, BGR, uint8."""

    path: Path
    target: np.ndarray
    lr: np.ndarray
    scale: int


def read_compared_image(path: Path, scale: int, lr: Path | None = None) -> ComparedImage:
    """An HR image and its LR image, which is made by MATLAB's bicubic unless its file is given.

    Raises:
        UserError: an image cannot be decoded, HR is too small to be measured, or LR has not its size by the scale.
    """
    target = crop_to_multiple(read_as_basicsr(path), scale)
    if min(target.shape[:2]) < (smallest := 2 * scale + SSIM_WINDOW):
        raise UserError(f'{path} is too small for SSIM: height and width must be at least {smallest} pixels')
    if lr is None:
        return ComparedImage(path, target, imresize(target, Fraction(1, scale)), scale)
    image, expected = read_as_basicsr(lr), shown_size(target[::scale, ::scale])
    if shown_size(image) != expected:
        raise UserError(f'{lr} must have {expected} pixels for {path} and scale {scale}, has {shown_size(image)}')
    return ComparedImage(path, target, image, scale)


class NetworkMethod:
    """A network, N×C×H×W in [0, 1] → N×C×sH×sW, which runs in tiles that equal the whole image.

    Raises:
        UserError: it does not enlarge images by a whole number.
    """

    def __init__(self, label: str, source: Path | str, network: nn.Module, device: str | None = None):
        self.label, self.source = label, source
        try:
            channels, self.scale = measure_scale(network)
        except UserError as error:
            raise UserError(f'{source}: {error}') from error
        network = for_any_size(network, channels, self.scale)
        self.tiled = TiledNetwork(network, self.scale, channels=channels, device=find_device(device))

    def files(self, paths: list[Path], scale: int) -> list[Path]:
        """The files that it needs for HR images."""
        return [Path(self.source)]

    @torch.inference_mode()
    def result(self, image: ComparedImage) -> np.ndarray:
        """H×W×3, BGR, rounded as BasicSR rounds.

        Raises:
            UserError: the network fails, or takes grey images only.
        """
        lr = img2tensor(image.lr.astype(np.float32) / 255)[None]
        if self.tiled.channels == 1:
            if (lr != lr[:, :1]).any():
                raise UserError(f'{self.label} enlarges grey images only, and {image.path} is in colour')
            lr = lr[:, :1]
        result = np.empty_like(image.target)
        try:
            if (way := self.tiled.describe(lr)) != 'whole image':
                print(f'{self.label}, {image.path.name}: {way}')
            for top, left, part in self.tiled.parts(lr):
                if not part.isfinite().all():
                    raise ValueError('it returns NaN or infinite values')
                place = slice(top, top + part.shape[2]), slice(left, left + part.shape[3])
                result[place] = tensor2img(part).reshape(*part.shape[2:], -1)
        except Exception as error:  # networks may raise anything
            raise UserError(f'{self.label} fails on {image.path}: {reason_of(error)}') from error
        return result


class StoredMethod:
    """Results in a folder, see ``result_images.find_result``, or in a file for a single image."""

    scale = None  # any

    def __init__(self, label: str, source: Path | str):
        self.label, self.source = label, Path(source)

    def files(self, paths: list[Path], scale: int) -> list[Path]:
        """The results for HR images; raises as ``files_for``."""
        return files_for(paths, self.source, scale)

    def result(self, image: ComparedImage) -> np.ndarray:
        """H×W×3, BGR, uint8; of a method that does not crop HR, the part that is compared.

        Raises:
            UserError: it cannot be decoded, or has another size.
        """
        (path,) = self.files([image.path], image.scale)
        stored = read_as_basicsr(path)
        result, expected = crop_to_multiple(stored, image.scale), shown_size(image.target)
        if shown_size(result) != expected:
            raise UserError(f'{path} must have {expected} pixels as {image.path}, has {shown_size(stored)}')
        return result


def method_of(
    label: str,
    source: Path,
    *,
    arguments: dict[str, Any],
    arch: str | None = None,
    scale: int | None = None,
    device: str | None = None,
) -> NetworkMethod | StoredMethod:
    """A checkpoint or an ONNX file as a network; anything else as stored results.

    Args:
        label: empty for a checkpoint's registered network, the ONNX file's name, or that of the results.
        arguments, arch: of a checkpoint, as ``load`` takes them.
        scale: of a checkpoint from whose weights it cannot be inferred.

    Raises:
        UsageError: there is neither such a file or folder nor such a network.
        UserError: as ``open_network`` and ``NetworkMethod``.
    """
    is_onnx = source.suffix == '.onnx'
    if not is_onnx and not NetworkChoice(str(source)).is_checkpoint:
        if not source.exists():
            raise UsageError(absence(source))
        return StoredMethod(label or name_of_results(source), source)
    try:
        network = open_network(source, arguments, arch)
    except UsageError:  # its scale may have to be given
        if is_onnx or scale is None:
            raise
        network = open_network(source, {**arguments, 'upscale': scale}, arch)
    own_name = type(network).__name__ if source.name.endswith(ENDINGS) else source.stem
    return NetworkMethod(label or own_name, source, network, device)


def name_of_results(source: Path) -> str:
    """NAME of results/NAME/visualization/SET; else the name of the folder, or of the image without its ending."""
    *_, run, parent, name = ('', '', *source.absolute().parts)
    if parent == 'visualization':
        return run
    return name if source.is_dir() else source.stem


def files_for(paths: list[Path], source: Path, scale: int) -> list[Path]:
    """The files of a folder that belong to HR images, see ``find_result``; or a single file for a single image.

    Raises:
        UserError: a file is missing, or it is one for several images.
    """
    if source.is_dir():
        return [find_result(source, path, scale) for path in paths]
    if not source.exists():
        raise UsageError(f'{source} does not exist')
    if len(paths) > 1:
        raise UsageError(f'{source} is one file for {len(paths)} images: give the folder of all')
    return [source]

"""Compares methods on images, as papers do: their results, PSNR and SSIM, and a sheet of what they make of a region."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils import img2tensor, tensor2img
from torch import nn

from earn_plugin.atomic_files import write_file
from earn_plugin.data.bicubic import crop_to_multiple, imresize
from earn_plugin.devices import find_device
from earn_plugin.errors import UsageError, UserError, reason_of
from earn_plugin.figures.comparison_sheet import SheetRow, draw_sheet
from earn_plugin.figures.region import Region, choose_region, usual_size
from earn_plugin.figures.result_images import find_result, read_as_basicsr
from earn_plugin.figures.style import check_format, drawing, save_figure
from earn_plugin.inference.padding import for_any_size
from earn_plugin.inference.tiles import TiledNetwork
from earn_plugin.inference.upscaling import measure_scale
from earn_plugin.metrics.fast_metrics import fast_metrics

WINDOW = 11  # of SSIM
MEASURED = 'PSNR (dB) / SSIM on Y of the whole image without a border of {} pixels'


class ComparedImage(NamedTuple):
    """An HR image, cropped to a multiple of the scale, and its LR image: H×W×3, BGR, uint8."""

    path: Path
    target: np.ndarray
    lr: np.ndarray


def compare_methods(
    images: Sequence[Path | str],
    methods: dict[str, nn.Module | Path | str],
    *,
    scale: int | None = None,
    lr: Path | str | None = None,
    region: Sequence[int] | None = None,
    output: Path | str = 'sheet.png',
    columns: int = 2,
    report: Path | str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Draw a comparison sheet: each image with a marked region, and the region by HR, bicubic and each method.

    Below the crops stand PSNR and SSIM of the whole images, computed by BasicSR on Y without a border of ``scale``
    pixels; the best are bold. Networks run in tiles that equal the whole image.

    Args:
        images: files of HR images, one row of the sheet each; cropped to a multiple of the scale.
        methods: by their labels; a network, N×C×H×W in [0, 1] → N×C×sH×sW; or the folder of its results, or a file.
        scale: s; by default the networks', or that of ``lr``.
        lr: the LR image of a single image, or a folder of them; by default made by MATLAB's bicubic.
        region: x, y, width and height in pixels of HR; only width and height, or None for a usual size, if it is to be
            where the methods differ most.
        output: .png, .svg or .pdf.
        columns: width of the sheet, 1 or 2 columns of a paper.
        report: a JSON file for the numbers.
        device: what networks compute on; None for the GPU where there is one.

    Returns:
        The numbers as in ``report``.

    Raises:
        UsageError: arguments that do not fit one another, before anything is computed.
        UserError: an image or network cannot be used.
    """
    images, output = [Path(path) for path in images], Path(output)
    check_format(output)
    for path in images:
        if not path.is_file():
            raise UsageError(f'{path} {"is a folder: name its images" if path.is_dir() else "does not exist"}')
    networks = {label: method for label, method in methods.items() if isinstance(method, nn.Module)}
    files = {label: Path(method) for label, method in methods.items() if label not in networks}
    tiled = {label: _tiled(label, network, device) for label, network in networks.items()}
    scale = _common_scale(scale, {label: network.scale for label, network in tiled.items()}, images, lr)
    compared = [_read(path, scale, lr) for path in images]
    found = {
        label: [_result_path(path, image.path, scale, len(images)) for image in compared]
        for label, path in files.items()
    }
    rows, entries = [], []
    with drawing():  # which is not possible without matplotlib: fail before the work
        for number, image in enumerate(compared):
            results = {'bicubic': imresize(image.lr, scale)}
            for label in methods:
                if label in tiled:
                    results[label] = _enlarge(label, tiled[label], image)
                else:
                    results[label] = _read_result(found[label][number], image, scale)
            metrics = {label: _measure(result, image.target, scale) for label, result in results.items()}
            chosen = _region(region, image, results, scale)
            crops = {label: result[chosen.part] for label, result in {'HR': image.target, **results}.items()}
            rows.append(SheetRow(f'{image.path.stem} (×{scale})', image.target, chosen, crops, metrics))
            entries.append({'image': str(image.path), 'region': chosen._asdict(), 'methods': metrics})
        numbers = {
            'scale': scale,
            'measured': MEASURED.format(scale),
            'lr': "MATLAB's bicubic" if lr is None else str(lr),
            'sources': {label: str(files.get(label, 'network')) for label in methods},
            'images': entries,
        }
        save_figure(draw_sheet(rows, columns, MEASURED.format(scale)), output)
    if report is not None:
        write_file(Path(report), json.dumps(numbers, indent=2, ensure_ascii=False).encode())
    return numbers


def comparison_table(numbers: dict[str, Any]) -> str:
    """The numbers of ``compare_methods``: for each image its region, and a line for each method."""
    lines = [numbers['measured']]
    for entry in numbers['images']:
        place = ', '.join(f'{name} {value}' for name, value in entry['region'].items())
        lines.append(f'{entry["image"]} ({place})')
        width = max(map(len, entry['methods']))
        for label, metrics in entry['methods'].items():
            lines.append(f'  {label:<{width}}  {metrics["psnr"]:.4f}  {metrics["ssim"]:.4f}')
    return '\n'.join(lines)


def _tiled(label: str, network: nn.Module, device: str | None) -> TiledNetwork:
    try:
        channels, scale = measure_scale(network)
    except UserError as error:
        raise UserError(f'{label}: {error}') from error
    return TiledNetwork(for_any_size(network, channels, scale), scale, channels=channels, device=find_device(device))


def _common_scale(given: int | None, of_networks: dict[str, int], images: list[Path], lr: Path | str | None) -> int:
    """The scale that all agree on."""
    if given is not None and given < 1:
        raise UsageError(f'--scale must be at least 1, got {given}')
    scales = {**({'--scale': given} if given else {}), **of_networks}
    if not scales and lr is not None and Path(lr).is_file():
        scales['--lr'] = round(read_as_basicsr(images[0]).shape[0] / read_as_basicsr(Path(lr)).shape[0])
    if not scales:
        raise UsageError('the scale is not known from folders of results: pass --scale S')
    if len(set(scales.values())) > 1:
        raise UsageError(f'the scales differ: {", ".join(f"{name} ×{scale}" for name, scale in scales.items())}')
    return next(iter(scales.values()))


def _read(path: Path, scale: int, lr: Path | str | None) -> ComparedImage:
    target = crop_to_multiple(read_as_basicsr(path), scale)
    smallest = 2 * scale + WINDOW
    if min(target.shape[:2]) < smallest:
        raise UserError(f'{path} is too small for SSIM: both sides must be at least {smallest} pixels')
    if lr is None:
        return ComparedImage(path, target, imresize(target, Fraction(1, scale)))
    lr = Path(lr)
    lr_path = find_result(lr, path, scale) if lr.is_dir() else lr
    image = read_as_basicsr(lr_path)
    expected = target.shape[0] // scale, target.shape[1] // scale
    if image.shape[:2] != expected:
        raise UserError(
            f'{lr_path} must have {_size(expected)} pixels for {path} and scale {scale}, has {_size(image.shape)}'
        )
    return ComparedImage(path, target, image)


def _size(shape: Sequence[int]) -> str:
    return f'{shape[1]}×{shape[0]}'


def _result_path(path: Path, hr: Path, scale: int, count: int) -> Path:
    if path.is_dir():
        return find_result(path, hr, scale)
    if not path.exists():
        raise UsageError(f'{path} does not exist: name a checkpoint, a folder of results, or an image')
    if count > 1:
        raise UsageError(f'{path} is one file, for {count} images: name the folder of the results')
    return path


def _read_result(path: Path, image: ComparedImage, scale: int) -> np.ndarray:
    stored = read_as_basicsr(path)
    result = crop_to_multiple(stored, scale)  # results of a method that does not crop HR
    if result.shape != image.target.shape:
        raise UserError(
            f'{path} must have {_size(image.target.shape)} pixels as {image.path}, has {_size(stored.shape)}'
        )
    return result


@torch.inference_mode()
def _enlarge(label: str, tiled: TiledNetwork, image: ComparedImage) -> np.ndarray:
    """A network's result, rounded as BasicSR rounds."""
    lr = img2tensor(image.lr.astype(np.float32) / 255)[None]
    if tiled.channels == 1:
        if (lr != lr[:, :1]).any():
            raise UserError(f'{label} enlarges grey images only, and {image.path} is in colour')
        lr = lr[:, :1]
    if (text := tiled.describe(lr)) != 'whole image':
        print(f'{label}, {image.path.stem}: {text}')
    result = np.empty_like(image.target)
    try:
        for top, left, part in tiled.parts(lr):
            if not part.isfinite().all():
                raise ValueError('returns NaN or infinite values')
            place = slice(top, top + part.shape[2]), slice(left, left + part.shape[3])
            result[place] = tensor2img(part).reshape(*part.shape[2:], -1)
    except Exception as error:  # networks may raise anything
        raise UserError(f'{label} fails on {image.path}: {reason_of(error)}') from error
    return result


def _measure(result: np.ndarray, target: np.ndarray, scale: int) -> dict[str, float]:
    with fast_metrics():
        settings = {'crop_border': scale, 'test_y_channel': True}
        psnr, ssim = (metric(result, target, **settings) for metric in (calculate_psnr, calculate_ssim))
    return {'psnr': float(psnr), 'ssim': float(ssim)}


def _region(given: Sequence[int] | None, image: ComparedImage, results: dict[str, np.ndarray], scale: int) -> Region:
    """The given region, or one where the methods differ most; bicubic counts only if there is just one other."""
    rows, columns = image.target.shape[:2]
    region = Region(*((0, 0, *given) if given and len(given) == 2 else given or (0, 0, *usual_size(rows, columns))))
    x, y, width, height = region
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > columns or y + height > rows:
        raise UsageError(
            f'--region {" ".join(map(str, given))} is not within {image.path}, {_size((rows, columns))} pixels'
        )
    if given and len(given) == 4:
        return region
    compared = [result for label, result in results.items() if label != 'bicubic' or len(results) < 3]
    return choose_region(image.target, compared, (width, height), border=scale)

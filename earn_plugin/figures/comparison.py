"""Compares methods on images as papers do: by PSNR and SSIM, and by a sheet of what they make of a region."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.metrics import calculate_psnr, calculate_ssim

from earn_plugin.atomic_files import write_file
from earn_plugin.data.bicubic import imresize
from earn_plugin.data.image_files import read_image
from earn_plugin.errors import UsageError
from earn_plugin.figures.compared_methods import (
    ComparedImage,
    NetworkMethod,
    StoredMethod,
    files_for,
    read_compared_image,
)
from earn_plugin.figures.comparison_sheet import HR, SheetRow, draw_sheet
from earn_plugin.figures.region import Region, choose_region, usual_size
from earn_plugin.figures.result_images import shown_size
from earn_plugin.figures.style import check_format, drawing, save_figure
from earn_plugin.metrics.fast_metrics import fast_metrics

BICUBIC = 'Bicubic'
MEASURED = 'PSNR (dB)/SSIM on Y of the whole image without a border of {} pixels'


def compare_methods(
    images: Sequence[Path | str],
    methods: Sequence[NetworkMethod | StoredMethod],
    *,
    scale: int | None = None,
    lr: Path | str | None = None,
    region: Sequence[int] | None = None,
    output: Path | str = 'sheet.png',
    columns: int = 2,
    report: Path | str | None = None,
) -> dict[str, Any]:
    """Draw a comparison sheet: each image with a marked region, and the region by HR, bicubic and each method.

    Below the crops stand PSNR and SSIM of the whole images, computed by BasicSR on Y without a border of ``scale``
    pixels; the best are bold.

    Args:
        images: files of HR images, one row of the sheet each; cropped to a multiple of the scale.
        methods: in the order of the sheet.
        scale: s; by default the networks', or that of ``lr``.
        lr: the LR image of a single image, or a folder of them; by default made by MATLAB's bicubic.
        region: x, y, width and height in pixels of HR; only width and height, or None for a usual size, if it is to be
            where the methods differ most.
        output: .png, .svg or .pdf.
        columns: width of the sheet, 1 or 2 columns of a paper.
        report: a JSON file for the numbers.

    Returns:
        The numbers as in ``report``; an infinite PSNR is None.

    Raises:
        UsageError: arguments that do not fit one another, before anything is computed.
        UserError: an image or network cannot be used, or matplotlib is not installed.
    """
    paths, output, lr = [Path(path) for path in images], Path(output), None if lr is None else Path(lr)
    check_format(output)
    labels = [HR, BICUBIC, *(method.label for method in methods)]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise UsageError(f'several are labelled {twice.pop()}: give other labels, NAME=SOURCE')
    for path in paths:
        if not path.is_file():
            raise UsageError(f'{path} {"is a folder: name its images" if path.is_dir() else "does not exist"}')
    scale = _common_scale(scale, methods, paths[0], lr)
    lrs = [None] * len(paths) if lr is None else files_for(paths, lr, scale)
    files = [*paths, *filter(None, lrs), *(file for method in methods for file in method.files(paths, scale))]
    for written in filter(None, (output, report)):
        if Path(written).resolve() in map(Path.resolve, files):
            raise UsageError(f'{written} is compared, and would be replaced: write to another file')
    compared = [read_compared_image(path, scale, file) for path, file in zip(paths, lrs, strict=True)]
    for image in compared:
        _check_region(region, image)
    note = MEASURED.format(scale)
    with drawing(), fast_metrics():  # without matplotlib it fails before the work
        rows = [_compare_on(image, methods, region) for image in compared]
        save_figure(draw_sheet(rows, columns, note), output)
    numbers = {
        'scale': scale,
        'measured': note,
        'lr': "MATLAB's bicubic" if lr is None else str(lr),
        'sources': {method.label: str(method.source) for method in methods},
        'images': [_numbers(path, row) for path, row in zip(paths, rows, strict=True)],
    }
    if report is not None:
        content = json.dumps(numbers, indent=2, ensure_ascii=False)
        write_file(
            Path(report), content.encode(errors='backslashreplace')
        )  # names may be no Unicode; so escaped in JSON
    return numbers


def comparison_table(numbers: dict[str, Any]) -> str:
    """The numbers of ``compare_methods``: for each image its region, and a line for each method."""
    lines = [numbers['measured']]
    for entry in numbers['images']:
        place = ', '.join(f'{name} {value}' for name, value in entry['region'].items())
        lines.append(f'{entry["image"]} ({place})')
        width = max(map(len, entry['methods']))
        for label, metrics in entry['methods'].items():
            psnr = math.inf if metrics['psnr'] is None else metrics['psnr']
            lines.append(f'  {label:<{width}}  {psnr:7.4f}  {metrics["ssim"]:.4f}')
    return '\n'.join(lines)


def _common_scale(given: int | None, methods: Sequence[NetworkMethod | StoredMethod], hr: Path, lr: Path | None) -> int:
    """The scale that all agree on."""
    scales = {method.label: method.scale for method in methods if method.scale}
    if given is not None:
        scales['--scale'] = given
    elif not scales and lr is not None and lr.is_file():
        scales['--lr'] = round(read_image(hr).shape[0] / read_image(lr).shape[0])
    if not scales:
        raise UsageError('results of others do not say by how much they were enlarged: pass --scale S')
    if min(scales.values()) < 1:
        raise UsageError(f'the scale must be at least 1, got {min(scales.values())} by {min(scales, key=scales.get)}')
    if len(set(scales.values())) > 1:
        raise UsageError(f'the scales differ: {", ".join(f"{name} ×{scale}" for name, scale in scales.items())}')
    return next(iter(scales.values()))


def _check_region(given: Sequence[int] | None, image: ComparedImage) -> None:
    """Raise UsageError for a region, or a size of one, that is not within an image."""
    if given is None:
        return
    x, y, width, height = (0, 0, *given)[-4:]
    rows, columns = image.target.shape[:2]
    if min(x, y) < 0 or min(width, height) < 1 or x + width > columns or y + height > rows:
        where = f'{image.path}, which has {shown_size(image.target)} pixels'
        raise UsageError(f'--region {" ".join(map(str, given))} is not within {where}')


def _compare_on(
    image: ComparedImage, methods: Sequence[NetworkMethod | StoredMethod], region: Sequence[int] | None
) -> SheetRow:
    results = {method.label: method.result(image) for method in methods}
    bicubic = imresize(image.lr, image.scale)
    if region is not None and len(region) == 4:
        region = Region(*region)
    else:
        differing = [*results.values(), *([bicubic] if len(results) == 1 else [])]  # bicubic would differ most
        size = region or usual_size(*image.target.shape[:2])
        region = choose_region(image.target, differing, size, border=image.scale)
    results = {BICUBIC: bicubic, **results}
    metrics = {label: _measure(result, image) for label, result in results.items()}
    crops = {label: whole[region.part].copy() for label, whole in {HR: image.target, **results}.items()}
    return SheetRow(f'{image.path.stem} (×{image.scale})', image.target, region, crops, metrics)


def _measure(result: np.ndarray, image: ComparedImage) -> dict[str, float]:
    settings = {'crop_border': image.scale, 'test_y_channel': True}
    metrics = {'psnr': calculate_psnr, 'ssim': calculate_ssim}
    return {name: float(metric(result, image.target, **settings)) for name, metric in metrics.items()}


def _numbers(path: Path, row: SheetRow) -> dict[str, Any]:
    """What the report has of an image; JSON has no infinite numbers."""
    methods = {
        label: {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        for label, metrics in row.metrics.items()
    }
    return {'image': str(path), 'region': row.region._asdict(), 'methods': methods}

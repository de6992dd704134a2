"""The sections of a report on validation images: their metrics, and pictures before and after."""

from collections.abc import Sequence

import numpy as np

from earn_plugin.errors import UserError
from earn_plugin.figures.curves import LABELS
from earn_plugin.figures.region import Region
from earn_plugin.metrics.bicubic_baseline import mean_metrics
from earn_plugin.report.inline_pictures import LOSSLESS, LOSSY, data_uri, webp
from earn_plugin.report.report_page import Html, NumberCell, Slider, element, heading, join, paragraph, slider, table
from earn_plugin.report.reported_run import ReportedRun, needed
from earn_plugin.report.validation_pictures import (
    MeasuredImage,
    ValidationComparison,
    Versions,
    better_sign,
    cut,
    part_to_show,
    spread,
)

LARGEST = 6_000_000  # bytes of all lossless pictures; as base64 they take a third more


def gain_cell(value: float, bicubic: float, sign: int) -> NumberCell:
    change = value - bicubic
    return NumberCell(f'{change:+.4f}', change, 'good' if sign * change > 0 else 'bad' if change else '')


def metrics_of_images(reported: ReportedRun) -> Html:
    """A table for each validation set: bicubic, network and difference of each metric, by image."""
    parts = []
    if isinstance(reported.found, UserError):
        parts.append(paragraph(f'Bicubic alone: {reported.found}.', 'missing'))
    for comparison, images in needed(reported.compared):
        parts.append(heading(comparison.name))
        if not comparison.metrics:
            parts.append(paragraph('Without HR images there are no metrics.', 'missing'))
            continue
        parts.append(table_of_metrics(reported, comparison, images))
    return join(parts)


def table_of_metrics(reported: ReportedRun, comparison: ValidationComparison, images: Sequence[MeasuredImage]) -> Html:
    has_network = not isinstance(reported.found, UserError)
    names = list(comparison.metrics)
    headings, arch = ['image'], reported.found.arch if has_network else ''
    for name in names:
        label = LABELS.get(name, name).removesuffix(' (dB)')
        headings += [f'bicubic {label}', *([f'{arch} {label}', f'{label} difference'] if has_network else [])]

    def row(title: str, bicubic: dict[str, float], network: dict[str, float]) -> list[object]:
        cells: list[object] = [title]
        for name in names:
            cells.append(NumberCell(f'{bicubic[name]:.4f}', bicubic[name]))
            if has_network:
                cells.append(NumberCell(f'{network[name]:.4f}', network[name]))
                cells.append(gain_cell(network[name], bicubic[name], better_sign(comparison.metrics[name])))
        return cells

    means = (mean_metrics([getattr(image, kind) for image in images]) for kind in ('bicubic', 'network'))
    rows = [row(image.name, image.bicubic, image.network) for image in images]
    foot = row('mean', *means)
    caption = f'{len(images)} images of {comparison.name}; a heading sorts by its column'
    return table(caption, headings, rows, foot, sort=True)


def images(reported: ReportedRun) -> Html:
    """Sliders between bicubic, or HR, and the network's results, for some images of each validation set."""
    found, sets = needed(reported.found), needed(reported.compared)
    shown: list[tuple[str, str, Versions]] = []
    for comparison, compared in sets:
        for image in spread(compared, reported.count):
            versions = comparison.versions(image.index)
            part = part_to_show(versions, comparison.scale)
            title = image.name if len(sets) == 1 else f'{image.name} ({comparison.name})'
            caption = ', '.join([*values(image), shown_part(versions.bicubic, part)])
            shown.append((title, caption, cut(versions, part, comparison.scale)))
    encoded = [as_webp(versions) for *_, versions in shown]
    if is_lossy := sum(len(content) for one in encoded for content in one.values()) > LARGEST:
        encoded = [as_webp(versions, LOSSY) for *_, versions in shown]
    sliders = []
    for number, ((title, caption, versions), contents) in enumerate(zip(shown, encoded, strict=True)):
        uris = {kind: data_uri(content) for kind, content in contents.items()}
        height, width = versions.bicubic.shape[:2]
        sliders.append(slider(number, Slider(title, caption, (width, height), uris, uris.pop('network'), found.arch)))
    total = sum(len(compared) for _, compared in sets)
    which = f'{len(shown)} of {total} validation images' if len(shown) < total else 'All validation images'
    stored = f'WebP of quality {LOSSY}; metrics are those of the original images' if is_lossy else 'lossless WebP'
    note = f'{which}, from the largest gain over bicubic to the smallest, as {stored}.'
    how = 'Move the slider by mouse, touch or arrow keys.'
    return join([paragraph(f'{note} {how}', 'quiet'), element('div', join(sliders), class_='comparisons')])


def as_webp(versions: Versions, quality: int = LOSSLESS) -> dict[str, bytes]:
    """The enlarged pictures as WebP, by name; HR where there is one."""
    kinds = ('bicubic', 'hr', 'network')
    return {kind: webp(image, quality) for kind in kinds if (image := getattr(versions, kind)) is not None}


def values(image: MeasuredImage) -> list[str]:
    """'PSNR (dB) 29.8123 (+0.4091)' for each metric."""
    return [
        f'{LABELS.get(name, name)} {value:.4f} ({value - image.bicubic[name]:+.4f})'
        for name, value in image.network.items()
    ]


def shown_part(picture: np.ndarray, part: Region) -> str:
    height, width = picture.shape[:2]
    if (part.width, part.height) == (width, height):
        return f'{width}×{height} pixels'
    return (
        f'{part.width}×{part.height} pixels at ({part.x}, {part.y}) of {width}×{height}, where the results differ most'
    )

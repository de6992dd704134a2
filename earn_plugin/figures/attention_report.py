"""The figures and numbers of a network's attentions for images, from files to files."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from earn_plugin.atomic_files import write_file
from earn_plugin.convert.networks import NetworkChoice, find_network, output_of
from earn_plugin.devices import find_device
from earn_plugin.errors import UsageError, UserError
from earn_plugin.figures.attention_figure import Panel, panels_of_image, panels_of_network
from earn_plugin.figures.attention_maps import Reading, recorded_attention, sources_of
from earn_plugin.figures.attention_numbers import frequency_correlations, numbers_of, stacked
from earn_plugin.figures.style import FORMATS, WIDTHS, check_format, drawing, save_figure
from earn_plugin.inference.picture_files import format_of, on_white, read_picture
from earn_plugin.inference.targets import UNWRITABLE, find_targets

LUMA = (0.299, 0.587, 0.114)  # of RGB, as in BT.601
SPACE = 0.2  # inches between the parts of a figure


class Subject(NamedTuple):
    """An image to examine: its file, how the names of its figures begin, H×W×3 in [0, 1], and the chosen pixel."""

    path: Path
    stem: Path
    image: np.ndarray
    pixel: tuple[int, int]


class Examined(NamedTuple):
    """What the attentions did for an image, and the correlations of its maps with its frequencies."""

    subject: Subject
    readings: list[Reading]
    correlations: dict[str, np.ndarray]


def draw_attention(
    choice: NetworkChoice,
    sources: Sequence[Path],
    target: Path,
    *,
    pixel: Sequence[int] | None = None,
    columns: int = 2,
    format: str = 'png',
    json_path: Path | None = None,
    device: str | None = None,
) -> str:
    """Draw what the attentions of a network do for images.

    Args:
        choice: a network in its training form; for a registered name with initial weights from a fixed seed.
        sources: pictures, folders with their subfolders, or patterns.
        target: a folder, for a figure of each kind, or a file, for one figure; for several images this has no maps.
        pixel: column and row of the pixel whose non-local attention is shown; None for the middle.
        columns: 1 or 2, whose width the figures have.
        format: of the figures in a folder: 'png', 'svg' or 'pdf'.
        json_path: where to write the numbers.
        device: to compute on; None for the GPU where there is one.

    Returns:
        What was found and written.

    Raises:
        UsageError: the network has no attention, an argument does not fit, or an output would replace an input.
        UserError: a picture or a figure cannot be read or written, or the network fails.
    """
    one_file, device = _is_file(target), find_device(device)
    torch.manual_seed(0)
    found = find_network(choice)
    kinds = {source.kind for source, _ in sources_of(found.network)}
    lines = [] if choice.is_checkpoint else [f'{choice.model} has its initial weights: nothing shown here is learned']
    if pixel and 'non_local_attention' not in kinds:
        lines.append(f'--pixel is not used: {found.arch} has no non-local attention')
    subjects = _subjects(sources, target, pixel)

    with drawing():
        network, channels = found.network.to(device), found.arguments.get('num_in_ch', 3)
        examined = [_examine(network, subject, channels) for subject in tqdm(subjects, unit='image', disable=None)]
        if 'branch_weights' in kinds:
            weights = stacked([item.readings for item in examined], 'branch_weights').mean(0)[:, 0]
            lines.append(f'attention weights by block: {" ".join(f"{weight:.2f}" for weight in weights)}')
        panels = _panels(examined, columns, has_maps=len(examined) == 1 or not one_file)
        if not panels:
            raise UsageError(f'{target}: figures of several pictures need a folder, as {found.arch} has only maps')
        named = {target / f'{name}.{format}': [panel] for name, panel in panels.items()}
        figures = {target: [*panels.values()]} if one_file else named
        outputs = [*figures, *([json_path] if json_path else [])]
        _check_outputs(outputs, [*(subject.path for subject in subjects), Path(choice.model)])
        for path, parts in figures.items():
            _save(parts, path, columns)
    if json_path is not None:
        images = [_numbers(item) for item in examined]
        content = {'network': str(found), 'model': choice.model, 'images': images}
        write_file(json_path, json.dumps(content, ensure_ascii=False).encode())
    written = target if one_file else f'{len(figures)} figures in {target}'
    return '\n'.join([*lines, f'{written} written'])


def _is_file(target: Path) -> bool:
    """Whether figures go to one file, not to a folder; raises UsageError if its ending is not that of a figure."""
    if target.is_dir():
        return False
    if format_of(target) or target.suffix.lower() in (*FORMATS, *UNWRITABLE) or target.is_file():
        check_format(target)
        return True
    return False


def _subjects(sources: Sequence[Path], target: Path, pixel: Sequence[int] | None) -> list[Subject]:
    subjects, nowhere = [], target / 'attention'  # find_targets leaves out pictures that are in its target
    for source in sources:
        for item in find_targets(source, nowhere, 'png'):
            image = _read_image(item.source)
            height, width = image.shape[:2]
            column, row = pixel or (width // 2, height // 2)
            if not (0 <= column < width and 0 <= row < height):
                raise UsageError(
                    f'--pixel {column} {row}: {item.source} has {width}×{height} pixels; X can be 0 to {width - 1}, '
                    f'Y 0 to {height - 1}'
                )
            stem = item.path.relative_to(nowhere).with_suffix('')
            subjects.append(Subject(item.source, stem, image, (column, row)))
    stem, count = Counter(subject.stem for subject in subjects).most_common(1)[0]
    if count > 1:
        raise UsageError(f'{count} pictures are named {stem}, and so would be their figures; rename them')
    return subjects


def _read_image(path: Path) -> np.ndarray:
    """H×W×3 in [0, 1]."""
    try:
        pixels = on_white(read_picture(path)).pixels
    except (UserError, OSError) as error:
        raise UserError(f'{path}: {getattr(error, "strerror", None) or error}') from error
    image = np.divide(pixels, np.iinfo(pixels.dtype).max, dtype=np.float32)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise UsageError(f'{path} would replace an input or another output; choose another name or folder')
        taken.add(path.resolve())


@torch.inference_mode()
def _examine(network: nn.Module, subject: Subject, channels: int) -> Examined:
    x = torch.from_numpy(subject.image.transpose(2, 0, 1).copy())[None]
    if channels == 1:
        if (subject.image != subject.image[..., :1]).any():
            raise UserError(f'{subject.path} is in colour, but this network enlarges grey pictures only')
        x = x[:, :1]
    with recorded_attention(network, subject.pixel) as readings:
        output_of(network, x.to(next(network.parameters()).device))
    if not all(np.isfinite(reading.values).all() for reading in readings):
        raise UserError(f'{subject.path}: attentions are NaN or infinite; the weights of the network are damaged')
    return Examined(subject, readings, frequency_correlations(readings, subject.image @ np.array(LUMA)))


def _panels(examined: Sequence[Examined], columns: int, has_maps: bool) -> dict[str, Panel]:
    """All panels, by the names of their files."""
    readings, correlations = [item.readings for item in examined], [item.correlations for item in examined]
    stem = f'{examined[0].subject.stem}_' if len(examined) == 1 else ''
    panels = {f'{stem}{panel.name}': panel for panel in panels_of_network(readings, correlations, columns)}
    for subject, read, _ in examined if has_maps else ():
        for panel in panels_of_image(subject.image, read, subject.pixel, columns):
            panels[f'{subject.stem}_{panel.name}'] = panel
    return panels


def _numbers(item: Examined) -> dict[str, Any]:
    height, width, _ = item.subject.image.shape
    about = {'image': str(item.subject.path), 'size': [width, height], 'pixel': [*item.subject.pixel]}
    return {**about, **numbers_of(item.readings, item.correlations)}


def _save(panels: Sequence[Panel], path: Path, columns: int) -> None:
    """The panels below each other in one figure."""
    from matplotlib.figure import Figure

    heights = [height for panel in panels for height in (panel.height, SPACE)][:-1]
    figure = Figure(figsize=(WIDTHS[columns], sum(heights)))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[::2, 0]
    for panel, part in zip(panels, parts, strict=True):
        panel.draw(part)
    save_figure(figure, path)

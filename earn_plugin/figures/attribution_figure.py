"""Attribution maps of several networks as a figure: the input with its window, and three pictures for each network."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earn_plugin.errors import UsageError
from earn_plugin.figures.attribution import contribution_area
from earn_plugin.figures.attribution_table import AttributionTable
from earn_plugin.figures.labels import wrap
from earn_plugin.figures.style import WIDTHS, check_format, drawing, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = {1: 3, 2: 8}  # networks that are legible in so many columns
LABELS, GAP, LINE = 0.27, 0.04, 0.125  # inches: next to the rows, between pictures, a line of text
ROW = 0.66  # what the label of a row takes
PAGE = 8.4  # most that the three rows take
SIZE = 7  # of the text, in points
BLEND = 0.5  # of the colours in the maps over the input, as the authors'
MAP = 'seismic'  # of which half is used, from white over red to dark: darker in grey, too


def check_attribution_figure(path: Path, networks: int, columns: int) -> None:
    """Raise UserError, before anything is computed, unless such a figure can be drawn."""
    check_format(path)
    if networks > MOST[columns]:
        remedy = '--columns 2' if columns == 1 and networks <= MOST[2] else 'draw several figures'
        raise UsageError(f'a figure of this width shows at most {MOST[columns]} networks, got {networks}: {remedy}')
    with drawing():
        pass


def draw_attribution(table: AttributionTable, path: Path, columns: int = 2) -> None:
    """Draw the figure, one or two columns of a paper wide."""
    with drawing():
        save_figure(attribution_figure(table, columns), path)


def attribution_figure(table: AttributionTable, columns: int) -> 'Figure':
    """The input at twice the size of the others; below each network its DI. To be called in ``drawing``."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    height, width = table.image.shape[:2]
    unit = (WIDTHS[columns] - LABELS - GAP * (len(table.attributions) - 1)) / (2 + len(table.attributions))
    unit = min(unit, PAGE / 3 * width / height)
    tall = unit * height / width
    wrapped = [wrap(label, unit, SIZE) for label in table.attributions]
    pitch, overhang = max(tall + GAP, ROW), (ROW - tall) / 2
    above, below = max(LINE * max(map(len, wrapped)) + GAP, overhang), max(LINE + GAP, overhang)
    total = above + 2 * pitch + tall + below
    figure = Figure(figsize=(WIDTHS[columns], total))

    def panel(picture: np.ndarray, left: float, middle: float, size: float = 1):
        """A picture, with its left and its middle in inches from the top left; ``size`` times that of a map."""
        place = (left, total - middle - size * tall / 2, size * unit, size * tall)
        axes = figure.add_axes([inches / (WIDTHS[columns], total)[n % 2] for n, inches in enumerate(place)])
        axes.imshow(picture, vmin=0, vmax=1, extent=(0, width, height, 0), interpolation='nearest', cmap='gray')
        axes.set(xticks=[], yticks=[])
        return axes

    def text(content: str, x: float, top: float, **settings) -> None:
        settings = {'fontsize': SIZE, 'ha': 'center', 'va': 'center', 'parse_math': False, **settings}
        figure.text(x / WIDTHS[columns], 1 - top / total, content, **settings)

    colours = matplotlib.colormaps[MAP]
    grey_or_rgb = np.broadcast_to(table.image, (height, width, 3))
    axes = panel(grey_or_rgb, 0, above + tall, 2)
    corner, side = (table.window.x / table.scale, table.window.y / table.scale), table.window.size / table.scale
    for colour, line in (('white', 2), ('#d00000', 0.9)):  # seen on any picture, also in grey
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=line))
    text(f'input, {width}×{height}', unit, above - GAP, va='baseline')
    names = ('attribution', 'over input', 'area of\ncontribution')
    for n, (lines, found) in enumerate(zip(wrapped, table.attributions.values(), strict=True)):
        left = 2 * unit + LABELS + n * (unit + GAP)
        area = contribution_area(found.map)
        maps = [colours(0.5 + 0.5 * values)[..., :3] for values in (found.map, found.map, area)]
        for number, (picture, name) in enumerate(zip(maps, names, strict=True)):
            middle = above + tall / 2 + number * pitch
            panel(picture if not number else BLEND * picture + (1 - BLEND) * grey_or_rgb, left, middle)
            if not n:
                text(name, left - LABELS / 2, middle, rotation=90, linespacing=1)
        text('\n'.join(lines), left + unit / 2, above - GAP, va='baseline', linespacing=1)
        text(f'DI {found.diffusion_index:.2f}', left + unit / 2, total - below + (LINE + GAP) / 2)
    bar = figure.add_axes(
        [0.5 * unit / WIDTHS[columns], (below + tall / 2 + GAP) / total, unit / WIDTHS[columns], 0.08 / total]
    )
    bar.imshow(colours(np.linspace(0.5, 1, 256))[None], aspect='auto', extent=(0, 1, 0, 1))
    bar.set(yticks=[], xticks=(0, 0.5, 1), xlabel='contribution (largest = 1)')
    bar.xaxis.label.set_fontsize(SIZE)
    return figure

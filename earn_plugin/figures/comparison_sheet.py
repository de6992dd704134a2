"""The sheet of a comparison: each image with a marked region, and next to it the enlarged crops of the region."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from earn_plugin.figures.labels import text_width, wrap
from earn_plugin.figures.region import Region
from earn_plugin.figures.style import WIDTHS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# inches
GAP = 0.05
HIGHEST = 3.4  # of an image with its crops
HIGHEST_ABOVE = 1.8  # of an image above its crops
NARROWEST = 0.55  # column of an image at the left
ASPECTS = (0.5, 4)  # of the cells for crops; others are centred in one of these
FONT, NOTE_FONT = 6.5, 5.5  # points
LINE = 1.35 / 72 * FONT
SPACE = 0.3  # lines below a text
FRAME = {'edgecolor': '0.4', 'linewidth': 0.3, 'fill': False}  # white crops end somewhere
MARK = '#ffd000'  # on black: seen on any image, also in grey
HR, HEADER = 'HR', 'PSNR/SSIM'  # a crop's label, and what stands below it


@dataclass(frozen=True)
class SheetRow:
    """An image, H×W×3, BGR, uint8; its crops by their labels, HR first; and the metrics of all but HR."""

    title: str
    image: np.ndarray
    region: Region
    crops: dict[str, np.ndarray]
    metrics: dict[str, dict[str, float]]

    def captions(self) -> dict[str, list[tuple[str, bool]]]:
        """What stands below each label: the metrics, in parts that are bold or not; the best are."""
        shown = {label: (f'{m["psnr"]:.2f}', f'{m["ssim"]:.4f}') for label, m in self.metrics.items()}
        best = [max(values, key=float) for values in zip(*shown.values(), strict=True)]
        captions = {HR: [(HEADER, False)]}
        for label, (psnr, ssim) in shown.items():
            first, second = psnr == best[0], ssim == best[1]
            psnr = psnr.replace('inf', '∞')
            if first == second:
                captions[label] = [(f'{psnr}/{ssim}', first)]
            else:
                captions[label] = [(psnr, True), (f'/{ssim}', False)] if first else [(f'{psnr}/', False), (ssim, True)]
        return captions


@dataclass(frozen=True)
class RowLayout:
    """Sizes of a row in inches; with the image above its crops rather than at the left."""

    above: bool
    rows: int  # of crops
    columns: int
    image: tuple[float, float]  # width and height
    side: float  # width of the image's column
    cell: tuple[float, float]  # of a crop
    caption: float  # height of the text below a crop
    title: float  # height of the text below the image

    @property
    def block(self) -> float:
        """Height of the crops with their captions."""
        return self.rows * (self.cell[1] + self.caption) + (self.rows - 1) * GAP

    @property
    def height(self) -> float:
        own = self.image[1] + self.title
        return own + GAP + self.block if self.above else max(own, self.block)


def draw_sheet(rows: Sequence[SheetRow], columns: int, note: str) -> 'Figure':
    """The figure, one row below the other, as wide as 1 or 2 columns of a paper; ``note`` stands at the bottom."""
    from matplotlib.figure import Figure

    width = WIDTHS[columns]
    layouts = choose_layouts(rows, width)
    notes = wrap(note, width, NOTE_FONT)
    height = sum(layout.height + GAP for layout in layouts) + len(notes) * LINE + SPACE * LINE
    sheet = _Sheet(Figure(figsize=(width, height)), width, height)
    top = 0.0
    for row, layout in zip(rows, layouts, strict=True):
        sheet.draw_row(row, layout, top)
        top += layout.height + GAP
    sheet.text(notes, 0, top - GAP, size=NOTE_FONT, ha='left')
    return sheet.figure


def choose_layouts(rows: Sequence[SheetRow], width: float) -> list[RowLayout]:
    """Of the layouts that all rows can have: the one with the largest crops that is not too high, else the lowest."""
    possible, crops = [], len(rows[0].crops)
    for above in (False, True):
        for columns in sorted({-(-crops // lines) for lines in range(1, crops + 1)}):
            layouts = [row_layout(row, width, above, columns) for row in rows]
            if None not in layouts:
                possible.append(layouts)

    def merit(layouts: list[RowLayout]) -> tuple[bool, float]:
        height = sum(layout.height for layout in layouts)
        filled = crops / (layouts[0].rows * layouts[0].columns)
        fits = height <= HIGHEST * len(rows)
        return fits, filled * sum(layout.cell[0] for layout in layouts) if fits else -height

    return max(possible, key=merit)


def row_layout(row: SheetRow, width: float, above: bool, columns: int) -> RowLayout | None:
    """The layout in so many columns of crops; None if they are too narrow for the metrics."""
    lines = -(-len(row.crops) // columns)
    aspect = row.image.shape[1] / row.image.shape[0]
    cell_aspect = min(max(row.region.width / row.region.height, ASPECTS[0]), ASPECTS[1])
    narrowest = max(sum(text_width(text, FONT) for text, _ in caption) for caption in row.captions().values())
    for label_lines in count(1):
        caption = (label_lines + 1 + SPACE) * LINE
        if above:
            side = width
            cell = (width - (columns - 1) * GAP) / columns
            image_height = min(width / aspect, HIGHEST_ABOVE)
        else:
            between = (lines - 1) * (caption + GAP)
            cell = (width - columns * GAP - aspect * between) / (aspect * lines / cell_aspect + columns)
            side = aspect * (lines * cell / cell_aspect + between)
            if side < NARROWEST:
                side, cell = NARROWEST, (width - NARROWEST - columns * GAP) / columns
            image_height = min(lines * cell / cell_aspect + between, side / aspect)
        if cell < narrowest or side <= 0:
            return None
        if max(len(wrap(label, cell, FONT)) for label in row.crops) <= label_lines:
            break
    title = (len(wrap(row.title, side, FONT)) + SPACE) * LINE
    image = aspect * image_height, image_height
    return RowLayout(above, lines, columns, image, side, (cell, cell / cell_aspect), caption, title)


class _Sheet:
    """Draws at places given in inches from the top left corner."""

    def __init__(self, figure: 'Figure', width: float, height: float):
        self.figure, self.width, self.height = figure, width, height

    def draw_row(self, row: SheetRow, layout: RowLayout, top: float) -> None:
        from matplotlib.patches import Rectangle

        (width, height), (cell_width, cell_height) = layout.image, layout.cell
        axes = self.image(row.image, (layout.side - width) / 2, top, width, height)
        x, y, region_width, region_height = row.region
        for colour, line in (('black', 1.3), (MARK, 0.6)):
            place = (x - 0.5, y - 0.5), region_width, region_height
            axes.add_patch(Rectangle(*place, fill=False, edgecolor=colour, linewidth=line))
        self.text(wrap(row.title, layout.side, FONT), layout.side / 2, top + height)
        left, below = (0, top + height + layout.title + GAP) if layout.above else (layout.side + GAP, top)
        captions = row.captions()
        for number, (label, crop) in enumerate(row.crops.items()):
            line, column = divmod(number, layout.columns)
            x = left + column * (cell_width + GAP)
            y = below + line * (cell_height + layout.caption + GAP)
            scale = min(cell_width / crop.shape[1], cell_height / crop.shape[0])
            crop_width, crop_height = scale * crop.shape[1], scale * crop.shape[0]
            place = x + (cell_width - crop_width) / 2, y + (cell_height - crop_height) / 2
            self.image(crop, *place, crop_width, crop_height, interpolation='nearest')
            lines = wrap(label, cell_width, FONT)
            self.text(lines, x + cell_width / 2, y + cell_height)
            self.caption(captions[label], x + cell_width / 2, y + cell_height + len(lines) * LINE)

    def image(self, image: np.ndarray, left: float, top: float, width: float, height: float, **settings) -> 'Axes':
        from matplotlib.patches import Rectangle

        place = left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height
        axes = self.figure.add_axes(place)
        axes.imshow(image[..., ::-1], aspect='auto', **settings)
        axes.set_axis_off()
        axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, **FRAME))
        return axes

    def text(self, lines: list[str], x: float, top: float, size=FONT, ha='center', weight='normal') -> None:
        for number, line in enumerate(lines, 1):
            style = {'fontsize': size, 'ha': ha, 'va': 'baseline', 'weight': weight, 'parse_math': False}
            self.figure.text(x / self.width, 1 - (top + number * LINE) / self.height, line, **style)

    def caption(self, parts: list[tuple[str, bool]], x: float, top: float) -> None:
        """One part in the middle, or two that meet where both together are in the middle."""
        weights = ['bold' if is_bold else 'normal' for _, is_bold in parts]
        if len(parts) == 1:
            self.text([parts[0][0]], x, top, weight=weights[0])
            return
        left, right = (text_width(text, FONT, weight) for (text, _), weight in zip(parts, weights, strict=True))
        for (text, _), weight, ha in zip(parts, weights, ('right', 'left'), strict=True):
            self.text([text], x + (left - right) / 2, top, ha=ha, weight=weight)

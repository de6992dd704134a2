"""Figures of attentions: maps next to the image, weights of channels, branches and layers, and correlations."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from earn_plugin.archs.rk4rdn_arch import COEFFICIENTS
from earn_plugin.figures.attention_maps import Reading
from earn_plugin.figures.attention_numbers import FREQUENCIES, by_kind, entropy, mean_window, stacked
from earn_plugin.figures.style import COLOURS, WIDTHS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# inches
TITLE, GAP = 0.17, 0.06  # above a map, between maps
BAR, SIDE = 0.09, 0.65  # width of a colour bar, and of all that is right of the maps
LEFT, BELOW, ABOVE = 0.48, 0.36, 0.2  # around the axes of a chart
CHART, ROW = 1.2, 0.1  # height of a chart, and of a block in a table of channels
LOWEST, HIGHEST = 0.85, 3.5  # of such a table
SQUARE = 2.4  # side of a matrix of layers
FEWEST, MOST = {1: 2, 2: 4}, {1: 3, 2: 6}  # maps in a row, by columns
STEEPEST = 3  # most times that a map may be higher than wide, or wider than high
EXTREMES = {1: 2, 2: 3}  # most enhanced and most suppressed maps, by columns
CLIPPED = 0.5  # per cent of the values at each end that the colour bar may leave out
COLOUR_MAP = 'viridis'  # its lightness increases steadily, so that it is legible in grey
MAPS = {
    'mask': 'mask',
    'pixel_attention': 'pixel attention',
    'upsampling_attention': 'pixel attention',
    'channel_spatial_attention': 'mask',
    'gate': 'gate',
    'local_attention': 'entropy',
    'non_local_attention': 'weight × pixels',
}  # what their colour bars show
BLOCKS = {'upsampling_attention': 'upsampling', 'channel_spatial_attention': 'channel-spatial'}  # the others: block
WIDEST = 100  # ratio of non-local weights that a linear colour bar can show, and a logarithmic one squared


class Panel(NamedTuple):
    """A figure, or a part of one: ``draw`` fills a figure of the column's width and of ``height`` inches."""

    name: str
    height: float
    draw: Callable[['Figure | SubFigure'], None]


class Cell(NamedTuple):
    """An image, H×W×3 in [0, 1], or a map, H×W, with its title; ``mark`` is the column and row of a pixel to mark."""

    title: str
    values: np.ndarray
    mark: tuple[int, int] | None = None


def panels_of_image(
    image: np.ndarray, readings: Sequence[Reading], pixel: tuple[int, int], columns: int
) -> list[Panel]:
    """The maps of an image, a panel for each kind.

    Args:
        image: H×W×3 in [0, 1].
        pixel: column and row of the one whose non-local attention was read.
        columns: 1 or 2, whose width the panels have.
    """
    panels, kinds = [], by_kind(readings)
    for kind in [kind for kind in kinds if kind in MAPS]:
        mark = pixel if kind == 'non_local_attention' else None
        titles = titles_of(kinds[kind])
        cells = [Cell(title, map_of(reading), mark) for title, reading in zip(titles, kinds[kind], strict=True)]
        panels.append(maps_panel(kind, MAPS[kind], [Cell('LR image', image, mark), *cells], columns))
    if 'branch_weights' in kinds and (count := min(EXTREMES[columns], len(kinds['branch_weights']) // 2)):
        maps = zip(kinds['branch_weights'], kinds['pixel_attention'], strict=True)
        order = sorted(maps, key=lambda pair: -pair[0].values[0])
        cells = [
            Cell(f'block {reading.block}: {weights.values[0]:.2f}', reading.values)
            for weights, reading in order[:count] + order[-count:]
        ]
        cells = [Cell('LR image', image), *cells[:count], '↑ most enhanced\n\n↓ most suppressed', *cells[count:]]
        panels.append(maps_panel('enhanced_and_suppressed', 'pixel attention', cells, columns, per_row=count + 1))
    return panels


def panels_of_network(
    images: Sequence[Sequence[Reading]], correlations: Sequence[dict[str, np.ndarray]], columns: int
) -> list[Panel]:
    """What is not a map, as means over the images with standard deviations.

    Args:
        images: the readings of each.
        correlations: those of ``frequency_correlations`` for each.
    """
    panels, kinds = [], by_kind(images[0])
    if 'branch_weights' in kinds:
        panels.append(branches_panel(stacked(images, 'branch_weights'), columns))
    for kind, values in correlations[0].items():
        if values.shape[1] > 1:
            panels.append(frequencies_panel(kind, np.stack([image[kind] for image in correlations]), columns))
    if 'local_attention' in kinds:
        titles = titles_of(kinds['local_attention'])
        means = np.mean([[mean_window(r.values) for r in by_kind(image)['local_attention']] for image in images], 0)
        cells = [Cell(title, mean) for title, mean in zip(titles, means, strict=True)]
        panels.append(maps_panel('local_attention_mean', 'mean weight', cells, columns))
    if 'channel_attention' in kinds:
        values = stacked(images, 'channel_attention').mean(0)
        panels.append(channels_panel(values, titles_of(kinds['channel_attention']), columns))
    if 'layer_attention' in kinds:
        panels.append(layers_panel(stacked(images, 'layer_attention').mean((0, 1)), columns))
    if 'coefficients' in kinds:
        panels.append(coefficients_panel(stacked(images, 'coefficients')[0], columns))
    return panels


def titles_of(readings: Sequence[Reading]) -> list[str]:
    """A title for each reading of a kind: by its block, and where blocks run several times, by the evaluation of f."""
    word = BLOCKS.get(readings[0].kind, 'block')
    if len(readings) == 1 and word != 'block':
        return [word]
    if max(reading.call for reading in readings) == 1:
        return [f'{word} {reading.block}' for reading in readings]
    return [f'{word} {reading.block}, $k_{reading.call}$' for reading in readings]


def map_of(reading: Reading) -> np.ndarray:
    """What the map of a reading shows: H×W."""
    if reading.kind == 'local_attention':
        return entropy(reading.values)
    return reading.values * (reading.values.size if reading.kind == 'non_local_attention' else 1)


def maps_panel(name: str, label: str, cells: Sequence[Cell | str], columns: int, per_row: int | None = None) -> Panel:
    """Cells in rows, of which the first gives the shape, with one colour bar for all maps; a text may fill a place."""
    from matplotlib.colors import LogNorm, Normalize

    rows = math.ceil(len(cells) / (per_row or MOST[columns]))
    per_row = per_row or math.ceil(len(cells) / rows)
    places = max(per_row, MOST[columns] if is_map(cells[0]) else FEWEST[columns])  # windows need less room than images
    wide = (WIDTHS[columns] - SIDE - GAP * (places - 1)) / places
    height, width = cells[0].values.shape[:2]
    high = wide * min(max(height / width, 1 / STEEPEST), STEEPEST)
    total = rows * (TITLE + high + GAP) - GAP

    values = np.concatenate([cell.values.ravel() for cell in cells if is_map(cell)])
    low, top = np.percentile(values, [CLIPPED, 100 - CLIPPED])
    norm = Normalize(low, top)
    if name == 'non_local_attention' and (top := values.max()) > WIDEST * low:  # nearly all weight is in few pixels
        low = top / WIDEST**2
        norm = LogNorm(low, top)
    extend = {(0, 0): 'neither', (1, 0): 'min', (0, 1): 'max', (1, 1): 'both'}[values.min() < low, values.max() > top]

    def draw(figure: 'Figure | SubFigure') -> None:
        for number, cell in enumerate(cells):
            row, column = divmod(number, per_row)
            bottom = total - (row + 1) * (TITLE + high) - row * GAP
            axes = axes_at(figure, column * (wide + GAP), bottom, wide, high, columns, total)
            axes.set_axis_off()
            if isinstance(cell, str):
                axes.text(0.5, 0.5, cell, ha='center', va='center', fontsize='small')
                continue
            axes.set_title(cell.title, pad=2)
            shown = cell.values.clip(low) if is_map(cell) else cell.values
            drawn = axes.imshow(shown, COLOUR_MAP, norm=norm if is_map(cell) else None)
            if cell.mark:
                axes.plot(*cell.mark, '+', color='white', markersize=7, markeredgewidth=2.5)
                axes.plot(*cell.mark, '+', color='#d55e00', markersize=6, markeredgewidth=1)
        bar = axes_at(figure, per_row * (wide + GAP), 0, BAR, total - TITLE, columns, total)
        figure.colorbar(drawn, cax=bar, extend=extend, label=label)

    return Panel(name, total, draw)


def is_map(cell: Cell | str) -> bool:
    return isinstance(cell, Cell) and cell.values.ndim == 2


def branches_panel(weights: np.ndarray, columns: int) -> Panel:
    """The two weights of each block, images×blocks×2, as bars."""

    def draw(axes: 'Axes') -> None:
        blocks = np.arange(1, weights.shape[1] + 1)
        for branch, (label, hatch) in enumerate((('attention', None), ('non-attention', '////'))):
            mean, deviation = weights[..., branch].mean(0), weights[..., branch].std(0)
            axes.bar(
                blocks + (branch - 0.5) * 0.4,
                mean,
                0.4,
                yerr=deviation if len(weights) > 1 else None,
                error_kw={'elinewidth': 0.6},
                color=COLOURS[branch],
                hatch=hatch,
                edgecolor='white',
                linewidth=0,
                label=label,
            )
        axes.axhline(0.5, color='black', linewidth=0.6, linestyle=':')
        axes.set(xlabel='block', ylabel='branch weight', xlim=(0.4, blocks[-1] + 0.6), ylim=(0, 1))
        whole_numbers(axes)
        legend_above(axes)

    return chart('branch_weights', draw, columns)


def frequencies_panel(kind: str, values: np.ndarray, columns: int) -> Panel:
    """Correlation of a kind of map with high and low frequencies over depth: images×2×blocks."""

    def draw(axes: 'Axes') -> None:
        blocks = np.arange(1, values.shape[2] + 1)
        for number, frequency in enumerate(FREQUENCIES):
            known = np.ma.masked_invalid(values[:, number])  # constant images have no correlation
            mean, deviation = known.mean(0), known.std(0)
            axes.plot(blocks, mean, label=frequency, marker='o', markersize=2.5)
            if len(values) > 1:
                axes.fill_between(blocks, mean - deviation, mean + deviation, color=COLOURS[number], alpha=0.2, lw=0)
        axes.axhline(0, color='black', linewidth=0.6, linestyle=':')
        axes.set(xlabel='block', ylabel='ρ with frequencies', xlim=(0.7, blocks[-1] + 0.3), ylim=(-1, 1))
        axes.set_title(MAPS[kind], loc='left', pad=3)
        whole_numbers(axes)
        legend_above(axes)

    return chart(f'{kind}_frequencies', draw, columns)


def channels_panel(values: np.ndarray, titles: Sequence[str], columns: int) -> Panel:
    """Weights of channels, blocks×C, as a table of colours."""

    def draw(axes: 'Axes') -> None:
        blocks, channels = values.shape
        drawn = axes.imshow(
            values, COLOUR_MAP, aspect='auto', interpolation='nearest', extent=(0.5, channels + 0.5, blocks + 0.5, 0.5)
        )
        axes.set(xlabel='channel', ylabel='block')
        whole_numbers(axes)
        if '$' in titles[0]:  # several evaluations of a block
            axes.set_yticks(range(1, blocks + 1), [title.removeprefix('block ') for title in titles])
        bar_of(drawn, axes, 'channel weight')

    return chart('channel_attention', draw, columns, min(max(len(values) * ROW, LOWEST), HIGHEST), SIDE)


def layers_panel(values: np.ndarray, columns: int) -> Panel:
    """Correlation matrix of layers, L×L: residual groups and the conv after them."""

    def draw(axes: 'Axes') -> None:
        names = [*map(str, range(1, len(values))), 'conv']
        drawn = axes.imshow(values, COLOUR_MAP)
        axes.set(xlabel='group', ylabel='group')
        for set_ticks in (axes.set_xticks, axes.set_yticks):
            set_ticks(range(len(names)), names)
        bar_of(drawn, axes, 'layer weight')

    return chart('layer_attention', draw, columns, SQUARE, WIDTHS[columns] - LEFT - SQUARE)


def coefficients_panel(values: np.ndarray, columns: int) -> Panel:
    """Coefficients of each Runge-Kutta block, blocks×coefficients, next to the textbook's."""

    def draw(axes: 'Axes') -> None:
        blocks = np.arange(1, len(values) + 1)
        order = next(order for order, names in COEFFICIENTS.items() if len(names) == values.shape[1])
        for number, (name, textbook) in enumerate(COEFFICIENTS[order].items()):
            axes.axhline(textbook, color='black', linewidth=0.6, linestyle=':', label='' if number else 'textbook')
            axes.plot(blocks, values[:, number], 'os^'[number], markersize=3.5, color=COLOURS[number], label=name)
        axes.set(xlabel='block', ylabel='coefficient')
        whole_numbers(axes)
        legend_above(axes)

    return chart('coefficients', draw, columns)


def chart(name: str, draw: Callable[['Axes'], None], columns: int, high: float = CHART, right: float = 0.05) -> Panel:
    """A panel with one pair of axes, ``high`` inches high, with room for a colour bar at the right."""
    total = ABOVE + high + BELOW

    def draw_in(figure: 'Figure | SubFigure') -> None:
        draw(axes_at(figure, LEFT, BELOW, WIDTHS[columns] - LEFT - right, high, columns, total))

    return Panel(name, total, draw_in)


def whole_numbers(axes: 'Axes') -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if axes.get_ylabel() == 'block':
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def legend_above(axes: 'Axes') -> None:
    spaces = {'handlelength': 1.4, 'columnspacing': 1, 'borderaxespad': 0}  # next to the title, also in one column
    axes.legend(ncols=4, loc='lower right', bbox_to_anchor=(1, 1), frameon=False, **spaces)


def bar_of(drawn, axes: 'Axes', label: str) -> None:
    """A colour bar right of the axes."""
    wide = axes.bbox.width / axes.figure.dpi
    bar = axes.inset_axes((1 + GAP / wide, 0, BAR / wide, 1))
    axes.figure.colorbar(drawn, cax=bar, label=label)


def axes_at(
    figure: 'Figure | SubFigure', left: float, bottom: float, wide: float, high: float, columns: int, total: float
) -> 'Axes':
    """Axes at a place given in inches, in a figure of the column's width and of a height."""
    width = WIDTHS[columns]
    return figure.add_axes((left / width, bottom / total, wide / width, high / total))

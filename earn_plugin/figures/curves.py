"""Training curves: losses, learning rate, gradient norm and metrics of one or several runs."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from earn_plugin.atomic_files import write_file
from earn_plugin.errors import UsageError
from earn_plugin.figures.labels import legible, text_width, wrap
from earn_plugin.figures.run_log import RunLog, Value, read_run
from earn_plugin.figures.style import COLOURS, LINES, SETTINGS, WIDTHS, check_format, drawing, save_figure
from earn_plugin.options.options_file import nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {'lr': 'learning rate', 'psnr': 'PSNR (dB)', 'ssim': 'SSIM', 'lpips': 'LPIPS', 'niqe': 'NIQE'}
LABELS |= {'grad_norm_g': 'gradient norm', 'grad_norm_d': "discriminator's\ngradient norm"}
UNITS = {'days': 86400, 'h': 3600, 'min': 60, 's': 1}
MARKERS = 'osD^vP*'
LEGEND = 0.6  # of the figure's width: longer names are broken into lines
HANDLE = 0.45  # inches that a line of the legend takes next to its name


def plot_runs(
    experiments: Sequence[str],
    target: Path,
    x: str = 'iterations',
    values: Sequence[str] = (),
    smooth: int = 1,
    columns: int = 1,
    numbers: Path | None = None,
) -> list[str]:
    """Draw the curves of experiments into a file; returns the names of the values that it has.

    Args:
        experiments: as ``read_run`` takes them.
        target: .png, .svg or .pdf.
        x, values, smooth, columns: as ``draw_curves`` takes them; no values for all.
        numbers: a file for what is drawn as JSON.

    Raises:
        UsageError: an experiment or a value does not exist.
    """
    check_format(target)
    runs = [read_run(name) for name in experiments]
    counts = Counter(run.name for run in runs)
    for run, given in zip(runs, experiments, strict=True):
        if counts[run.name] > 1:
            run.name = given
    names = choose_values(runs, values)
    with drawing():
        save_figure(draw_curves(runs, names, x, smooth, columns), target)
    if numbers is not None:
        write_file(numbers, json.dumps([as_json(run, names) for run in runs], indent=1).encode())
    return names


def choose_values(runs: Sequence[RunLog], wanted: Sequence[str] = ()) -> list[str]:
    """The values to draw, in the order of the panels: those wanted, or all.

    Raises:
        UsageError: no run has a value that is wanted.
    """
    found = list(dict.fromkeys(name for run in runs for name in run.values))
    if missing := [name for name in wanted if name not in found]:
        names = ', '.join(run.name for run in runs)
        raise UsageError(f'{names}: no value {missing[0]} is logged{nearest(missing[0], found)}')
    return list(dict.fromkeys(wanted)) or sorted(found, key=lambda name: kind_of_value(name, runs))


def kind_of_value(name: str, runs: Sequence[RunLog]) -> int:
    """Losses come first, metrics last."""
    if name.startswith('l_'):
        return 0
    if any(dataset for run in runs for dataset in run.values.get(name, ())):
        return 4
    return 3 if name == 'lr' else 2 if name.startswith('grad_norm') else 1


def as_json(run: RunLog, names: Iterable[str]) -> dict[str, Any]:
    """The values of a run as lists; those that are not finite as null."""

    def lists(series: dict[int, Value]) -> dict[str, list]:
        points = sorted(series.items())
        found = {'iteration': [i for i, _ in points], 'seconds': [round(v.seconds, 3) for _, v in points]}
        found['value'] = [v.value if math.isfinite(v.value) else None for _, v in points]
        if any(v.spread for _, v in points):
            found['standard_deviation'] = [v.spread if math.isfinite(v.spread) else None for _, v in points]
        return found

    values = {
        name: {dataset or 'training': lists(series) for dataset, series in run.values[name].items()}
        for name in names
        if name in run.values
    }
    return {'name': run.name, 'values': values}


def draw_curves(
    runs: Sequence[RunLog], names: Sequence[str], x: str = 'iterations', smooth: int = 1, columns: int = 1
) -> 'Figure':
    """A panel for each value with a line for each run and validation set; a band is the standard deviation.

    Args:
        names: the values, as in the log.
        x: 'iterations' or 'time', that of training.
        smooth: draw means of this many logged values, with the values themselves in the background; not for metrics
            and the learning rate.
        columns: width of the figure, 1 or 2.
    """
    from matplotlib.figure import Figure

    across = 1 if columns == 1 or len(names) == 1 else 2 if len(names) in (2, 4) else 3
    rows = math.ceil(len(names) / across)
    height = 0.4 + rows * min(1.7 if rows == 1 else 1.25, 8 / rows)
    figure = Figure(figsize=(WIDTHS[columns], height), layout='constrained')
    panels = list(figure.subplots(rows, across, sharex=True, squeeze=False).flat)
    sets = list(dict.fromkeys(d for name in names for run in runs for d in run.values.get(name, ()) if d))
    unit, seconds = time_unit(runs, names)
    for panel, name in zip(panels, names, strict=False):
        for number, run in enumerate(runs):
            for dataset, series in run.values.get(name, {}).items():
                points = [(i if x == 'iterations' else v.seconds / seconds, v) for i, v in sorted(series.items())]
                style = line_style(number, sets.index(dataset) if dataset else None, len(runs), len(sets))
                draw_line(panel, points, 1 if dataset or name == 'lr' else smooth, style, number / len(runs))
        finish_panel(panel, name, any(d for run in runs for d in run.values.get(name, ())))
    for index, panel in enumerate(panels):
        if index >= len(names):
            panel.remove()
        elif index + across >= len(names):  # nothing is below it
            panel.set_xlabel('iteration' if x == 'iterations' else f'training time ({unit})')
            panel.xaxis.set_tick_params(labelbottom=True)
            if x == 'iterations':
                panel.xaxis.set_major_formatter(
                    lambda value, _: f'{value / 1000:g}k' if value >= 10_000 else f'{value:g}'
                )
    figure.align_ylabels()
    add_legend(figure, [run.name for run in runs], sets, columns)
    return figure


def line_style(run: int, dataset: int | None, runs: int, sets: int) -> dict[str, Any]:
    """Colour and line, and in figures of several runs and sets also a marker, so that both can be seen in grey."""
    if runs > 1 and sets > 1:
        return {'color': cycle(COLOURS, run), 'linestyle': cycle(LINES, dataset or 0), 'marker': cycle(MARKERS, run)}
    number = run if runs > 1 else dataset or 0
    return {'color': cycle(COLOURS, number), 'linestyle': cycle(LINES, number + number // len(COLOURS))}


def cycle(values: Sequence[Any], number: int) -> Any:
    return values[number % len(values)]


def draw_line(
    panel: 'Axes', points: list[tuple[float, Value]], smooth: int, style: dict[str, Any], shift: float
) -> None:
    """Draw a line; ``shift``, from 0 to 1, keeps the markers of several lines apart."""
    x, y = [x for x, _ in points], [v.value if math.isfinite(v.value) else math.nan for _, v in points]
    if smooth > 1:
        panel.plot(x, y, color=style['color'], alpha=0.25, linewidth=0.4)
        y = running_mean(y, smooth)
    single = {} if len(x) > 1 else {'marker': 'o'}
    step = max(1, len(x) // 8)
    panel.plot(x, y, **single | style, markersize=3, markevery=(int(shift * step), step))
    if any(v.spread for _, v in points):
        low, high = ([y + sign * v.spread for y, (_, v) in zip(y, points, strict=True)] for sign in (-1, 1))
        panel.fill_between(x, low, high, color=style['color'], alpha=0.2, linewidth=0)


def running_mean(values: list[float], count: int) -> list[float]:
    """The mean of ``count`` values around each one; of fewer at both ends."""
    before, after = (count - 1) // 2, count // 2 + 1
    return [fmean(values[max(0, i - before) : i + after]) for i in range(len(values))]


def finish_panel(panel: 'Axes', name: str, is_metric: bool) -> None:
    """Label the panel; logarithmic if positive values, unless a metric's, differ by more than a factor of 10."""
    from matplotlib.ticker import LogLocator, NullFormatter

    label = LABELS.get(name) or legible(f'{name[2:]} loss' if name.startswith('l_') else name)
    panel.set_ylabel(label, parse_math=False)
    panel.grid(linewidth=0.3, alpha=0.5)
    drawn = [y for line in panel.lines for y in line.get_ydata() if math.isfinite(y)]
    if drawn and not is_metric and min(drawn) > 0 and max(drawn) > 10 * min(drawn):
        panel.set_yscale('log')
        panel.yaxis.set_minor_formatter(NullFormatter())
        if max(drawn) < 100 * min(drawn):  # powers of 10 alone would be few
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(lambda value, _: f'{value:g}')
    else:
        panel.ticklabel_format(axis='y', scilimits=(-3, 5))


def time_unit(runs: Sequence[RunLog], names: Iterable[str]) -> tuple[str, int]:
    """The unit of an axis of time, and its seconds."""
    series = [s for name in names for run in runs for s in run.values.get(name, {}).values()]
    longest = max((value.seconds for one in series for value in one.values()), default=0)
    return next((pair for pair in UNITS.items() if longest >= 3 * pair[1]), ('s', 1))


def add_legend(figure: 'Figure', runs: list[str], sets: list[str], columns: int) -> None:
    """Above the panels: the runs if there are several, and the validation sets."""
    from matplotlib.lines import Line2D

    entries = []
    if len(runs) > 1:
        entries += [(name, line_style(number, None, len(runs), len(sets))) for number, name in enumerate(runs)]
    if len(sets) > 1:
        grey = {'color': '0.3', 'marker': ''} if len(runs) > 1 else {}
        entries += [(name, line_style(0, number, len(runs), len(sets)) | grey) for number, name in enumerate(sets)]
    if not entries:
        return
    size = SETTINGS['legend.fontsize']
    names = ['\n'.join(wrap(name, LEGEND * WIDTHS[columns], size)) for name, _ in entries]
    longest = max(text_width(line, size) for name in names for line in name.split('\n'))
    fitting = max(1, int(WIDTHS[columns] / (longest + HANDLE)))
    handles = [Line2D([], [], markersize=3, **style) for _, style in entries]
    legend = figure.legend(handles, ['.'] * len(names), loc='outside upper center', ncols=fitting, frameon=False)
    for text, name in zip(legend.get_texts(), names, strict=True):  # legends leave out names that begin with _
        text.set_text(name)
        text.set_parse_math(False)

"""What all figures share: widths of columns, fonts, lines that differ in grey, and how a figure is saved."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from earn_plugin.atomic_files import write_file
from earn_plugin.errors import UsageError, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN = 0.02  # inches that a saved figure has around it
WIDTHS = {
    1: 3.5 - 2 * MARGIN,
    2: 7.16 - 2 * MARGIN,
}  # inches: with margins one or two columns of IEEE's and CVF's papers
DPI = 300
FORMATS = ('.png', '.svg', '.pdf')
# Okabe and Ito's colours, for colour-blind readers; with the lines' styles also legible in grey
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
LINES = ('-', '--', '-.', ':', (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
SETTINGS = {
    'font.family': 'sans-serif',
    'font.size': 8,
    'axes.titlesize': 8,
    'axes.labelsize': 8,
    'xtick.labelsize': 7,
    'ytick.labelsize': 7,
    'legend.fontsize': 7,
    'axes.linewidth': 0.6,
    'lines.linewidth': 1.2,
    'figure.dpi': DPI,
    'savefig.dpi': DPI,
    'pdf.fonttype': 42,  # fonts as text that can be searched, as conferences ask
    'svg.fonttype': 'none',
    'svg.hashsalt': 'earn_plugin',  # the same figure has the same bytes
}


@contextmanager
def drawing() -> Iterator[None]:
    """The block draws with matplotlib, without a display, in the style of the figures.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise UserError("figures need matplotlib: pip install 'earn_plugin[figures]'") from error
    from cycler import cycler

    logger = logging.getLogger('matplotlib.font_manager')
    level = logger.level
    logger.setLevel(logging.ERROR)  # a font for other scripts may have no bold, which is fine
    try:
        with matplotlib.rc_context({**SETTINGS, 'axes.prop_cycle': cycler(color=COLOURS, linestyle=LINES)}):
            yield
    finally:
        logger.setLevel(level)


def check_format(path: Path) -> None:
    """Raise UsageError for a file whose ending is no format of figures."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f'{path}: a figure ends in {", ".join(FORMATS)}')


def save_figure(figure: 'Figure', path: Path) -> None:
    """Write a figure in the format of the file's ending, completely or not at all; nothing is clipped.

    Raises:
        UserError: the ending is no format, or the file cannot be written.
    """
    check_format(path)
    content = io.BytesIO()
    kind = path.suffix.lower().removeprefix('.')
    metadata = {'png': {'Software': None}, 'svg': {'Date': None}, 'pdf': {'CreationDate': None}}[kind]
    figure.savefig(content, format=kind, bbox_inches='tight', pad_inches=MARGIN, metadata=metadata)
    write_file(path, content.getvalue())

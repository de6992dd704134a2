"""The sections of a report with figures: training curves, attentions, attribution; and what the network costs."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import cv2

from earn_plugin.devices import describe_device
from earn_plugin.errors import UserError
from earn_plugin.figures.attention_report import draw_attention
from earn_plugin.figures.attribution_figure import draw_attribution
from earn_plugin.figures.attribution_table import attribute_networks
from earn_plugin.figures.curves import LABELS, choose_values, draw_curves
from earn_plugin.figures.style import save_figure
from earn_plugin.measure.complexity import count_complexity
from earn_plugin.report.inline_pictures import inline_svg
from earn_plugin.report.report_page import Html, figures, join, paragraph, table
from earn_plugin.report.reported_run import ReportedRun, attempt, needed
from earn_plugin.report.validation_pictures import cut, part_to_show, spread

SIDE, SIDE_OF_ATTRIBUTION = 128, 64  # most LR pixels of a picture's side for attention maps, and for attribution
SMOOTHED = 100  # logged values from which on curves of losses show running means


def curves(reported: ReportedRun) -> Html:
    """A figure for each logged value."""
    drawn = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'curve.svg')
        for number, name in enumerate(choose_values([reported.values])):
            longest = max(map(len, reported.values.values[name].values()))
            save_figure(draw_curves([reported.values], [name], smooth=max(1, longest // SMOOTHED)), path)
            drawn.append((inline_svg(path, f'c{number}-', f'{LABELS.get(name, name)} over the iterations'), ''))
    return figures(drawn)


@contextmanager
def lr_picture(reported: ReportedRun, side: int) -> Iterator[tuple[Path, str]]:
    """The LR image with the largest gain as a file, of at most ``side`` pixels a side, and a description of it."""
    comparison, compared = needed(reported.compared)[0]
    image = spread(compared, 1)[0]
    versions = comparison.versions(image.index)
    part = part_to_show(versions, comparison.scale, side * comparison.scale)
    shown = cut(versions, part, comparison.scale).lr
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'picture.png')
        path.write_bytes(cv2.imencode('.png', shown)[1].tobytes())
        size = f'{shown.shape[1]}×{shown.shape[0]}'
        what = 'the LR image' if shown.shape == versions.lr.shape else 'a part'
        yield path, f'{what} of {image.name}, {size} pixels'


def attention(reported: ReportedRun) -> Html:
    """A figure for each kind of attention of the network."""
    choice = reported.choice()
    with lr_picture(reported, SIDE) as (picture, about):
        folder = picture.parent / 'figures'
        draw_attention(choice, [picture], folder, columns=1, format='svg', device=str(reported.device))
        drawn = []
        for number, path in enumerate(sorted(folder.glob('*.svg'))):
            title = path.stem.removeprefix('picture_').replace('_', ' ')
            drawn.append((inline_svg(path, f'a{number}-', f'{title} of {about}'), title))
    return join([paragraph(f'What each attention does for {about}.', 'quiet'), figures(drawn)])


def attribution(reported: ReportedRun) -> Html:
    """Local attribution map of the network for the window where the results differ most."""
    choice = reported.choice()
    arch = choice.arch
    with lr_picture(reported, SIDE_OF_ATTRIBUTION) as (picture, about):
        found = attribute_networks(picture, {arch: choice}, device=str(reported.device))
        path = picture.with_name('figure.svg')
        draw_attribution(found, path, columns=1)
        svg = inline_svg(path, 'l-', f'local attribution map of {arch} for {about}')
        one = found.attributions[arch]
        note = (
            f'Which pixels of {about}, the network uses for the marked window (LAM). The diffusion index, '
            f'{one.diffusion_index:.2f}, is higher the more evenly it uses them; compare networks by it only for one '
            'input and one window.'
        )
        if one.missing is not None:
            note += f' The attributions add up to {100 * (1 - one.missing):.1f} % of what they explain.'
    return join([paragraph(note, 'quiet'), figures([(svg, '')])])


def complexity(reported: ReportedRun) -> Html:
    """Parameters, multiply-adds and activations for two usual sizes, and the time for a validation image."""
    found, scale = needed(reported.found), reported.scale
    sizes = {'NTIRE: LR 256×256': (256, 256), 'papers: HR 1280×720': (720 // scale, 1280 // scale)}
    counts = {
        title: attempt(partial(count_complexity, found, size, reported.device, fvcore=False))
        for title, size in sizes.items()
    }
    # some networks take sides of some multiple only
    counted = {title: one for title, one in counts.items() if not isinstance(one, UserError)}
    if not counted:
        needed(next(iter(counts.values())))
    rows = [
        ['parameters', *(f'{one.params:,}' for one in counted.values())],
        ['multiply-adds', *(f'{one.hooks / 1e9:,.2f} G' for one in counted.values())],
        ['activations', *(f'{one.activations / 1e6:,.2f} M' for one in counted.values())],
        ['convs', *(f'{one.convs:,}' for one in counted.values())],
    ]
    about = 'What one image costs; multiply-adds by the module hooks of NTIRE 2022 and 2023'
    parts = [table(about, ['', *counted], rows)]
    title, first = next(iter(counted.items()))
    if unseen := first.multiply_adds_uncounted_by_hooks:
        parts.append(paragraph(f'{title}: {unseen / 1e9:,.2f} G multiply-adds outside of modules are not counted.'))
    for comparison, _ in [] if isinstance(reported.compared, UserError) else reported.compared:
        seconds = median(comparison.seconds)  # the first has a GPU's start in it
        parts.append(
            paragraph(f'{seconds:.3g} s for an image of {comparison.name} on {describe_device(reported.device)}.')
        )
    return join(parts)

"""The report of a training run: what its folder, its log and its latest network give, as one HTML file."""

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import earn_plugin
from earn_plugin.atomic_files import write_file
from earn_plugin.devices import cuda_is_optional, find_device
from earn_plugin.errors import UsageError, UserError
from earn_plugin.report.inline_pictures import drawing_for_pages
from earn_plugin.report.recorded_run import find_run
from earn_plugin.report.report_figures import attention, attribution, complexity, curves
from earn_plugin.report.report_images import images, metrics_of_images
from earn_plugin.report.report_page import Html, Section, page, paragraph
from earn_plugin.report.report_summary import commands, environment, head, settings
from earn_plugin.report.reported_run import ReportedRun, attempt

SECTIONS: dict[str, Callable[[ReportedRun], Html]] = {
    'Training curves': curves,
    'Metrics': metrics_of_images,
    'Before and after': images,
    'Attention': attention,
    'Attribution': attribution,
    'Complexity': complexity,
    'Settings': settings,
    'Environment': environment,
    'How to reproduce': commands,
}


def write_report(experiment: str, target: Path | None = None, count: int = 8, device: str | None = None) -> str:
    """Write the report of an experiment, also while it trains.

    Args:
        experiment: a name under experiments, or a folder.
        target: an .html file; by default report.html in the experiment's folder.
        count: of images of each validation set that the report shows.
        device: to compute on; None for the GPU where there is one.

    Returns:
        What was written, and what the report does not have and why.

    Raises:
        UsageError: there is no such experiment or device, or the target is not an .html file.
        UserError: matplotlib is missing, or the file cannot be written.
    """
    if target is not None and target.suffix.lower() not in ('.html', '.htm'):
        raise UsageError(f'{target}: a report ends in .html')
    place = find_device(device)
    run = find_run(experiment)
    target = target or run.folder / 'report.html'
    missing: dict[str, list[str]] = {}
    with drawing_for_pages(), cuda_is_optional():
        reported = ReportedRun(run, place, count)
        sections = list(sections_of(reported, missing))
        header = head(reported)
    made = f'Written by basicsr report of earn_plugin {earn_plugin.__version__} on {datetime.now():%Y-%m-%d %H:%M}.'
    content = page(run.name, header, sections, made).encode(errors='backslashreplace')  # names may not be UTF-8
    write_file(target, content)
    lines = [f'not in the report: {", ".join(titles)}: {reason}' for reason, titles in missing.items()]
    return '\n'.join([*lines, f'{target} written ({len(content) / 1e6:.1f} MB)'])


def sections_of(reported: ReportedRun, missing: dict[str, list[str]]) -> Iterator[Section]:
    """The sections; what fails is a sentence in its section, and in ``missing``: reason → titles."""
    for title, make in SECTIONS.items():
        body = attempt(partial(make, reported))
        if isinstance(body, UserError):
            missing.setdefault(str(body), []).append(title.lower())
            body = paragraph(f'Not available: {body}.', 'missing')
        yield Section(title.lower().replace(' ', '-'), title, body)

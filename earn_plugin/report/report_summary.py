"""The parts of a report without pictures: its head, and the settings, the environment and the commands of the run."""

import math
import re
import shlex
from collections.abc import Iterator

import yaml

from earn_plugin import doctor
from earn_plugin.devices import describe_device
from earn_plugin.errors import UserError
from earn_plugin.figures.curves import LABELS, time_unit
from earn_plugin.metrics.bicubic_baseline import mean_metrics
from earn_plugin.report.report_images import gain_cell
from earn_plugin.report.report_page import Html, NumberCell, code, definitions, element, join, paragraph, table
from earn_plugin.report.reported_run import ReportedRun
from earn_plugin.report.validation_pictures import better_sign

STARTED = re.compile(r'INFO: (.+ iterations of .+)')  # ours: iterations, images, device, seed
VERSION = re.compile(r'^\t(BasicSR|PyTorch|TorchVision): (\S+)', re.MULTILINE)  # stock BasicSR's


def head(reported: ReportedRun) -> Html:
    """Name, network, scale, parameters, iterations, time; the best and the last metrics next to bicubic's."""
    network = (reported.run.options.get('network_g') or {}).get('type', 'unknown network')
    is_found = not isinstance(reported.found, UserError)
    facts = [f'{reported.found.arch if is_found else network} ×{reported.scale}']
    if is_found:
        parameters = sum(parameter.numel() for parameter in reported.found.network.parameters())
        facts += [f'{parameters:,} parameters', reported.file.name]
    try:
        values = reported.values.values
    except UserError as error:
        return join([title(reported, facts), paragraph(f'Nothing is logged: {error}.', 'missing')])
    done = max(iteration for sets in values.values() for series in sets.values() for iteration in series)
    total = (reported.run.options.get('train') or {}).get('total_iter')
    facts.append(f'{done:,} of {total:,} iterations' if isinstance(total, int) else f'{done:,} iterations')
    unit, seconds = time_unit([reported.values], values)
    longest = max(value.seconds for sets in values.values() for series in sets.values() for value in series.values())
    facts.append(f'{longest / seconds:.3g} {unit} of training')
    rows = list(rows_of_metrics(reported))
    headings = ['', 'bicubic', 'last', 'iteration', 'best', 'iteration', 'best − bicubic']
    metrics = (
        table('Validation during training', headings, rows)
        if rows
        else paragraph('No validation is logged.', 'missing')
    )
    return join([title(reported, facts), metrics])


def title(reported: ReportedRun, facts: list[str]) -> Html:
    return join([element('h1', reported.run.name), paragraph(' · '.join(facts))])


def rows_of_metrics(reported: ReportedRun) -> Iterator[list[object]]:
    """A row for each validation set and metric of the log."""
    sets = {name: series for name, series in reported.values.values.items() if any(series)}
    for name, series in sets.items():
        for dataset, points in series.items():
            if not dataset:
                continue
            sign = better_sign(reported.metrics.get(name, {}))
            last = max(points)
            comparable = [i for i in points if not math.isnan(points[i].value)]
            best = max(comparable, key=lambda i: (sign * points[i].value, -i), default=last)
            bicubic = bicubic_of(reported, dataset).get(name)
            cells = [NumberCell(f'{points[i].value:.4f}', points[i].value) for i in (last, best)]
            label = LABELS.get(name, name)
            yield [
                f'{label}, {dataset}',
                '–' if bicubic is None else NumberCell(f'{bicubic:.4f}', bicubic),
                *(
                    part
                    for cell, i in zip(cells, (last, best), strict=True)
                    for part in (cell, NumberCell(f'{i:,}', i))
                ),
                '–' if bicubic is None else gain_cell(points[best].value, bicubic, sign),
            ]


def bicubic_of(reported: ReportedRun, dataset: str) -> dict[str, float]:
    """Bicubic's metrics of a validation set, from the log; of stock BasicSR's runs, which do not log them, computed."""
    found = re.findall(rf'INFO: {re.escape(dataset)} at iteration [\d,]+: (.+)', reported.run.log)
    if logged := re.findall(r'([^\s,][^,]*?) \S+ \(bicubic (\S+?),', found[-1] if found else ''):
        return {name: float(value) for name, value in logged}
    sets = [] if isinstance(reported.compared, UserError) else reported.compared
    return next((mean_metrics([image.bicubic for image in images]) for one, images in sets if one.name == dataset), {})


def settings(reported: ReportedRun) -> Html:
    """The options file of the run, and what the run changed of it."""
    run, parts = reported.run, []
    if run.file is None and not run.options:
        raise UserError(f'{run.folder} has neither an options file nor a log with options')
    if changes := run.changes():
        rows = [['.'.join(place), str(before), str(now)] for place, (before, now) in changes.items()]
        parts.append(table('Options that differ from the file', ['option', 'in the file', 'in the run'], rows))
    text = (
        run.file.read_text(encoding='utf-8', errors='replace')
        if run.file
        else yaml.safe_dump(run.options, sort_keys=False)
    )
    name = run.file.name if run.file else 'the options as recorded'
    parts += [paragraph(name, 'caption'), code(text, name)]
    return join(parts)


def environment(reported: ReportedRun) -> Html:
    """Versions and machine, as logged and as of now."""
    log = reported.run.log
    logged = [match[1] for match in [*STARTED.finditer(log)][-1:]]
    logged += [f'{name} {version}' for name, version in VERSION.findall(log)]
    _, packages = next(doctor.packages())
    return definitions(
        [
            *([('the run', ', '.join(logged))] if logged else []),
            ('this report', packages),
            ('computed on', describe_device(reported.device)),
        ]
    )


def commands(reported: ReportedRun) -> Html:
    """How to repeat the run, continue and use it."""
    run = reported.run
    lines = [run.command(), shlex.join(['basicsr', 'report', str(run.folder)])]
    if not isinstance(reported.found, UserError):
        lines.append(shlex.join(['basicsr', 'upscale', 'photos', 'enlarged', '--model', str(reported.file)]))
    return code('\n'.join(lines), 'commands')

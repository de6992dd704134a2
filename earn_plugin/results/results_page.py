"""The tables of docs/results.md, from results.json files: no figure is typed by hand, each has its protocol."""

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from earn_plugin.atomic_files import write_file
from earn_plugin.errors import UsageError, UserError
from earn_plugin.ntire.results import official_table, splits_in
from earn_plugin.results.published_figures import (
    EQUAL,
    PublishedFigure,
    digits_of,
    published_figures,
    published_for,
    published_protocols,
    verdict,
)
from earn_plugin.results.tested_results import (
    MeasuredSet,
    Protocol,
    TestedNetwork,
    check_consistency,
    find_results,
    read_json,
    tested_network,
)

BEGIN = '<!-- tables written by `basicsr results`: do not edit -->'
END = '<!-- end of the tables -->'
BEFORE_FIGURES = ('network', 'scale', 'set', 'images')
AFTER_FIGURES = ('bicubic', 'published', 'verdict', 's/image')
SETS = ('Set5', 'Set14', 'B100', 'Urban100', 'Manga109')  # first, in this order
RULES = (
    '"HR cropped to" a number: all sides of the HR images are multiples of it; 1: of nothing else. '
    '"MATLAB\'s bicubic": each LR image equals it value for value. '
    f'"Equal": within {EQUAL["PSNR"]} dB or {EQUAL["SSIM"]} of the published figure. '
    'Seconds: wall time of the network for an image, while the metrics of the image before are computed, on the '
    'machine of that number.'
)
NOT_RECORDED = 'Protocol not recorded'


class Row(NamedTuple):
    """The metrics of one protocol that a network has on a set."""

    tested: TestedNetwork
    measured: MeasuredSet
    metrics: dict[str, str]  # function → the metric's name in the file


def write_page(places: Iterable[Path], page: Path | None = None, table: Path | None = None) -> str:
    """The tables of all results.json files in Markdown; also written to ``page``, between its two marks.

    Args:
        places: files, and folders to search, see ``find_results``.
        page: is created if it does not exist.
        table: a CSV file for the figures of every image.

    Raises:
        UsageError: there are no files, or ``page`` or ``table`` would replace one of them or each other.
        UserError: a file is damaged or not a results.json; files contradict each other; the page has no marks.
    """
    files, tested, others = find_results(places), [], []
    taken = {path.resolve() for path in files}
    for target in filter(None, (page, table)):
        if target.resolve() in taken:
            raise UsageError(f'{target} is an input or the other output, and would be replaced: choose another name')
        taken.add(target.resolve())
    for path in files:
        report = read_json(path)
        if 'ablation' in report:
            others.append(of_ablation(path, report))
        elif report and all(isinstance(entry, dict) and splits_in(entry) for entry in report.values()):
            others.append(of_ntire(report))
        else:
            tested.append(tested_network(path, report))
    check_consistency(tested)
    text = tables(tested, others)
    contents = {page: with_tables(page, text)} if page is not None else {}
    contents |= {table: per_image(tested)} if table is not None else {}
    for target, content in contents.items():
        write_file(target, content.encode(errors='backslashreplace'))  # names of images may not be UTF-8
    return text


def with_tables(page: Path, text: str) -> str:
    """The page with new tables between its marks."""
    before, after = '# Results\n\n', '\n'
    if page.exists():
        try:
            old = page.read_text(encoding='utf-8')
        except (OSError, ValueError) as error:
            raise UserError(f'{page} cannot be read: {error}') from error
        if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(END) < old.index(BEGIN):
            raise UserError(f'{page} has no place for the tables: give it the lines {BEGIN} and {END}, or remove it')
        before, after = old.partition(BEGIN)[0], old.partition(END)[2]
    return f'{before}{BEGIN}\n\n{text}\n\n{END}{after}'


def tables(tested: Sequence[TestedNetwork], others: Sequence[str]) -> str:
    """A table of figures for each protocol, one of the networks, the other tables, and the published figures."""
    published = published_figures()
    devices = {device: str(number) for number, device in enumerate(_devices(tested), 1)}
    parts = []
    for protocol, rows in by_protocol(tested):
        functions = list(dict.fromkeys(function for row in rows for function in row.metrics))
        title = f'{" and ".join(functions)} {protocol}' if protocol else NOT_RECORDED
        cells = [figure_cells(row, functions, published, devices) for row in rows]
        head = [*BEFORE_FIGURES, ' / '.join(functions), *AFTER_FIGURES]
        parts += [f'### {title}', markdown(head, cells)]
    if tested:
        parts = ['## Measured', RULES, *parts, '### Networks and machines', network_table(tested)]
        parts += [f'({number}) {device}' for device, number in devices.items()]
    protocols = '. '.join(f'"{name}": {text}' for name, text in published_protocols().items())
    return '\n\n'.join([*parts, *others, '## Published', f'Protocols. {protocols}.', published_table(published)])


def _devices(tested: Sequence[TestedNetwork]) -> list[str]:
    timed = (network for network in tested if any(measured.seconds is not None for measured in network.sets))
    return list(dict.fromkeys(_device(network) for network in timed if network.device))


def _device(network: TestedNetwork) -> str:
    return f'{network.device}, torch {network.versions.get("torch", "of an unknown version")}'


def by_protocol(tested: Sequence[TestedNetwork]) -> list[tuple[Protocol | None, list[Row]]]:
    """Rows grouped by protocol, the papers' first, those without one last; by scale, set and name within a group."""
    groups: dict[Protocol | None, list[Row]] = {}
    for network in tested:
        for measured in network.sets:
            of_set: dict[Protocol | None, dict[str, str]] = {}
            for metric in measured.mean:
                of_set.setdefault(measured.protocol_of(metric), {})[measured.function_of(metric)] = metric
            for protocol, metrics in of_set.items():
                groups.setdefault(protocol, []).append(Row(network, measured, metrics))

    def place(row: Row) -> tuple:
        name = row.measured.name
        where = (SETS.index(name), '') if name in SETS else (len(SETS), name)
        return row.tested.scale_of(row.measured) or 0, *where, row.tested.label

    def rank(protocol: Protocol | None) -> tuple:
        if protocol is None:
            return (True,)
        usual = protocol.channel == 'Y', protocol.hr == 'scale', protocol.border == 'scale'
        return False, *(not is_usual for is_usual in usual), str(protocol)

    return [(protocol, sorted(groups[protocol], key=place)) for protocol in sorted(groups, key=rank)]


def figure_cells(
    row: Row, functions: Sequence[str], published: list[PublishedFigure], devices: dict[str, str]
) -> list[str]:
    tested, measured, metrics = row
    scale, figure = tested.scale_of(measured), published_for(published, tested, measured)
    compared = [f for f in functions if figure and f in metrics and f in figure.values]
    verdicts = {function: verdict(figure, measured, metrics[function]) for function in compared}
    alike = len(set(verdicts.values())) == 1
    seconds = '' if measured.seconds is None else f'{measured.seconds:.3g} ({devices.get(_device(tested), "?")})'
    return [
        tested.label,
        f'×{scale}' if scale else '',
        measured.name,
        str(len(measured.images)),
        _joined(measured.mean, metrics, functions),
        _joined(measured.bicubic_mean, metrics, functions) if measured.bicubic_mean else '',
        ' / '.join(figure.values[function] for function in compared),
        verdicts[compared[0]] if alike else ', '.join(f'{f} {text}' for f, text in verdicts.items()),
        seconds,
    ]


def _joined(values: dict[str, float], metrics: dict[str, str], functions: Sequence[str]) -> str:
    found = [f'{values[metrics[f]]:.{digits_of(f)}f}' if f in metrics else '–' for f in functions]
    return ' / '.join(found)


def network_table(tested: Sequence[TestedNetwork]) -> str:
    rows = [
        [
            network.label,
            str(network.network.get('type', '')),
            '' if network.parameters is None else f'{network.parameters:,}',
            f'`{network.checkpoint[:8]}`' if network.checkpoint else '',
            network.versions.get('earn_plugin', ''),
        ]
        for network in sorted(tested, key=lambda network: network.label)
    ]
    unique = [list(row) for row in dict.fromkeys(map(tuple, rows))]
    return markdown(['network', 'type', 'parameters', 'SHA-256 of its file', 'earn_plugin'], unique)


def published_table(published: Sequence[PublishedFigure]) -> str:
    names = list(dict.fromkeys(figure.dataset for figure in published))
    rows = []
    for key, found in itertools.groupby(published, key=lambda f: (f.name, f.scale, f.source, f.protocols)):
        name, scale, source, protocols = key
        cells = {figure.dataset: ' / '.join(figure.values.values()) for figure in found}
        protocol = ', SSIM '.join(dict.fromkeys(protocols.values()))
        rows.append([name, f'×{scale}', *(cells.get(each, '') for each in names), protocol, source])
    return markdown(['network', 'scale', *names, 'protocol', 'source'], rows)


def of_ablation(path: Path, report: dict[str, Any]) -> str:
    """Raises UserError: the content is not that of `basicsr ablate`."""
    from earn_plugin.figures.ablation import ablation_table

    try:
        title = f'## Ablation {report["ablation"]}\n\n{NOT_RECORDED}; it is that of the recipe {report["recipe"]}.'
        return f'{title}\n\n{ablation_table(report["variants"])}'
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f'{path} is not a results.json of `basicsr ablate`: {error!r}') from error


def of_ntire(report: dict[str, Any]) -> str:
    about = f'{NOT_RECORDED}: the official format has neither the year nor the track.'
    return f'## NTIRE\n\n{about}\n\n```\n{official_table(report)}```'


def per_image(tested: Sequence[TestedNetwork]) -> str:
    """CSV: a line for each metric of each image, of the network and of bicubic."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow(['network', 'scale', 'set', 'image', 'method', 'metric', 'value', 'protocol'])
    for network in tested:
        for measured in network.sets:
            for method, images in ((network.label, measured.images), ('bicubic', measured.bicubic)):
                for (image, values), metric in itertools.product(images.items(), measured.mean):
                    where = [network.label, network.scale_of(measured), measured.name, image]
                    protocol = str(measured.protocol_of(metric) or NOT_RECORDED.lower())
                    table.writerow([*where, method, metric, repr(values[metric]), protocol])
    return text.getvalue()


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns that are empty in all rows."""
    used = [number for number in range(len(head)) if any(row[number] for row in rows)]
    texts = [[each[number].replace('|', '\\|').replace('<', '\\<') for number in used] for each in (head, *rows)]
    lines = [' | '.join(each) for each in texts]
    first, *others = [f'| {line} |' for line in lines]
    return '\n'.join([first, f'|{"---|" * len(used)}', *others])

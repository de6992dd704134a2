"""The figures that papers print, from published.yml, and what a measured one is compared with them."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from earn_plugin.results.tested_results import MeasuredSet, TestedNetwork, pixels

FILE = Path(__file__).with_name('published.yml')
METRICS = ('PSNR', 'SSIM')
NAMES = {'channel': 'on', 'border': 'border', 'hr': 'HR cropped to', 'lr': 'LR:'}
EQUAL = {'PSNR': 0.01, 'SSIM': 0.001}  # within which a measured figure equals the published one


class PublishedFigure(NamedTuple):
    """PSNR in dB and SSIM, as printed, of a network on a set."""

    name: str
    network: dict[str, Any]  # type and arguments
    self_ensemble: bool
    scale: int
    dataset: str
    values: dict[str, str]
    protocols: dict[str, str]  # metric → a name, see ``published_protocols``
    source: str


@functools.cache  # the YAML parser is slow
def read_published() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding='utf-8'))


def published_figures() -> list[PublishedFigure]:
    """Those of one network together, by scale."""
    found = []
    for entry in read_published()['figures']:
        protocols = {'PSNR': entry['protocol'], 'SSIM': entry.get('ssim', entry['protocol'])}
        for scale, sets in entry['scales'].items():
            for dataset, printed in sets.items():
                values = dict(zip(METRICS, printed.split(' / '), strict=False))
                found.append(
                    PublishedFigure(
                        name=entry['name'],
                        network={'type': entry['type'], **entry['arguments']},
                        self_ensemble=entry.get('self_ensemble', False),
                        scale=scale,
                        dataset=dataset,
                        values=values,
                        protocols={metric: protocols[metric] for metric in values},
                        source=entry['source'],
                    )
                )
    names = list(dict.fromkeys(figure.name for figure in found))
    return sorted(found, key=lambda figure: (names.index(figure.name), figure.scale))


def published_protocols() -> dict[str, str]:
    """Name of a protocol → what it is."""
    return {
        name: p if isinstance(p, str) else '; '.join(f'{NAMES[key]} {pixels(value)}' for key, value in p.items())
        for name, p in read_published()['protocols'].items()
    }


def published_for(
    figures: list[PublishedFigure], tested: TestedNetwork, measured: MeasuredSet
) -> PublishedFigure | None:
    """The published figure of the same network, form, scale and set."""
    scale = tested.scale_of(measured)
    return next(
        (
            figure
            for figure in figures
            if (figure.scale, figure.dataset) == (scale, measured.name)
            and figure.self_ensemble == tested.self_ensemble
            and figure.network.items() <= tested.network.items()
        ),
        None,
    )


def verdict(figure: PublishedFigure, measured: MeasuredSet, metric: str) -> str:
    """'equal', 'above (+0.03)', 'below (−0.03)', or 'different protocol' with what differs."""
    function, protocol = measured.function_of(metric), measured.protocol_of(metric)
    wanted = read_published()['protocols'][figure.protocols[function]]
    if protocol is None:
        return 'protocol not recorded'
    if isinstance(wanted, str):
        return f'different protocol: {figure.protocols[function]}'
    found = protocol._asdict() | {'lr': protocol.lr.partition(',')[0]}  # papers do not say which border MATLAB's has
    if differences := [
        f'{NAMES[key]} {pixels(found[key])}, not {pixels(value)}'
        for key, value in wanted.items()
        if found[key] != value
    ]:
        return f'different protocol: {"; ".join(differences)}'
    difference = measured.mean[metric] - float(figure.values[function])
    if abs(difference) < EQUAL[function] + 1e-9:
        return 'equal'
    digits = digits_of(function)
    return f'{"above" if difference > 0 else "below"} ({signed(difference, digits)})'


def digits_of(function: str) -> int:
    """After the point, as papers print them: 2 for dB, else 4."""
    return 2 if 'PSNR' in function else 4


def signed(value: float, digits: int) -> str:
    return f'{value:+.{digits}f}'.replace('-', '−')

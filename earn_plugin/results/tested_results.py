"""results.json files of `basicsr test`, read and checked: what was measured, on which images, and how."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from earn_plugin.errors import UsageError, UserError

FORMS = {'fused': 'fused', 'self_ensemble': 'self-ensemble'}
TOLERANCE = 1e-6  # of means that are computed again
Images = dict[str, dict[str, float]]  # image → metric → value


def pixels(number: int | str) -> str:
    return 'the scale' if number == 'scale' else str(number)


class Protocol(NamedTuple):
    """How a metric was computed; two figures can be compared if all of this is equal.

    ``border`` and ``hr``, the multiple that HR images are cropped to, are in pixels, or 'scale' where they are the
    scale's. ``channel`` and ``border`` are None for a function without these arguments; ``other`` has its others.
    """

    channel: str | None
    border: int | str | None
    hr: int | str
    lr: str
    other: str = ''

    def __str__(self) -> str:
        parts = [f'on {self.channel}'] if self.channel else []
        if self.border is not None:
            parts.append(f'border {pixels(self.border)}')
        return '; '.join([*parts, *filter(None, [self.other]), f'HR cropped to {pixels(self.hr)}', f'LR: {self.lr}'])


@dataclass(frozen=True)
class MeasuredSet:
    """A data set's figures: of each image, their means, and those of bicubic upscaling if there are any."""

    name: str
    images: Images
    mean: dict[str, float]
    bicubic: Images
    bicubic_mean: dict[str, float]
    protocol: dict[str, Any] | None  # as recorded; None in files of earlier versions
    seconds: float | None  # wall time of the network for an image

    def protocol_of(self, metric: str) -> Protocol | None:
        if self.protocol is None:
            return None
        arguments, scale = dict(self.protocol['metrics'][metric]), self.protocol['scale']
        for key in ('type', 'input_order'):
            arguments.pop(key, None)
        channels = {True: 'Y', False: 'RGB', None: None}
        channel, border = channels[arguments.pop('test_y_channel', None)], arguments.pop('crop_border', None)
        hr = self.protocol['hr_multiple']
        return Protocol(
            channel,
            'scale' if border == scale else border,
            'scale' if hr == scale else hr,
            self.protocol['lr'],
            ', '.join(f'{key} {value}' for key, value in sorted(arguments.items())),
        )

    def function_of(self, metric: str) -> str:
        """'PSNR' of calculate_psnr; for files without a protocol, the name that the options give to the metric."""
        name = self.protocol['metrics'][metric]['type'] if self.protocol else metric
        return name.removeprefix('calculate_').upper()


@dataclass(frozen=True)
class TestedNetwork:
    """A results.json: its network, and a set for each data set with metrics."""

    file: Path
    label: str  # its name, and its form unless that is the training form
    network: dict[str, Any]  # type and arguments; empty if it has none
    self_ensemble: bool
    parameters: int | None
    checkpoint: str | None  # the SHA-256 of its file
    versions: dict[str, str]
    device: str | None
    sets: list[MeasuredSet]

    @property
    def identity(self) -> tuple:
        return json.dumps(self.network, sort_keys=True), self.parameters, self.checkpoint

    def scale_of(self, measured: MeasuredSet) -> int | None:
        scale = measured.protocol['scale'] if measured.protocol else self.network.get('upscale')
        return scale if isinstance(scale, int) else None


def find_results(places: Iterable[Path]) -> list[Path]:
    """The files, and of each folder its JSON files and every results.json below it, except those that were replaced.

    Raises:
        UsageError: a place does not exist, or there is no file in it.
    """
    files: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            found = {*place.glob('*.json'), *place.rglob('results.json')}
            found = sorted(
                path for path in found if not any('_archived_' in part for part in path.relative_to(place).parts)
            )
        else:
            found = [place]
        if not place.exists():
            raise UsageError(f'{place} does not exist')
        if not found:
            raise UsageError(f'{place}: there is no results.json; `basicsr test` writes them to results/NAME')
        files |= dict.fromkeys(found)
    return list(files)


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError: the file cannot be read, or is not a JSON object."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} cannot be read: it is damaged, or not JSON ({error}); test again') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} is not a results.json of `basicsr test`: it holds {type(content).__name__}')
    return content


def tested_network(path: Path, report: dict[str, Any]) -> TestedNetwork:
    """Raises UserError: the content is not that of `basicsr test`, or a mean is not that of its images."""
    try:
        forms = [shown for key, shown in FORMS.items() if report.get(key)]
        return TestedNetwork(
            file=path,
            label=', '.join([_text(report['name']), *forms]),
            network=_typed(report, 'network_g', dict) or {},
            self_ensemble=bool(report.get('self_ensemble')),
            parameters=_typed(report, 'parameters', int),
            checkpoint=_typed(_typed(report, 'checkpoint', dict) or {}, 'sha256', str),
            versions={key: _text(version) for key, version in (_typed(report, 'versions', dict) or {}).items()},
            device=_typed(report, 'device', str),
            sets=[_measured(_text(name), found) for name, found in report['datasets'].items() if 'mean' in found],
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        reason = f'{error} is missing' if isinstance(error, KeyError) else str(error)
        raise UserError(f'{path} is not a results.json of `basicsr test`: {reason}') from error


def _measured(name: str, found: dict[str, Any]) -> MeasuredSet:
    bicubic = found.get('bicubic') or {'images': {}, 'mean': {}}
    seconds = _typed(found, 'seconds_per_image', (int, float))
    measured = MeasuredSet(
        name=name,
        images=_figures(found, name),
        mean=found['mean'],
        bicubic=_figures(bicubic, f'{name}, bicubic'),
        bicubic_mean=bicubic['mean'],
        protocol=_typed(found, 'protocol', dict),
        seconds=None if seconds is None else float(seconds),
    )
    if bicubic['mean'] and (measured.bicubic.keys(), bicubic['mean'].keys()) != (
        found['images'].keys(),
        found['mean'].keys(),
    ):
        raise ValueError(f'{name}: bicubic has other images or metrics')
    for key, kind in (('scale', int), ('hr_multiple', int), ('lr', str)) if measured.protocol else ():
        if _typed(measured.protocol, key, kind) is None:
            raise KeyError(key)
    for metric in measured.mean:
        hash((measured.protocol_of(metric), measured.function_of(metric)))  # raises what a damaged protocol raises
    return measured


def _figures(found: dict[str, Any], where: str) -> Images:
    """The figures of all images, after a comparison of their means with those of the file."""
    images = {image: {name: float(value) for name, value in of.items()} for image, of in found['images'].items()}
    for metric, mean in found['mean'].items():
        computed = fmean(values[metric] for values in images.values())
        if not (math.isclose(mean, computed, abs_tol=TOLERANCE) or (math.isnan(mean) and math.isnan(computed))):
            raise ValueError(f'{where}: the mean {metric} is {mean}, that of its images {computed}')
    return images


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError(f'{value!r} is not a name')
    return value


def _typed(of: dict[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """The value of a key, None if it has none. Raises TypeError: it has another type."""
    value = of.get(key)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise TypeError(f'{key} is {value!r}')
    return value


def check_consistency(tested: Sequence[TestedNetwork]) -> None:
    """Check that no two files give the same figure, or contradict each other.

    Raises:
        UserError: names two files that measured one network on one set in one way; that have different networks of one
            name; or whose sets of one name have different images, which bicubic's figures show.
    """
    networks: dict[str, TestedNetwork] = {}
    figures: dict[tuple, Path] = {}
    bicubic: dict[tuple, tuple[float, Path]] = {}
    for network in tested:
        first = networks.setdefault(network.label, network)
        if first.identity != network.identity and first.network and network.network:
            raise UserError(f'{first.file} and {network.file} have different networks named {network.label}')
        for measured in network.sets:
            for metric in measured.mean:
                scale, function = network.scale_of(measured), measured.function_of(metric)
                key = scale, measured.name, measured.protocol_of(metric), function
                earlier = figures.setdefault((network.label, *key), network.file)
                if earlier != network.file:
                    raise UserError(
                        f'{earlier} and {network.file} both have {function} of {network.label} on {measured.name} '
                        f'({key[2] or "protocol not recorded"}): leave one out'
                    )
                if metric not in measured.bicubic_mean or measured.protocol is None:
                    continue
                value = measured.bicubic_mean[metric]
                known, file = bicubic.setdefault((*key, len(measured.images)), (value, network.file))
                if not math.isclose(value, known, abs_tol=TOLERANCE):
                    raise UserError(
                        f'{file} and {network.file} measured different images under the name {measured.name}: bicubic '
                        f'has {function} {known:.4f} and {value:.4f}'
                    )

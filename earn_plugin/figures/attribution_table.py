"""The attributions of several networks for one window of one picture: computed, as a table and as JSON."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from earn_plugin.convert.networks import NetworkChoice, find_network
from earn_plugin.data.bicubic import crop_to_multiple, imresize
from earn_plugin.devices import find_device
from earn_plugin.errors import UsageError, UserError
from earn_plugin.figures.attribution import INCOMPLETE, MIDPOINT, Attribution, Rule, Window, attribute, find_window
from earn_plugin.inference.padding import for_any_size
from earn_plugin.inference.picture_files import on_white, read_picture
from earn_plugin.inference.upscaling import measure_scale
from earn_plugin.rng import seeded

STEPS = (10, 20, 40, 80)  # of the integral: more where the attributions of fewer do not add up


@dataclass(frozen=True)
class AttributionTable:
    """Attributions by the networks' labels, all for one window and one input, H×W×C in [0, 1]."""

    picture: str
    image: np.ndarray
    scale: int
    window: Window
    rule: Rule
    networks: Mapping[str, str]  # what each label stands for
    attributions: Mapping[str, Attribution]

    def __str__(self) -> str:
        (height, width), (x, y, size), scale = self.image.shape[:2], self.window, self.scale
        result = f'{width * scale}×{height * scale}'
        wide = max(len('network'), *map(len, self.attributions))
        lines = [
            f'{self.picture}: input {width}×{height}, window {size}×{size} at ({x}, {y}) of the result, {result}',
            f'{self.rule.name}, {self.rule.steps} steps',
            f'{"network":<{wide}}{"DI":>8}{"DI/100·pixels":>16}{"missing":>11}{"flat":>20}',
        ]
        for label, found in self.attributions.items():
            missing = '–' if found.missing is None else f'{100 * found.missing:+.2f} %'
            flat = f'{found.flat:,} of {found.terms:,}'
            lines.append(f'{label:<{wide}}{found.diffusion_index:>8.2f}{found.involved:>16.1f}{missing:>11}{flat:>20}')
        return '\n'.join([*lines, *self.warnings()])

    @property
    def is_incomplete(self) -> bool:
        return any(abs(found.missing or 0) > INCOMPLETE for found in self.attributions.values())

    def warnings(self) -> list[str]:
        """A line for each network whose attributions do not add up."""
        remedy = 'omit --as-published' if self.rule.point == 1 else 'raise --steps'
        lines = []
        for label, found in self.attributions.items():
            if found.missing is None:
                lines.append(f'warning: {label}: completeness is unknown: the edges of the blurred input are as strong')
            elif abs(found.missing) > INCOMPLETE:
                share = f'{100 * abs(found.missing):.1f} % {"is missing" if found.missing > 0 else "too much"}'
                lines.append(
                    f'warning: {label}: the attributions are not complete: {share}, more than {100 * INCOMPLETE:g} %; '
                    f'{remedy}; if that does not help, the network detaches a part of its input'
                )
        return lines

    def as_json(self) -> dict[str, Any]:
        rows = [
            {
                'label': label,
                'network': self.networks[label],
                'diffusion_index': found.diffusion_index,
                'involved_pixels': found.involved,
                'missing': found.missing,
                'flat': found.flat,
                'terms': found.terms,
                'map': found.map.round(6).tolist(),
            }
            for label, found in self.attributions.items()
        ]
        about = {'picture': self.picture, 'input': list(self.image.shape[:2]), 'scale': self.scale}
        return {**about, 'window': self.window._asdict(), 'rule': self.rule._asdict(), 'networks': rows}


def attribute_networks(
    path: Path,
    choices: Mapping[str, NetworkChoice],
    *,
    window: tuple[int, int, int] | None = None,
    rule: Rule | None = None,
    hr: bool = False,
    device: str | None = None,
) -> AttributionTable:
    """Attribute a window of each network's result for a picture.

    Args:
        path: a picture: the networks' input, or with ``hr`` the HR image, of which MATLAB's bicubic makes the input.
        choices: the networks by label; all of one scale, so that their windows and DIs can be compared.
        window: left column, top row and side, in pixels of the result; None for 16×16 in its centre.
        rule: None for the midpoint rule with 10 steps, or 20, 40 or 80 until all attributions are complete to 1 %.

    Raises:
        UsageError: the scales differ, or there is no such picture, network, window or device.
        UserError: the picture cannot be read, or a network has no attributions.
    """
    place = find_device(device)
    networks, scales, names = {}, {}, {}
    for label, choice in choices.items():
        with seeded(0):  # without a checkpoint, the weights are random
            found = find_network(choice)
        with _naming(label):
            channels, scales[label] = measure_scale(found.network)
            networks[label] = for_any_size(found.network, channels, scales[label]).to(place), channels
        names[label] = str(found) if choice.is_checkpoint else f'{found}, not trained'
    if len(set(scales.values())) > 1:
        listed = ', '.join(f'{label} ×{scale}' for label, scale in scales.items())
        raise UsageError(f'networks of several scales cannot be compared, as their windows or inputs differ: {listed}')
    scale = next(iter(scales.values()))
    image = _input(path, scale if hr else 1)
    where = find_window(tuple(scale * side for side in image.shape[:2]), *(window or ()))
    for used in [rule] if rule else [MIDPOINT._replace(steps=steps) for steps in STEPS]:
        attributions = {}
        with tqdm(total=len(networks) * used.steps, unit='step', disable=None) as bar:
            for label, (network, channels) in networks.items():
                bar.set_description(label)
                with _naming(label):
                    x = _with_channels(image, channels)
                    attributions[label] = attribute(network, x, scale, where, used, bar.update)
        table = AttributionTable(str(path), image, scale, where, used, names, attributions)
        if not table.is_incomplete:
            break
    return table


def _input(path: Path, reduction: int) -> np.ndarray:
    """The picture in [0, 1], H×W×1 or H×W×3 in float32, reduced as ``prepare lr`` does."""
    if not path.is_file():
        raise UsageError(f'{path} is a folder; pass a picture' if path.is_dir() else f'{path} does not exist')
    try:
        pixels = on_white(read_picture(path)).pixels
    except UserError as error:
        raise UserError(f'{path} {error}') from error
    largest = np.iinfo(pixels.dtype).max
    if reduction > 1:
        if min(pixels.shape[:2]) < reduction:
            raise UsageError(
                f'{path} has {pixels.shape[1]}×{pixels.shape[0]} pixels, too few to be reduced by {reduction}'
            )
        pixels = pixels if largest == 255 else pixels.astype(np.float64)
        pixels = imresize(crop_to_multiple(pixels, reduction), Fraction(1, reduction)).clip(0, largest)
    return pixels.astype(np.float32) / np.float32(largest)


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    if channels < image.shape[2]:
        raise UserError('takes grey pictures only, and this one is in colour')
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], channels)))


@contextmanager
def _naming(label: str) -> Iterator[None]:
    """In the block, errors begin with the label."""
    try:
        yield
    except UserError as error:
        raise type(error)(f'{label}: {error}') from error

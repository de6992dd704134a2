"""A paired comparison of two results.json files: is the difference more than the spread over the images?"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import stdev
from typing import NamedTuple

from scipy.special import stdtrit

from earn_plugin.errors import UsageError, UserError
from earn_plugin.results.published_figures import digits_of, signed
from earn_plugin.results.tested_results import MeasuredSet, TestedNetwork, find_results, read_json, tested_network

CONFIDENCE = 0.95


class PairedDifference(NamedTuple):
    """The mean of the differences, its 95 % confidence interval by the paired t-test, and the counts of their signs."""

    mean: float
    low: float
    high: float
    above: int
    below: int


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """First minus second, of the same images. One image alone has no interval: nan."""
    differences = [one - other for one, other in zip(first, second, strict=True)]
    mean, half = sum(differences) / len(differences), math.nan
    if len(differences) > 1 and all(map(math.isfinite, differences)):
        student = stdtrit(len(differences) - 1, (1 + CONFIDENCE) / 2)
        half = float(student) * stdev(differences) / math.sqrt(len(differences))
    above, below = (sum(sign * difference > 0 for difference in differences) for sign in (1, -1))
    return PairedDifference(mean, mean - half, mean + half, above, below)


def compare_results(places: Sequence[Path]) -> str:
    """A line for each metric of each data set that two results.json files have.

    Args:
        places: the two files, or their folders.

    Raises:
        UsageError: these are not two files.
        UserError: a file cannot be read; they have no data set in common; images or protocol differ, and how.
    """
    files = find_results(places)
    if len(files) != 2:
        raise UsageError(f'--compare takes two results.json, got {len(files)}: {", ".join(map(str, files))}')
    one, other = (tested_network(path, read_json(path)) for path in files)
    sets = {measured.name: measured for measured in other.sets}
    common = [(measured, sets[measured.name]) for measured in one.sets if measured.name in sets]
    if not common:
        has = [
            f'{network.file} has {", ".join(each.name for each in network.sets) or "none"}' for network in (one, other)
        ]
        raise UserError(f'no data set is in both: {"; ".join(has)}')
    lines = [f'{one.label} ({one.file}) minus {other.label} ({other.file}), mean over the images and its 95 % interval']
    for mine, theirs in common:
        check_same(one, mine, other, theirs)
        for metric in mine.mean:
            if metric in theirs.mean:
                lines.append(f'{mine.name}, {metric}: {describe_difference(mine, theirs, metric)}')
    return '\n'.join(lines)


def check_same(one: TestedNetwork, mine: MeasuredSet, other: TestedNetwork, theirs: MeasuredSet) -> None:
    """Raises UserError: two sets of one name have different images or protocols, or the protocol is not known."""
    for network, measured in ((one, mine), (other, theirs)):
        if measured.protocol is None:
            raise UserError(f'{network.file} does not record the protocol of {measured.name}: test it again')
    differences = [
        f'{key} is {value} and {theirs.protocol.get(key)}'
        for key, value in mine.protocol.items()
        if key != 'metrics' and value != theirs.protocol.get(key)
    ]
    common = [metric for metric in mine.mean if metric in theirs.mean]
    for metric in common:
        arguments, others = (measured.protocol['metrics'][metric] for measured in (mine, theirs))
        differences += [
            f'{key} of {metric} is {arguments.get(key)} and {others.get(key)}'
            for key in {**arguments, **others}
            if arguments.get(key) != others.get(key)
        ]
    if only := sorted(mine.images.keys() ^ theirs.images.keys()):
        differences.append(f'{only[0]} is in one of them only')
    if not common:
        differences.append('they have no metric in common')
    if not differences and mine.bicubic and theirs.bicubic:
        differences = [
            f'{image} is another image, of which bicubic has another {metric}'
            for image, values in mine.bicubic.items()
            for metric in common
            if not math.isclose(values[metric], theirs.bicubic[image][metric], abs_tol=1e-6)
        ][:1]
    if differences:
        raise UserError(f'{one.file} and {other.file} cannot be compared on {mine.name}: {"; ".join(differences)}')


def describe_difference(mine: MeasuredSet, theirs: MeasuredSet, metric: str) -> str:
    values = [[measured.images[image][metric] for image in mine.images] for measured in (mine, theirs)]
    digits, count = digits_of(mine.function_of(metric)) + 2, len(mine.images)
    found = paired_difference(*values)
    text = f'{signed(found.mean, digits)}'
    if count < 2:
        return f'{text}; one image has no interval'
    if math.isnan(found.low):
        return f'{text}; an image has a value that is not finite, so there is no interval'
    equal = count - found.above - found.below
    signs = f'{found.above} of {count} images above, {found.below} below' + (f', {equal} equal' if equal else '')
    return f'{text} [{signed(found.low, digits)}, {signed(found.high, digits)}]; {signs}'

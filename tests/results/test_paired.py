"""Paired comparisons against scipy's paired t-test."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from earn_plugin.results.paired import paired_difference
from tests.helpers.command import command_here
from tests.results.test_results_page import report, write


@pytest.mark.parametrize('count', [2, 3, 14, 100])
def test_the_interval_is_that_of_the_paired_t_test(count):
    rng = np.random.default_rng(count)
    first, second = rng.normal(30, 3, count), rng.normal(30, 3, count)
    second[0] = first[0]
    found, expected = paired_difference(first, second), ttest_rel(first, second).confidence_interval(0.95)
    assert found.mean == pytest.approx((first - second).mean(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert (found.above, found.below) == ((first > second).sum(), (first < second).sum())


def test_one_image_has_no_interval():
    assert math.isnan(paired_difference([1.0], [2.0]).low)
    assert math.isnan(paired_difference([math.inf, 1.0], [math.inf, 2.0]).low)
    assert math.isnan(paired_difference([math.inf, 1.0], [1.0, math.inf]).mean)


def compare(tmp_path, capsys, first: dict, second: dict, expect: int = 0) -> str:
    folder = write(tmp_path / 'r', a=first, b=second)
    return command_here('results', '--compare', folder, capsys=capsys, expect=expect)


def test_comparison_of_two_files(tmp_path, capsys):
    first, second = report(38.0), report(37.0, name='other')
    first['datasets']['Set5']['images']['a']['psnr'] += 0.5
    first['datasets']['Set5']['mean']['psnr'] += 0.25
    printed = compare(tmp_path, capsys, first, second)
    assert 'Set5, psnr: +1.2500 [−1.9266, +4.4266]; 2 of 2 images above, 0 below' in printed  # t = 12.706, s = 0.3536
    assert 'Set5, ssim: +0.000000 [+0.000000, +0.000000]; 0 of 2 images above, 0 below, 2 equal' in printed


def test_only_two_files_can_be_compared(tmp_path, capsys):
    folder = write(tmp_path / 'r', a=report())
    assert 'takes two results.json, got 1' in command_here('results', folder, '--compare', capsys=capsys, expect=2)


def test_a_single_image(tmp_path, capsys):
    first, second = report(38.0), report(37.5)
    for content in (first, second):
        for found in (content['datasets']['Set5'], content['datasets']['Set5']['bicubic']):
            del found['images']['b']
            found['mean'] = found['images']['a']
    assert 'psnr: +0.5000; one image has no interval' in compare(tmp_path, capsys, first, second)


def without_protocol() -> dict:
    content = report()
    del content['datasets']['Set5']['protocol']
    return content


def other_image() -> dict:
    content = report()
    for found in (content['datasets']['Set5'], content['datasets']['Set5']['bicubic']):
        found['images']['c'] = found['images'].pop('b')
    return content


@pytest.mark.parametrize(
    ('second', 'reason'),
    [
        (report(hr_multiple=12), 'hr_multiple is 2 and 12'),
        (report(border=4), 'crop_border of psnr is 2 and 4'),
        (report(y=False), 'test_y_channel of psnr is True and False'),
        (report(dataset='Set14'), 'no data set is in both'),
        (without_protocol(), 'does not record the protocol of Set5'),
        (other_image(), 'b is in one of them only'),
    ],
    ids=['HR', 'border', 'channel', 'set', 'earlier version', 'images'],
)
def test_what_differs_is_said(tmp_path, capsys, second, reason):
    assert reason in compare(tmp_path, capsys, report(), second, expect=1)

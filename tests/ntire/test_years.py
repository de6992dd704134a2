import math

import pytest

from earn_plugin.errors import UsageError
from earn_plugin.ntire.years import find_year


@pytest.mark.parametrize('year', [2024, 2025, 2026])
def test_the_baseline_scores_e_squared(year):
    asked = find_year(year)
    base = asked.baseline
    assert sum(asked.score(base.runtime, base.flops, base.params)) == pytest.approx(math.e**2, rel=1e-12)


def test_a_score_by_hand():
    # 2026: .8·exp(2·3.87/7.74) + .1·exp(2·9.83/9.83) + .1·exp(0)
    assert sum(find_year(2026).score(3.87, 9.83, 0)) == pytest.approx(0.8 * math.e + 0.1 * math.e**2 + 0.1, rel=1e-12)
    assert find_year(2023).score(1, 1, 1) is None


def test_the_runtime_of_an_equal_score():
    asked = find_year(2026)
    runtime = asked.equal_runtime(5.0, 0.118)
    assert sum(asked.score(runtime, 5.0, 0.118)) == pytest.approx(math.e**2, rel=1e-12)
    assert asked.equal_runtime(9.83, 0.151) == pytest.approx(7.74, rel=1e-12)
    assert asked.equal_runtime(40.0, 0.151) is None


def test_a_very_long_runtime_does_not_overflow():
    assert find_year(2026).score(1e6, 1, 1)[0] > 1e300


@pytest.mark.parametrize(('year', 'track'), [(2021, 'efficient'), (2022, 'quality')])
def test_years_without_a_protocol(year, track):
    with pytest.raises(UsageError, match=r'known: 2022 \(efficient\)'):
        find_year(year, track)

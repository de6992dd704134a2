import numpy as np
import pytest

from earn_plugin.figures.attention_maps import Reading
from earn_plugin.figures.attention_numbers import entropy, frequencies, frequency_correlations, mean_window, numbers_of


def test_frequencies_are_separated_by_a_gaussian():
    rows, columns = np.mgrid[0:24, 0:24]
    checks, ramp = (rows + columns) % 2 * 0.5, columns / 24
    high, low = frequencies(checks + ramp)
    inside = (slice(6, -6),) * 2
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.2**2))  # to 4 deviations
    passed = abs((taps * (-1.0) ** np.arange(11)).sum() / taps.sum()) ** 2
    np.testing.assert_allclose(high[inside], 0.25 * (1 - passed), atol=1e-12)
    np.testing.assert_allclose(low[inside], (0.25 + ramp)[inside], atol=passed)


def test_correlation_is_that_of_ranks():
    luma = np.random.default_rng(0).random((8, 9))
    high, low = frequencies(luma)
    maps = [('mask', high**3), ('mask', -np.exp(low)), ('gate', np.ones((8, 9))), ('channel_attention', np.ones(4))]
    found = frequency_correlations([Reading(kind, n + 1, 1, values) for n, (kind, values) in enumerate(maps)], luma)
    assert found.keys() == {'mask', 'gate'}
    assert found['mask'][0, 0] == pytest.approx(1)  # high frequencies, block 1
    assert found['mask'][1, 1] == pytest.approx(-1)
    assert np.isnan(found['gate']).all()


def test_entropy_is_0_for_one_pixel_and_1_for_equal_weights():
    weights = np.zeros((9, 1, 3), np.float32)
    weights[4, 0, 0] = 1
    weights[:, 0, 1] = 1 / 9
    weights[:3, 0, 2] = 1 / 3
    np.testing.assert_allclose(entropy(weights), [[0, 1, 0.5]], atol=1e-6)


def test_the_mean_window_has_its_rows_first():
    weights = np.arange(9.0)[:, None, None] + [[0, 1, 2]]
    np.testing.assert_array_equal(mean_window(weights), np.arange(9).reshape(3, 3) + 1)


def test_numbers_are_plain_data():
    readings = [
        Reading('mask', 2, 1, np.array([[0.123456789]], np.float32)),
        Reading('mask', 1, 1, np.array([[0.5]], np.float32)),
        Reading('local_attention', 1, 1, np.full((1, 1, 2), 1.0)),
    ]
    assert numbers_of(readings, {'mask': np.array([[0.5, 1], [np.nan, -1]])}) == {
        'attention': {
            'mask': [{'block': 1, 'call': 1, 'values': [[0.5]]}, {'block': 2, 'call': 1, 'values': [[0.12346]]}],
            'local_attention': [{'block': 1, 'call': 1, 'entropy': [[0, 0]], 'mean': [[1]]}],
        },
        'frequencies': {'mask': {'high': [0.5, 1], 'low': [None, -1]}},
    }

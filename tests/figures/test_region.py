import numpy as np
import pytest

from earn_plugin.figures.region import Region, choose_region, usual_size


def slow_choice(target, results, size, border):
    """Every region, every pixel, one after the other."""
    (width, height), (rows, columns) = size, target.shape[:2]
    merits = {}
    for y in range(border, rows - border - height + 1):
        for x in range(border, columns - border - width + 1):
            errors = []
            for result in results:
                pixels = [(i, j) for i in range(y, y + height) for j in range(x, x + width)]
                errors.append(
                    sum((int(a) - int(b)) ** 2 for p in pixels for a, b in zip(result[p], target[p], strict=True))
                )
            merits[x, y, width, height] = max(errors) - min(errors), max(errors)
    by_spread = max(merits, key=lambda region: merits[region][0])  # the first of equals, as rows are read
    return by_spread if merits[by_spread][0] else max(merits, key=lambda region: merits[region][1])


@pytest.mark.parametrize('count', [1, 2, 4])
@pytest.mark.parametrize('size, border', [((3, 5), 0), ((4, 2), 2), ((1, 1), 0)])
def test_the_choice_is_that_of_a_plain_loop(count, size, border):
    rng = np.random.default_rng(count)
    target, *results = rng.integers(0, 256, (count + 1, 11, 13, 3), np.uint8)
    assert choose_region(target, results, size, border) == slow_choice(target, results, size, border)


def test_results_that_are_equally_wrong_differ_nowhere_so_the_largest_error_counts():
    target = np.full((20, 30, 3), 100, np.uint8)
    wrong = target.copy()
    wrong[12:14, 7:9] = 130
    assert choose_region(target, [wrong, wrong], (2, 2)) == Region(7, 12, 2, 2)
    assert choose_region(target, [target, target], (6, 4)) == Region(12, 8, 6, 4)  # the middle


@pytest.mark.parametrize('size', [(20, 30), (19, 30), (20, 27)])
def test_a_region_as_large_as_the_image_reaches_into_the_border(size):
    target = np.zeros((30, 20, 3), np.uint8)
    region = choose_region(target, [target + 1], size, border=4)
    assert region[2:] == size
    assert region.x + region.width <= 20
    assert region.y + region.height <= 30


@pytest.mark.parametrize('shape, side', [((576, 720), 64), ((344, 228), 48), ((30, 400), 15), ((2, 2), 1), ((1, 9), 1)])
def test_usual_size(shape, side):
    assert usual_size(*shape) == (side, side)

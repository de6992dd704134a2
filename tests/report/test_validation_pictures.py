import numpy as np
import pytest

from earn_plugin.report.validation_pictures import MeasuredImage, Versions, cut, part_to_show, spread
from tests.helpers.images import photograph


@pytest.mark.parametrize('has_hr', [True, False])
def test_a_large_image_is_shown_where_the_results_differ_most(has_hr):
    lr, hr = photograph(60, 90), photograph(180, 270)
    network = hr.copy()
    network[100:130, 200:230] ^= 64
    versions = Versions(lr, hr.copy(), network, hr if has_hr else None)
    part = part_to_show(versions, 3, 64)
    assert (part.width, part.height) == (63, 63) and part.x % 3 == part.y % 3 == 0
    assert part.x <= 200 and part.y <= 100 and part.x + 63 >= 228 and part.y + 63 >= 128  # aligned to LR
    shown = cut(versions, part, 3)
    np.testing.assert_array_equal(shown.lr, lr[part.y // 3 : part.y // 3 + 21, part.x // 3 : part.x // 3 + 21])
    np.testing.assert_array_equal(shown.network, network[part.part])
    assert (shown.hr is None) != has_hr


def test_a_small_image_and_a_grey_one_are_shown_as_they_are():
    grey = photograph(20, 26)[..., 0]
    assert part_to_show(Versions(grey[::2, ::2], grey, grey, grey), 2) == (0, 0, 26, 20)


def test_images_are_spread_from_the_largest_gain_to_the_smallest():
    images = [MeasuredImage(str(n), n, {}, {}, n % 7) for n in range(7)]
    assert [image.index for image in spread(images, 9)] == [6, 5, 4, 3, 2, 1, 0]
    assert [image.index for image in spread(images, 3)] == [6, 3, 0]
    assert [image.index for image in spread(images, 1)] == [6]
    assert spread(images, 0) == []

import time

import numpy as np
import pytest
from basicsr.metrics import calculate_ssim

from earn_plugin.metrics.separable_ssim import separable_ssim
from tests.helpers.images import photograph


@pytest.mark.parametrize(
    'images',
    [
        (photograph(61, 90, 1), photograph(61, 90, 2)),
        (photograph(61, 90, 1), photograph(61, 90, 1)),
        (np.full((40, 40, 3), 255, np.uint8), np.full((40, 40, 3), 255, np.uint8)),  # sums of squares cancel
        (np.full((40, 40, 3), 255, np.uint8), np.full((40, 40, 3), 254, np.uint8)),
        (np.full((11, 12, 3), 255, np.uint8), np.zeros((11, 12, 3), np.uint8)),
    ],
    ids=['different', 'equal', 'flat', 'flat-different', 'smallest'],
)
@pytest.mark.parametrize('on_y', [True, False])
def test_the_value_is_basicsrs(images, on_y):
    expected = calculate_ssim(*images, crop_border=0, test_y_channel=on_y)
    with separable_ssim():
        assert calculate_ssim(*images, crop_border=0, test_y_channel=on_y) == pytest.approx(expected, abs=1e-11)
    assert calculate_ssim(*images, crop_border=0, test_y_channel=on_y) == expected


def test_it_takes_less_time():
    images = photograph(400, 400, 1), photograph(400, 400, 2)

    def seconds() -> float:
        start = time.process_time()
        calculate_ssim(*images, crop_border=0)
        return time.process_time() - start

    stock = min(seconds() for _ in range(3))
    with separable_ssim():
        assert min(seconds() for _ in range(3)) < stock

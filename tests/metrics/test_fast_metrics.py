import time

import numpy as np
import pytest
from basicsr.metrics import calculate_psnr, calculate_ssim

from earn_plugin.metrics.fast_metrics import fast_metrics
from tests.helpers.images import photograph


@pytest.mark.parametrize(
    'images',
    [
        (photograph(61, 90, 1), photograph(61, 90, 2)),
        (photograph(61, 90, 1), photograph(61, 90, 1)),
        (np.full((40, 40, 3), 255, np.uint8), np.full((40, 40, 3), 255, np.uint8)),  # sums of squares cancel
        (np.full((40, 40, 3), 255, np.uint8), np.full((40, 40, 3), 254, np.uint8)),
        (np.full((15, 16, 3), 255, np.uint8), np.zeros((15, 16, 3), np.uint8)),
    ],
    ids=['different', 'equal', 'flat', 'flat-different', 'smallest'],
)
@pytest.mark.parametrize('on_y', [True, False])
def test_the_values_are_basicsrs(images, on_y):
    settings = {'crop_border': 2, 'test_y_channel': on_y}
    expected = [metric(*images, **settings) for metric in (calculate_psnr, calculate_ssim)]
    with fast_metrics():
        psnr, ssim = (metric(*images, **settings) for metric in (calculate_psnr, calculate_ssim))
    assert psnr == expected[0]
    assert ssim == pytest.approx(expected[1], abs=1e-11)
    assert calculate_ssim(*images, **settings) == expected[1]


def test_no_image_has_the_y_of_another():
    """Also where it is a different part of the same memory, or is stored where an earlier one was."""
    one = photograph(40, 40, 1)
    pairs = [(one, one[::-1]), (one, one[:, ::-1]), (one[:30, :30], one[10:, 10:]), (one[:20], one[:20, ::2])]
    with fast_metrics():
        for first, second in pairs:
            shape = np.minimum(first.shape, second.shape)
            images = [image[: shape[0], : shape[1]] for image in (first, second)]
            found = calculate_psnr(*images, crop_border=0, test_y_channel=True)
            on_copies = [image.copy() for image in images]
            assert found == calculate_psnr(*on_copies, crop_border=0, test_y_channel=True)
        seen = {calculate_psnr(photograph(40, 40, seed), one, 0, test_y_channel=True) for seed in range(2, 12)}
    assert len(seen) == 10


def test_it_takes_less_time():
    images = photograph(400, 400, 1), photograph(400, 400, 2)

    def seconds() -> float:
        start = time.process_time()
        calculate_ssim(*images, crop_border=0)
        return time.process_time() - start

    stock = min(seconds() for _ in range(3))
    with fast_metrics():
        assert min(seconds() for _ in range(3)) < stock

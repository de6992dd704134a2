import numpy as np
import pytest
from basicsr.metrics import calculate_metric, calculate_psnr, calculate_ssim
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from earn_plugin.metrics.ntire_metrics import calculate_ntire_psnr, calculate_ntire_ssim
from tests.helpers.images import photograph

HR = photograph(47, 62, 1)
SR = np.clip(HR[:44, :60].astype(int) + np.random.default_rng(0).integers(-9, 10, (44, 60, 3)), 0, 255).astype(np.uint8)
INSIDE = np.s_[4:-4, 4:-4]


def test_psnr_equals_skimages():
    reference = peak_signal_noise_ratio(
        HR[:44, :60][INSIDE].astype(np.float64), SR[INSIDE].astype(float), data_range=255
    )
    assert calculate_ntire_psnr(SR, HR) == pytest.approx(reference, abs=1e-12)


def test_ssim_equals_skimages():
    reference = structural_similarity(
        HR[:44, :60][INSIDE].astype(np.float64),
        SR[INSIDE].astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2,
        full=True,
    )[1][5:-5, 5:-5].mean()
    assert calculate_ntire_ssim(SR, HR) == pytest.approx(reference, abs=1e-9)


@pytest.mark.parametrize(('track', 'on_y'), [('efficient', False), ('quality', True)])
def test_both_are_basicsrs_and_usable_by_name(track, on_y):
    data = {'img': SR, 'img2': HR[:44, :60]}
    for name, metric in (('psnr', calculate_psnr), ('ssim', calculate_ssim)):
        ours = calculate_metric(data, {'type': f'calculate_ntire_{name}', 'track': track})
        assert ours == metric(**data, crop_border=4, test_y_channel=on_y)


def test_an_unknown_track():
    with pytest.raises(ValueError, match='efficient, quality'):
        calculate_ntire_psnr(SR, HR, track='Y')

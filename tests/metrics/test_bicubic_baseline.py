import cv2
import numpy as np
import pytest
from basicsr.metrics import calculate_psnr
from basicsr.utils import bgr2ycbcr

from earn_plugin.data.bicubic import imresize
from earn_plugin.data.loaders import build_checked
from earn_plugin.metrics.bicubic_baseline import bicubic_metrics, compare_metrics
from tests.data.test_pair_checks import options
from tests.helpers.images import write_pairs

METRICS = {'psnr': {'type': 'calculate_psnr', 'crop_border': 2, 'better': 'higher'}}


def test_bicubic_is_matlabs_with_the_same_metric(tmp_path):
    root = write_pairs(tmp_path / 'pairs', 2)
    results = bicubic_metrics(build_checked(options(root, phase='val'))[0], METRICS, 2)
    expected = []
    for index in range(2):
        images = [cv2.imread(str(root / f'{folder}/im{index:02d}.png')) for folder in ('HR', 'LR')]
        expected.append(calculate_psnr(imresize(images[1], 2), images[0], 2))
    assert sorted(r['psnr'] for r in results) == pytest.approx(sorted(expected), abs=1e-12)


def test_set5_has_the_published_bicubic_figure(shared_data):
    """28.42 dB at ×4 in all papers, on Y rounded as in MATLAB; BasicSR, which does not round, gives 28.43."""

    def psnr(image, target):
        y = [np.round(bgr2ycbcr(x.astype(np.float32) / 255, y_only=True) * 255)[4:-4, 4:-4] for x in (image, target)]
        return 10 * np.log10(255**2 / np.mean((y[0] - y[1]) ** 2))

    values = []
    for path in sorted((shared_data / 'Set5/HR').iterdir()):
        upscaled = imresize(cv2.imread(str(shared_data / f'Set5/LR_bicubic/X4/{path.stem}x4.png')), 4)
        values.append(psnr(upscaled, cv2.imread(str(path))[: upscaled.shape[0], : upscaled.shape[1]]))
    assert round(float(np.mean(values)), 2) == 28.42


def test_compare():
    assert compare_metrics({'psnr': 30.5}, {'psnr': 30.0}) == 'psnr 30.5000 (bicubic 30.0000, +0.5000)'
    assert compare_metrics({'psnr': 30.5}, None) == 'psnr 30.5000'

"""The adversarial demo: neither network wins, and images are saved."""

import re

import cv2
import pytest

from tests.helpers.command import command


@pytest.mark.slow
def test_generator_and_discriminator_stay_balanced(tmp_path):
    shorter = ('train:total_iter=60', 'val:val_freq=60', 'datasets:train:batch_size_per_gpu=4')
    printed = command('train', '-opt', 'demo_GAN_x4', '--force_yml', *shorter, cwd=tmp_path, timeout=600)
    lines = [dict(re.findall(r'(\w+): (\S+) ', line)) for line in printed.splitlines() if 'd_real: ' in line]
    assert len(lines) == 3
    for logged in lines:
        for name in ('l_pix', 'l_tv', 'l_g_gan', 'l_d_real', 'l_d_fake'):
            assert 0 < float(logged[name]) < 10
        for name in ('d_real', 'd_fake'):
            assert 0.001 < float(logged[name]) < 0.999
            assert float(logged[name]) != 0.5
    psnr, bicubic = re.search(r'held_out at iteration 60: psnr (\S+) \(bicubic (\S+),', printed).groups()
    assert float(psnr) > float(bicubic) - 2
    pictures = sorted((tmp_path / 'experiments/demo_GAN_x4/visualization').rglob('*_60.png'))
    assert len(pictures) == 2
    assert all(cv2.imread(str(picture)).std() > 10 for picture in pictures)

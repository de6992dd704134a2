from fractions import Fraction

import cv2
import numpy as np

from earn_plugin.cli import main
from earn_plugin.data.bicubic import imresize
from earn_plugin.data.image_files import read_image
from earn_plugin.prepare.lr import make_lr
from tests.helpers.images import names_in, photograph


def test_lr_equals_matlabs_and_has_the_suffix(folder, tmp_path):
    make_lr(folder, tmp_path / 'X2', 2, suffix='x2')
    assert names_in(tmp_path / 'X2') == ['im0x2.png', 'im1x2.png', 'im2x2.png']
    expected = imresize(photograph(51, 70, 1)[:50], Fraction(1, 2))
    np.testing.assert_array_equal(read_image(tmp_path / 'X2/im1x2.png'), expected)


def test_warning_that_lr_of_jpegs_does_not_pair(folder, tmp_path, capsys):
    cv2.imwrite(str(folder / 'im9.jpg'), photograph(40, 40))
    arguments = ['prepare', 'lr', str(folder), str(tmp_path / 'X2'), '--scale', '2']
    assert main(arguments) == 0
    assert 'im9.jpg is not, and BasicSR pairs only files of the same type: with --cropped' in capsys.readouterr().out
    assert main([*arguments, '--cropped', str(tmp_path / 'HR2')]) == 0
    assert 'warning:' not in capsys.readouterr().out
    assert main([*arguments[:-1], '0', '--cropped', str(tmp_path / 'HR0')]) == 2
    assert 'scale must be at least 1, got 0' in capsys.readouterr().err
    assert main(['prepare', 'check', str(tmp_path / 'HR2'), str(tmp_path / 'X2'), '--scale', '2']) == 0

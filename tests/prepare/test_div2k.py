"""DIV2K's command, on small archives packed as the published ones."""

from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from earn_plugin.data.bicubic import imresize
from earn_plugin.data.image_files import read_image, write_image
from earn_plugin.prepare import div2k
from tests.helpers.command import command
from tests.helpers.images import photograph
from tests.helpers.published import TRAIN, lmdb_lines, prepare, tree, unpack


def test_missing_images_of_div2k_are_counted(downloads):
    """In a process of its own, on a part of DIV2K."""
    printed = command('prepare', 'div2k', downloads, cwd=downloads.parent, expect=1)
    assert '797 of 800 images are missing: 0004.png, 0005.png, 0006.png, 0007.png, 0008.png, and 792 more' in printed
    assert not Path('datasets/DIV2K').exists()


def test_div2k(downloads, capsys):
    prepare('div2k', downloads, '--scales', 2, 3, 4, 8, capsys=capsys)
    root = Path('datasets/DIV2K')
    for number, image in TRAIN.items():
        np.testing.assert_array_equal(read_image(root / f'DIV2K_train_HR/{number:04d}.png'), image)
    assert [p.name for p in sorted((root / 'DIV2K_valid_LR_bicubic/X4').glob('*.png'))] == ['0801x4.png', '0802x4.png']
    hr = lmdb_lines('DIV2K/DIV2K_train_HR_sub.lmdb')
    assert hr[:3] == ['0001_s001.png (480,480,3) 1', '0001_s002.png (480,480,3) 1', '0002_s001.png (480,480,3) 1']
    for scale in (2, 3, 4):
        lr = lmdb_lines(f'DIV2K/DIV2K_train_LR_bicubic_X{scale}_sub.lmdb')
        assert lr == [line.replace('480', str(480 // scale)) for line in hr]
    assert len(lmdb_lines('DIV2K/DIV2K_train_HRmod8_sub.lmdb')) == 5
    assert lmdb_lines('DIV2K/DIV2K_train_LRbicx8_sub.lmdb')[0] == '0001_s001.png (60,60,3) 1'
    before = tree()
    assert not [*Path('datasets').glob('.*'), *root.glob('.*')]
    printed = prepare('div2k', downloads, '--scales', 2, 3, 4, 8, capsys=capsys)
    assert ' created' not in printed
    assert printed.count('already exists') == 12
    assert tree() == before


def test_missing_archive_is_named_and_the_rest_is_made(downloads, capsys):
    (downloads / 'DIV2K_train_LR_bicubic_X3.zip').rename(downloads / 'DIV2K_train_LR_bicubic_X3.zip.part')
    printed = prepare('div2k', downloads, '--scales', 2, 3, capsys=capsys, expect=1)
    assert 'DIV2K_train_LR_bicubic_X3.zip is not in' in printed
    assert 'https://data.vision.ee.ethz.ch/cvl/DIV2K/' in printed
    assert 'DIV2K_train_LR_bicubic_X3.zip.part is an unfinished download' in printed
    assert Path('datasets/DIV2K/DIV2K_train_LR_bicubic_X2_sub.lmdb').is_dir()
    assert not Path('datasets/DIV2K/DIV2K_train_LR_bicubic/X3').exists()


def test_missing_lr_images_are_made_on_request(downloads, capsys):
    prepare('div2k', downloads, '--scales', 2, '--out', 'expected', capsys=capsys)
    (downloads / 'DIV2K_train_LR_bicubic_X2.zip').unlink()
    prepare('div2k', downloads, '--scales', 2, '--make-lr', capsys=capsys)
    created, expected = ({p.name: p for p in Path(r).rglob('000?x2.png')} for r in ('datasets', 'expected'))
    assert len(created) == 3
    for name, path in created.items():
        np.testing.assert_array_equal(read_image(path), read_image(expected[name]))


@pytest.mark.parametrize('hr', [(480, 484), (491, 480)])
def test_lr_images_of_wrong_size(downloads, capsys, hr):
    """240×240 is not half of 480×484; 246×240 is half of 491×480, rounded up, but not once 12 divides both."""
    unpack(downloads, 'DIV2K_train_HR', 'DIV2K_train_LR_bicubic_X2')
    write_image(downloads / 'DIV2K_train_HR/0002.png', photograph(*hr))
    lr = photograph(246 if hr[0] == 491 else 240, 240)
    write_image(downloads / 'DIV2K_train_LR_bicubic/X2/0002x2.png', lr)
    printed = prepare('div2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'X2: 1 images are not 1/2 of those in DIV2K_train_HR: 0002x2.png' in printed
    assert not Path('datasets/DIV2K/DIV2K_train_LR_bicubic_X2_sub.lmdb').exists()


def test_lr_images_with_rounded_up_sizes_pair(tmp_path, monkeypatch, capsys):
    """MATLAB makes 241 of 481; sub-images at the right and the bottom must still pair."""
    hr = photograph(721, 484, 8)
    write_image(tmp_path / 'D/DIV2K_train_HR/0001.png', hr)
    write_image(tmp_path / 'D/DIV2K_train_LR_bicubic/X2/0001x2.png', imresize(hr, Fraction(1, 2)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(div2k, 'make_div2k', partial(div2k.make_div2k, train=[1]))
    prepare('div2k', 'D', '--scales', 2, capsys=capsys)
    assert lmdb_lines('DIV2K/DIV2K_train_HR_sub.lmdb') == [f'0001_s00{i}.png (480,480,3) 1' for i in (1, 2)]
    assert lmdb_lines('DIV2K/DIV2K_train_LR_bicubic_X2_sub.lmdb') == [f'0001_s00{i}.png (240,240,3) 1' for i in (1, 2)]

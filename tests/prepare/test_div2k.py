"""DIV2K's command, on small archives packed as the published ones."""

from pathlib import Path

import numpy as np

from earn_plugin.data.image_files import read_image
from tests.helpers.command import command
from tests.helpers.published import TRAIN, lmdb_lines, prepare, tree


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

import numpy as np
import pytest

from earn_plugin.data.image_files import write_image
from earn_plugin.errors import UserError
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.lr import make_lr
from earn_plugin.prepare.subimages import SubImages, make_subimages, subimages
from tests.helpers.command import command_here
from tests.helpers.images import contents, lmdb_values, names_in, photograph


def test_subimages_cover_the_image_and_pair_with_their_lr(folder, tmp_path):
    make_lr(folder, tmp_path / 'X2', 2, suffix='x2')
    make_subimages(folder, tmp_path / 'sub', SubImages(32, 16))
    make_subimages(tmp_path / 'X2', tmp_path / 'sub2', SubImages(16, 8, suffix='x2'))
    names = [names_in(tmp_path / f) for f in ('sub', 'sub2')]
    assert names[0][0] == 'im0_s001.png'
    assert set(names[1]) == set(names[0])
    covered = np.zeros((50, 70))
    sub_images = list(subimages(np.dstack(np.mgrid[0:50, 0:70]), 32, 16))
    for sub_image in sub_images:
        assert sub_image.shape == (32, 32, 2)
        covered[sub_image[..., 0], sub_image[..., 1]] = 1
    assert covered.all()
    assert len(sub_images) == 3 * 4


def test_image_smaller_than_a_sub_image(folder, tmp_path):
    with pytest.raises(UserError, match=r'im0\.png is 50×70, smaller than 64×64'):
        make_subimages(folder, tmp_path / 'sub', SubImages(64, 32))
    assert not (tmp_path / 'sub').exists()


def test_lr_and_subimages_pair_where_the_scale_does_not_divide(folder, tmp_path):
    make_subimages(folder, tmp_path / 'HRmod4', SubImages(multiple=4))
    make_lr(folder, tmp_path / 'X4', 4)
    make_subimages(folder, tmp_path / 'sub', SubImages(32, 16, multiple=4))
    make_subimages(tmp_path / 'HRmod4', tmp_path / 'sub_of_cropped', SubImages(32, 16))
    assert contents(tmp_path / 'sub').keys() == contents(tmp_path / 'sub_of_cropped').keys()
    for path in (tmp_path / 'sub').glob('*.png'):
        assert path.read_bytes() == (tmp_path / 'sub_of_cropped' / path.name).read_bytes()


def test_small_images_are_skipped_on_request(folder, tmp_path):
    write_image(folder / 'tiny.png', photograph(20, 70))
    make_subimages(folder, tmp_path / 'sub', SubImages(32, 16, skip_small=True))
    make_lmdb(folder, tmp_path / 'sub.lmdb', SubImages(32, 16, skip_small=True))
    assert len(names_in(tmp_path / 'sub')) == len(lmdb_values(tmp_path / 'sub.lmdb')) == 36
    with pytest.raises(UserError, match='all its images are smaller'):
        make_subimages(folder, tmp_path / 'none', SubImages(64, 16, skip_small=True))


def test_command_divides_hr_sizes_by_the_scale(folder, tmp_path, capsys, monkeypatch):
    """HR and LR are cut alike, also if the scale does not divide HR."""
    monkeypatch.chdir(tmp_path)
    command_here('prepare', 'lr', 'HR', 'X2', '--scale', 2, '--suffix', 'x2', capsys=capsys)
    cutting = ('--size', 32, '--step', 16, '--multiple', 4)
    command_here('prepare', 'lmdb', 'HR', 'HR.lmdb', *cutting, capsys=capsys)
    command_here('prepare', 'lmdb', 'X2', 'X2.lmdb', *cutting, '--scale', 2, '--suffix', 'x2', capsys=capsys)
    hr, lr = lmdb_values(tmp_path / 'HR.lmdb'), lmdb_values(tmp_path / 'X2.lmdb')
    assert hr.keys() == lr.keys()
    printed = command_here('prepare', 'lmdb', 'X2', 'X3.lmdb', *cutting, '--scale', 3, capsys=capsys, expect=2)
    assert '--size is in HR pixels and must be a multiple of --scale 3, got 32' in printed
    assert 'problems' in command_here('prepare', 'check', 'HR.lmdb', 'X2.lmdb', capsys=capsys)


@pytest.mark.parametrize('arguments', [('--scale', 0), ('--scale', -2), ('--multiple', 0)], ids=str)
def test_numbers_below_one(folder, tmp_path, capsys, arguments):
    printed = command_here('prepare', 'lmdb', folder, tmp_path / 'X.lmdb', *arguments, capsys=capsys, expect=2)
    assert f'{arguments[0].strip("-")} must be at least 1, got {arguments[1]}' in printed

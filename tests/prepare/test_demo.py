from fractions import Fraction

import numpy as np
import pytest
from skimage import data

from earn_plugin.data.bicubic import imresize
from earn_plugin.data.image_files import read_image
from earn_plugin.data.loaders import build_checked
from earn_plugin.errors import UserError
from earn_plugin.prepare import demo
from tests.helpers.images import pair_options


@pytest.fixture(scope='module')
def created(tmp_path_factory):
    root = tmp_path_factory.mktemp('work') / 'datasets/demo'
    assert demo.make_demo(root)
    return root


def test_split_is_fixed_and_disjoint(created):
    names = {part: {p.stem for p in (created / part / 'HR').iterdir()} for part in ('train', 'val')}
    assert names == {'train': set(demo.TRAIN), 'val': set(demo.HELD_OUT)}
    assert not names['train'] & names['val']


def test_photographs_are_scikit_images_own(created):
    image = read_image(created / 'val/HR/cat.png')
    np.testing.assert_array_equal(image[..., ::-1], data.chelsea()[:300, :444])


@pytest.mark.parametrize('scale', demo.SCALES)
def test_lr_is_bicubic_at_every_scale(created, scale):
    coffee = read_image(created / 'val/HR/coffee.png')
    lr = read_image(created / f'val/LR_bicubic/X{scale}/coffee.png')
    np.testing.assert_array_equal(lr, imresize(coffee, Fraction(1, scale)))


@pytest.mark.parametrize('scale', demo.SCALES)
def test_lmdbs_are_pairs_that_basicsr_reads(created, scale):
    lr = str(created / f'train/LR_bicubic_X{scale}_sub.lmdb')
    roots = {'dataroot_gt': str(created / 'train/HR_sub.lmdb'), 'dataroot_lq': lr}
    still = {'gt_size': 240, 'use_hflip': False, 'use_rot': False}
    opt = pair_options(created, backend='lmdb', **{'scale': scale, **roots, **still})
    dataset, warnings = build_checked(opt)
    assert not warnings
    assert len(dataset) > 200
    sample = dataset[17]
    assert sample['gt'].shape == (3, 240, 240)
    # a sub-image of the LR is the LR of the sub-image but for its border
    hr = (sample['gt'].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    lr = (sample['lq'].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(imresize(hr, Fraction(1, scale))[4:-4, 4:-4], lr[4:-4, 4:-4])


def test_existing_demo_is_kept(created):
    before = (created / 'val/HR/cat.png').stat().st_mtime_ns
    assert not demo.make_demo(created)
    assert (created / 'val/HR/cat.png').stat().st_mtime_ns == before


def test_missing_photograph_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    def gone():
        raise FileNotFoundError('pooch')

    monkeypatch.setitem(demo.TRAIN, 'astronaut', gone)
    with pytest.raises(UserError, match=r'photograph astronaut \(pooch\)'):
        demo.make_demo(tmp_path / 'demo')
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_not_writable(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file/demo could not be created'):
        demo.make_demo(tmp_path / 'file/demo')


def test_would_create_names_exactly_what_is_created(tmp_path, monkeypatch, created):
    root = created.parent.parent
    paths = [
        p for p in created.rglob('*') if p.suffix == '.lmdb' or (p.is_dir() and not p.parent.name.endswith('.lmdb'))
    ]
    monkeypatch.chdir(tmp_path)
    for path in paths:
        relative = path.relative_to(root).as_posix()
        has_images = path.suffix == '.lmdb' or any(path.glob('*.png'))
        assert demo.would_create(relative) == has_images, relative
    assert sum(demo.would_create(path.relative_to(root)) for path in paths) == 12
    assert not demo.would_create('datasets/demo/train/HRR')
    (tmp_path / 'datasets/demo').mkdir(parents=True)  # make_demo leaves an existing one alone
    assert not demo.would_create('datasets/demo/train/HR')


def test_demo_is_made_only_if_it_is_read_and_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(demo, 'make_demo', lambda: calls.append(1))

    def options(root):
        return {'datasets': {'train': {'dataroot_gt': root}, 'val': None}}

    demo.make_missing_demo(options('datasets/DIV2K/HR.lmdb'))
    assert calls == []
    demo.make_missing_demo(options('datasets/demo/train/HR_sub.lmdb'))
    assert calls == [1]
    (tmp_path / 'datasets/demo').mkdir(parents=True)
    demo.make_missing_demo(options('datasets/demo/train/HR_sub.lmdb'))
    assert calls == [1]

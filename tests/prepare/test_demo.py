from fractions import Fraction

import numpy as np
import pytest
from skimage import data

from earn_plugin.data.bicubic import imresize
from earn_plugin.data.image_files import read_image
from earn_plugin.data.loaders import build_checked
from earn_plugin.data.image_headers import read_header
from earn_plugin.errors import UserError
from earn_plugin.prepare import demo


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('work') / 'datasets/demo'
    assert demo.make_demo(root)
    return root


def test_split_is_fixed_and_apart(made):
    names = {part: {p.stem for p in (made / part / 'HR').iterdir()} for part in ('train', 'val')}
    assert names == {'train': set(demo.TRAIN), 'val': set(demo.HELD_OUT)}
    assert not names['train'] & names['val']


def test_photographs_are_scikit_images_own(made):
    image = read_image(made / 'val/HR/cat.png')
    np.testing.assert_array_equal(image[..., ::-1], data.chelsea()[:300, :444])


@pytest.mark.parametrize('scale', demo.SCALES)
def test_lr_fits_at_every_scale(made, scale):
    for part in ('train', 'val'):
        for path in (made / part / 'HR').iterdir():
            hr, lr = read_header(path), read_header(made / part / f'LR_bicubic/X{scale}' / path.name)
            assert (hr.height, hr.width) == (lr.height * scale, lr.width * scale)
    coffee = read_image(made / 'val/HR/coffee.png')
    lr = read_image(made / f'val/LR_bicubic/X{scale}/coffee.png')
    np.testing.assert_array_equal(lr, imresize(coffee, Fraction(1, scale)))


@pytest.mark.parametrize('scale', demo.SCALES)
def test_lmdbs_are_pairs_that_basicsr_reads(made, scale):
    opt = {
        'name': 'demo',
        'type': 'PairedImageDataset',
        'phase': 'train',
        'scale': scale,
        'dataroot_gt': str(made / 'train/HR_sub.lmdb'),
        'dataroot_lq': str(made / f'train/LR_bicubic_X{scale}_sub.lmdb'),
        'io_backend': {'type': 'lmdb'},
        'gt_size': 240,
        'use_hflip': False,
        'use_rot': False,
    }
    dataset, notes = build_checked(opt)
    assert not notes
    assert len(dataset) > 200
    sample = dataset[17]
    assert sample['gt'].shape == (3, 240, 240)
    # a sub-image of the LR is the LR of the sub-image but for its border
    hr = (sample['gt'].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    lr = (sample['lq'].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(imresize(hr, Fraction(1, scale))[4:-4, 4:-4], lr[4:-4, 4:-4])


def test_what_is_there_is_left_alone(made):
    before = (made / 'val/HR/cat.png').stat().st_mtime_ns
    assert not demo.make_demo(made)
    assert (made / 'val/HR/cat.png').stat().st_mtime_ns == before


def test_a_photograph_that_is_missing_is_told_and_nothing_is_left(tmp_path, monkeypatch):
    def gone():
        raise FileNotFoundError('pooch')

    monkeypatch.setitem(demo.TRAIN, 'astronaut', gone)
    with pytest.raises(UserError, match=r'photograph astronaut \(pooch\)'):
        demo.make_demo(tmp_path / 'demo')
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_may_not_be_written_to(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file/demo could not be made'):
        demo.make_demo(tmp_path / 'file/demo')


def test_demo_is_made_only_where_it_is_read_and_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr(demo, 'make_demo', lambda: made.append(1))

    def options(root):
        return {'datasets': {'train': {'dataroot_gt': root}, 'val': None}}

    demo.make_missing_demo(options('datasets/DIV2K/HR.lmdb'))
    demo.make_missing_demo({'datasets': 3})
    assert made == []
    demo.make_missing_demo(options('datasets/demo/train/HR_sub.lmdb'))
    assert made == [1]
    (tmp_path / 'datasets/demo').mkdir(parents=True)
    demo.make_missing_demo(options('datasets/demo/train/HR_sub.lmdb'))
    assert made == [1]

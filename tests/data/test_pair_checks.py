import copy

import cv2
import numpy as np
import pytest
from basicsr.utils import FileClient
from PIL import Image

from earn_plugin.data import pair_checks
from earn_plugin.data.loaders import build_checked, validation_loader
from earn_plugin.errors import UserError
from tests.helpers.images import make_lmdbs, photograph, write_pairs
from tests.helpers.images import pair_options as options


def error_of(opt) -> str:
    with pytest.raises(UserError) as error:
        build_checked(opt)
    return str(error.value)


def loader_of(opt, dataset=None):
    run = {'num_gpu': 0, 'dist': False, 'manual_seed': 0}
    return validation_loader(dataset or build_checked(opt)[0], opt, run)


@pytest.fixture
def root(tmp_path):
    return write_pairs(tmp_path / 'pairs', 4)


def test_valid_pairs_have_no_warnings(root, pairs):
    assert build_checked(options(root))[1] == []
    assert build_checked(options(pairs, backend='lmdb'))[1] == []


def test_unreadable_images_are_named(root):
    content = (root / 'HR/im00.png').read_bytes()
    (root / 'HR/im00.png').write_bytes(content[: len(content) // 2])
    (root / 'LR/im01.png').write_text('not an image')
    (root / 'LR/im02.png').write_bytes(b'')
    message = error_of(options(root))
    assert message.startswith('data set set has 3 problems:')
    assert f'{root}/HR/im00.png is cut off' in message
    assert f'{root}/LR/im01.png is not an image' in message
    assert f'{root}/LR/im02.png is empty' in message


@pytest.mark.parametrize('backend', ['disk', 'lmdb'])
def test_sizes_that_do_not_fit_are_named(root, backend):
    cv2.imwrite(str(root / 'HR/im01.png'), photograph(50, 56))
    if backend == 'lmdb':
        make_lmdbs(root)
    message = error_of(options(root, backend=backend))
    assert 'im01' in message
    assert 'is 50×56, but ×2 of' in message
    assert '(24×28) is 48×56' in message


def test_validation_accepts_sizes_that_are_not_multiples_of_the_scale(root):
    cv2.imwrite(str(root / 'HR/im01.png'), photograph(49, 57))
    assert build_checked(options(root, phase='val'))[1] == []
    cv2.imwrite(str(root / 'HR/im01.png'), photograph(50, 56))
    assert 'is 50×56' in error_of(options(root, phase='val'))


def test_images_smaller_than_the_crop_are_named(root):
    assert 'is 48×56, smaller than gt_size 64' in error_of(options(root, gt_size=64))


def test_validation_images_smaller_than_the_metrics_need_are_named(root):
    assert 'is 48×56, but the metrics and their crop_border need 49' in error_of(
        options(root, phase='val', smallest=49)
    )
    assert build_checked(options(root, phase='val', smallest=48))[1] == []


def test_grey_rgba_and_16_bit_images_are_read_with_a_warning(root):
    Image.fromarray(photograph(48, 56)).convert('L').save(root / 'HR/im00.png')
    Image.fromarray(photograph(48, 56)).convert('RGBA').save(root / 'HR/im01.png')
    cv2.imwrite(str(root / 'HR/im02.png'), photograph(48, 56).astype(np.uint16) * 257)
    dataset, (warning,) = build_checked(options(root))
    assert f'{root}/HR/im00.png is grey, {root}/HR/im01.png is RGBA, {root}/HR/im02.png is 16-bit RGB' in warning
    assert warning.endswith('read as 8-bit RGB')
    images = {batch['gt_path'][0][-8:]: batch['gt'] for batch in loader_of(options(root, phase='val'))}
    assert all(image.shape == (1, 3, 48, 56) for image in images.values())
    expected = cv2.cvtColor(photograph(48, 56), cv2.COLOR_BGR2RGB).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(images['im02.png'][0], expected, atol=1 / 255)
    assert len(dataset) == 4


def test_size_is_that_after_rotation_by_exif(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photograph(56, 48)).save(root / 'HR/im01.png', exif=exif)
    dataset, (warning,) = build_checked(options(root))
    assert warning == f'data set set: {root}/HR/im01.png is rotated by its EXIF orientation 6: read as 8-bit RGB'
    assert all(dataset[index]['gt'].shape == (3, 32, 32) for index in range(4))


def test_keys_may_have_brackets(root):
    for folder in ('HR', 'LR'):
        (root / folder / 'im01.png').rename(root / folder / 'im01 (1).png')
    make_lmdbs(root)
    dataset, warnings = build_checked(options(root, backend='lmdb'))
    assert warnings == []
    assert dataset.paths[1] == {'gt_path': 'im01 (1)', 'lq_path': 'im01 (1)'}


def test_long_warning_is_shortened(root):
    for index in range(4):
        for folder, size in (('HR', (56, 48)), ('LR', (28, 24))):
            for twin in range(4):
                Image.new('L', size).save(root / folder / f'im{index}{twin}.png')
    (warning,) = build_checked(options(root))[1]
    assert warning.count('grey') == 10
    assert 'and 22 more' in warning


@pytest.mark.parametrize('backend', ['disk', 'lmdb'])
def test_images_that_do_not_pair_are_named(root, backend):
    (root / 'LR/im03.png').unlink()
    cv2.imwrite(str(root / 'LR/extra.png'), photograph(4, 4))
    if backend == 'lmdb':
        make_lmdbs(root)
    message = error_of(options(root, backend=backend))
    assert 'HR and LR do not pair' in message
    assert 'im03' in message.splitlines()[1]
    assert 'extra' in message.splitlines()[2]


def test_template_of_lr_names_is_used_and_reported(root):
    assert "(filename_tmpl is '{}x2')" in error_of(options(root, filename_tmpl='{}x2'))
    for path in sorted((root / 'LR').iterdir()):
        path.rename(path.with_name(f'{path.stem}x2.png'))
    assert len(build_checked(options(root, filename_tmpl='{}x2'))[0]) == 4


def test_empty_folder(root):
    for path in (root / 'HR').iterdir():
        path.unlink()
    assert error_of(options(root)) == f'data set set is empty: no image in {root}/HR'
    single = {'name': 'lq', 'type': 'SingleImageDataset', 'phase': 'test', 'io_backend': {'type': 'disk'}}
    assert 'data set lq is empty' in error_of({**single, 'dataroot_lq': str(root / 'HR')})


def test_invalid_lmdb(pairs, root):
    opt = options(root, backend='lmdb')
    assert 'HR must be a folder whose name ends in .lmdb' in error_of({**opt, 'dataroot_gt': str(root / 'HR')})
    (pairs / 'LR.lmdb/meta_info.txt').write_text('im00.png (2,three,3) 1\n')
    assert 'meta_info.txt: line 1 is not' in error_of(options(pairs, backend='lmdb'))


def test_cut_off_lmdb_is_found_before_it_is_read(root):
    make_lmdbs(root)
    file = root / 'LR.lmdb/data.mdb'
    file.write_bytes(file.read_bytes()[:-4096])
    assert 'LR.lmdb/data.mdb is cut off' in error_of(options(root, backend='lmdb'))
    file.with_name('meta_info.txt').unlink()
    file.unlink()
    assert 'No such file' in error_of(options(root, backend='lmdb'))


def test_missing_option(root):
    opt = options(root)
    del opt['io_backend']
    assert error_of(opt) == "data set set: needs the option 'io_backend'"
    dataset = build_checked(options(root))[0]
    del dataset.opt['gt_size']
    with pytest.raises(KeyError) as error:
        dataset[0]
    assert pair_checks.explain_failure(dataset, 0, error.value) == "data set set needs the option 'gt_size'"


def test_damaged_pixels_are_named_when_read(root, pairs):
    content = bytearray((root / 'HR/im02.png').read_bytes())
    content[len(content) // 2] ^= 0xFF
    (root / 'HR/im02.png').write_bytes(content)
    opt = options(root, phase='val')
    with pytest.raises(UserError, match=r'data set set: .*HR/im02\.png cannot be decoded'):
        list(loader_of(opt))
    opt = options(pairs, phase='val', backend='lmdb')
    dataset = build_checked(copy.deepcopy(opt))[0]
    dataset.paths[1] = {'gt_path': 'gone', 'lq_path': 'gone'}
    with pytest.raises(UserError, match=r'cannot read sample 1 \(gone of .*HR\.lmdb.*\)'):
        list(loader_of(opt, dataset))


def test_failure_without_damage_is_reported_as_it_is(root):
    opt = options(root, phase='val', mean=[0.5, 0.5, 0.5])
    with pytest.raises(UserError, match=r'cannot read sample 0 \(.*im00\.png.*\): TypeError: ') as error:
        list(loader_of(opt))
    assert 'damaged' not in str(error.value)


def test_crop_that_is_not_a_multiple_of_the_scale(root):
    for kind in ('PairedImageDataset', 'BicubicPairDataset'):
        assert 'gt_size must be a multiple of scale 2, got 33; try 32' in error_of(options(root, type=kind, gt_size=33))
    build_checked(options(root, phase='val', gt_size=33))


def test_files_of_other_backends_are_not_checked(root, tmp_path, monkeypatch):
    class Remote:
        def get(self, path):
            return (root / path).read_bytes()

    monkeypatch.setitem(FileClient._backends, 'remote', Remote)
    (tmp_path / 'names.txt').write_text('im00.png (48,56,3)\n')
    roots = {'dataroot_gt': 'HR', 'dataroot_lq': 'LR', 'meta_info_file': str(tmp_path / 'names.txt')}
    dataset, warnings = build_checked(options(root, phase='val', backend='remote', **roots))
    assert warnings == []
    assert dataset[0]['gt'].shape == (3, 48, 56)


def test_data_sets_of_other_layouts_are_not_checked(tmp_path):
    """BasicSR's video data set has a folder for each clip."""
    for clip in ('000', '011'):
        pairs = write_pairs(tmp_path / clip, 3)
        for folder in ('HR', 'LR'):
            (tmp_path / folder).mkdir(exist_ok=True)
            (pairs / folder).rename(tmp_path / folder / clip)
    more = {'cache_data': False, 'num_frame': 3, 'padding': 'replicate'}
    dataset, warnings = build_checked({**options(tmp_path, 'val', name='REDS4'), 'type': 'VideoTestDataset', **more})
    assert (len(dataset), warnings) == (6, [])

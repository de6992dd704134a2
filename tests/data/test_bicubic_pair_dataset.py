import copy
import random
import re
import shlex
from pathlib import Path

import cv2
import pytest
import torch
from basicsr.data import build_dataset
from PIL import Image

from earn_plugin.data.loaders import build_checked
from earn_plugin.errors import UsageError, UserError
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import override, read_options
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.lr import make_lr
from earn_plugin.prepare.subimages import SubImages, make_subimages
from tests.helpers.command import command, command_here
from tests.helpers.images import pair_options, photograph
from tests.helpers.options import write_options
from tests.helpers.runs import losses, validations

NAMES = ('a', 'b', 'c')


@pytest.fixture(params=[2, 3, 4])
def scale(request):
    return request.param


def sizes(scale):
    """HR sizes that are no multiples of the scale, with LR 6×7, 9×6, 6×8: crops of 5 reach every position."""
    return [(6 * scale + 1, 7 * scale), (9 * scale, 6 * scale + scale - 1), (6 * scale + 1, 8 * scale + 1)]


def prepared(root, scale, border='replicate'):
    """HR, HR cropped to multiples of the scale, and LR: folders and LMDBs."""
    (root / 'HR').mkdir(parents=True)
    for seed, (name, size) in enumerate(zip(NAMES, sizes(scale), strict=True)):
        cv2.imwrite(str(root / f'HR/{name}.png'), photograph(*size, seed))
    make_subimages(root / 'HR', root / 'multiple', SubImages(multiple=scale))
    make_lr(root / 'HR', root / 'LR', scale, border=border)
    for folder in ('HR', 'multiple', 'LR'):
        make_lmdb(root / folder, root / f'{folder}.lmdb')
    return root


def both(root, scale, backend='disk', border='replicate', **more):
    """PairedImageDataset on files and BicubicPairDataset on HR, built and checked as for training."""
    ending = '.lmdb' if backend == 'lmdb' else ''
    opt = pair_options(root, backend=backend, **{'scale': scale, 'gt_size': 5 * scale, **more})
    datasets = [
        build_checked({**opt, 'dataroot_gt': str(root / f'multiple{ending}')})[0],
        build_checked({**opt, 'type': 'BicubicPairDataset', 'border': border})[0],
    ]
    return [{Path(path['gt_path']).stem: (dataset, i) for i, path in enumerate(dataset.paths)} for dataset in datasets]


def drawn(dataset, index, seed):
    random.seed(seed)
    return dataset[index], random.random()


def assert_same(pairs, made, seeds):
    assert set(pairs) == set(made) == set(NAMES)
    for name in NAMES:
        for seed in seeds:
            (expected, expected_state), (sample, state) = drawn(*pairs[name], seed), drawn(*made[name], seed)
            assert sample.keys() == expected.keys()
            for key in ('lq', 'gt'):
                assert sample[key].dtype == expected[key].dtype
                assert torch.equal(sample[key], expected[key]), (name, seed, key)
            assert state == expected_state  # so that the next random number is also the same
            assert sample['lq_path'] == sample['gt_path']
            assert Path(sample['gt_path']).name == Path(expected['gt_path']).name


@pytest.mark.parametrize('backend', ['disk', 'lmdb'])
@pytest.mark.parametrize('border', ['replicate', 'symmetric'])
def test_samples_equal_those_of_prepared_lr_bit_for_bit(tmp_path, scale, backend, border):
    """There are so many crops that every position occurs: corners, edges, and the inside."""
    root = prepared(tmp_path, scale, border)
    seeds = range(60)
    places = set()
    for seed in seeds:  # BasicSR first draws these, here of LR 9×6
        random.seed(seed)
        places.add((random.randint(0, 9 - 5), random.randint(0, 6 - 5)))
    assert len(places) == 5 * 2
    assert_same(*both(root, scale, backend, border), seeds)


@pytest.mark.parametrize(
    'more',
    [
        {'color': 'y'},
        {'mean': [0.4, 0.5, 0.6], 'std': [1, 0.5, 2]},
        {'use_rot': False},
        {'use_hflip': False},
        {'phase': 'val'},
        {'phase': 'val', 'color': 'y'},
    ],
    ids=str,
)
def test_every_option_has_the_same_effect_as_for_files(tmp_path, scale, more):
    assert_same(*both(prepared(tmp_path, scale), scale, **more), range(12))


def test_large_images_with_real_margins(tmp_path):
    """Crops whose kernels end inside the image, so that only a part is filtered."""
    (tmp_path / 'HR').mkdir()
    for seed, name in enumerate(NAMES):
        cv2.imwrite(str(tmp_path / f'HR/{name}.png'), photograph(131, 150, seed))
    make_subimages(tmp_path / 'HR', tmp_path / 'multiple', SubImages(multiple=3))
    make_lr(tmp_path / 'HR', tmp_path / 'LR', 3)
    assert_same(*both(tmp_path, 3, gt_size=48), range(30))


def test_images_of_a_meta_info_file(tmp_path):
    root = prepared(tmp_path, 2)
    (root / 'meta.txt').write_text('c.png (12,12,3)\na.png (12,12,3)\n')
    opt = {'name': 'x', 'type': 'BicubicPairDataset', 'dataroot_gt': str(root / 'HR'), 'phase': 'val', 'scale': 2}
    dataset, _ = build_checked({**opt, 'io_backend': {'type': 'disk'}, 'meta_info_file': str(root / 'meta.txt')})
    assert [Path(dataset[i]['gt_path']).name for i in range(len(dataset))] == ['c.png', 'a.png']


def test_basicsr_itself_builds_it(tmp_path):
    prepared(tmp_path, 2)
    opt = {'name': 'x', 'type': 'BicubicPairDataset', 'dataroot_gt': str(tmp_path / 'HR.lmdb'), 'phase': 'test'}
    assert len(build_dataset({**opt, 'scale': 2, 'io_backend': {'type': 'lmdb'}})) == 3


def hr_only(root, **more):
    """Options of a training data set of the HR images of a folder."""
    return pair_options(root, **{'type': 'BicubicPairDataset', 'gt_size': 8, **more})


def error_of(opt) -> str:
    with pytest.raises(UserError) as error:
        build_checked(opt)
    return str(error.value)


def test_mistakes_are_reported_before_training(tmp_path):
    prepared(tmp_path, 2)
    assert "border must be one of replicate, symmetric, got 'reflect'" in error_of(hr_only(tmp_path, border='reflect'))
    assert 'scale must be an integer, got 2.5' in error_of(hr_only(tmp_path, scale=2.5))
    assert 'c.png is 12×16, smaller than gt_size 14' in error_of(hr_only(tmp_path, gt_size=14))  # it is 13×17
    lmdb = {'dataroot_gt': str(tmp_path / 'HR.lmdb'), 'io_backend': {'type': 'lmdb'}}
    assert 'HR.lmdb:c is 12×16, smaller than gt_size 14' in error_of(hr_only(tmp_path, gt_size=14, **lmdb))
    assert 'HR must be a folder whose name ends in .lmdb' in error_of(hr_only(tmp_path, io_backend={'type': 'lmdb'}))
    damaged = tmp_path / 'HR/b.png'
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert f'{damaged} is cut off' in error_of(hr_only(tmp_path))
    (tmp_path / 'empty').mkdir()
    assert 'is empty' in error_of(hr_only(tmp_path, dataroot_gt=str(tmp_path / 'empty')))


def test_warning_names_an_image_once(tmp_path):
    (tmp_path / 'HR').mkdir()
    Image.fromarray(photograph(20, 20)[..., 0]).save(tmp_path / 'HR/grey.png')
    dataset, warnings = build_checked(hr_only(tmp_path))
    assert len(warnings) == 1
    assert warnings[0].count('grey.png is grey') == 1
    assert dataset[0]['lq'].shape == (3, 4, 4)


@pytest.fixture
def made(tiny, pairs):
    """The options of the tiny training, with LR images made when read."""
    options = copy.deepcopy(tiny)
    options['train']['total_iter'] = 3
    for dataset in options['datasets'].values():
        dataset.update(type='BicubicPairDataset', dataroot_gt=str(pairs / 'HR.lmdb'))
        del dataset['dataroot_lq']
    return options


@pytest.mark.parametrize(
    ('force', 'expected'),
    [
        ('datasets:train:bordr=symmetric', 'datasets.train.bordr: is not a known option; did you mean border?'),
        ('datasets:train:dataroot_gt=~', 'datasets.train: BicubicPairDataset needs dataroot_gt'),
        ('datasets:train:gt_size=~', 'datasets.train: BicubicPairDataset needs gt_size'),
    ],
)
def test_its_options_are_known(tmp_path, made, force, expected):
    options = read_options(write_options(tmp_path, made))
    assert check_options(options, True) == []
    override(options, [force])
    with pytest.raises(UsageError) as error:
        check_options(options, True)
    assert expected in str(error.value)


@pytest.mark.slow
def test_training_equals_that_on_prepared_lr_bit_for_bit(tmp_path, tiny, made, pairs):
    """From LMDBs in one process, and from an HR folder in two, with the images in the LMDB's order."""
    tiny['train']['total_iter'] = 3
    names = sorted(path.name for path in (pairs / 'HR').iterdir())
    (tmp_path / 'names.txt').write_text('\n'.join(names))
    made['datasets']['train'].update(
        dataroot_gt=str(pairs / 'HR'),
        io_backend={'type': 'disk'},
        meta_info_file=str(tmp_path / 'names.txt'),
        num_worker_per_gpu=2,
    )
    for name, options in (('files', tiny), ('made', made)):
        (tmp_path / name).mkdir()
        command('train', '-opt', write_options(tmp_path / name, options), cwd=tmp_path / name)
    assert len(losses(tmp_path / 'files')) == 3
    assert losses(tmp_path / 'made') == losses(tmp_path / 'files')
    assert validations(tmp_path / 'made') == validations(tmp_path / 'files') != []


def stems(dataset):
    return [Path(path['gt_path']).stem for path in dataset.paths]


def test_the_parts_of_a_folder_and_of_its_lmdb_are_the_same_and_disjoint(tmp_path):
    (tmp_path / 'HR').mkdir()
    for number in range(12):
        cv2.imwrite(str(tmp_path / f'HR/{number:02d}.png'), photograph(16, 16, number))
    make_lmdb(tmp_path / 'HR', tmp_path / 'HR.lmdb')
    found = []
    for backend, ending in (('disk', ''), ('lmdb', '.lmdb')):
        root = {'io_backend': {'type': backend}, 'dataroot_gt': str(tmp_path / f'HR{ending}')}
        train, notes = build_checked(hr_only(tmp_path, part='train', **root))
        val, no_notes = build_checked(hr_only(tmp_path, part='val', phase='val', **root))
        found.append((stems(train), stems(val)))
        assert sorted(stems(train) + stems(val)) == [f'{number:02d}' for number in range(12)]
        assert notes[0].startswith(f'data set set: {len(train)} images to train on; held out for validation: ')
        assert no_notes == []
    assert found[0] == found[1]


def test_unsuitable_files_are_left_out_with_a_warning(tmp_path):
    (tmp_path / 'HR/more').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'HR/a.png'), photograph(16, 16))
    cv2.imwrite(str(tmp_path / 'HR/icon.png'), photograph(16, 7))
    Image.fromarray(photograph(16, 16)).convert('F').save(tmp_path / 'HR/float.tif')
    Image.fromarray(photograph(16, 16)).save(tmp_path / 'HR/b.tga')  # which Pillow reads
    (tmp_path / 'HR/notes.txt').write_text('x')
    (tmp_path / 'HR/empty.jpg').touch()
    dataset, (warning,) = build_checked(hr_only(tmp_path, skip_unsuitable=True))
    assert stems(dataset) == ['a']
    for reason in (
        'icon.png is 16×7, smaller than gt_size 8',
        'float.tif is grey of floats: convert it to 8 bits',
        'b.tga is in a format that cv2 does not read',
        'notes.txt is not an image',
        'empty.jpg is empty',
        'more is a folder: subfolders are not searched',
    ):
        assert reason in warning
    (tmp_path / 'HR/a.png').unlink()
    with pytest.raises(UsageError, match=r'no image in \S+HR is suitable\n(  .*\n)*  notes\.txt is not an image'):
        build_checked(hr_only(tmp_path, skip_unsuitable=True))
    make_lmdb(prepared(tmp_path / 'sizes', 2) / 'HR', tmp_path / 'HR.lmdb')  # 13×14, 18×13, 13×17
    lmdb = {'dataroot_gt': str(tmp_path / 'HR.lmdb'), 'io_backend': {'type': 'lmdb'}}
    with pytest.raises(UsageError, match='a is 13×14, smaller than gt_size 14'):
        build_checked(hr_only(tmp_path, skip_unsuitable=True, gt_size=14, **lmdb))


def test_the_center_crop_is_the_middle_of_the_complete_pair(tmp_path, scale):
    (tmp_path / 'HR').mkdir()
    cv2.imwrite(str(tmp_path / 'HR/a.png'), photograph(70 * scale + 1, 11 * scale))
    options = {'phase': 'val', 'scale': scale}
    complete, _ = build_checked(hr_only(tmp_path, **options))
    cropped, _ = build_checked(hr_only(tmp_path, center_crop=30 * scale + 1, **options))
    lq, gt = complete[0]['lq'], complete[0]['gt']
    assert torch.equal(cropped[0]['lq'], lq[:, 20:50])
    assert torch.equal(cropped[0]['gt'], gt[:, 20 * scale : 50 * scale])


def test_advice_for_large_photographs_is_a_command_that_works(tmp_path, monkeypatch, capsys):
    (tmp_path / 'my photos').mkdir()
    cv2.imwrite(str(tmp_path / 'my photos/a.jpg'), photograph(1500, 1500))
    monkeypatch.chdir(tmp_path)
    options = hr_only(tmp_path, name='my photos', dataroot_gt='my photos', skip_unsuitable=True)
    _, (advice,) = build_checked(options)
    assert 'every crop decodes an image of 2 megapixels' in advice
    line, _, lmdb = re.search(r': basicsr (prepare .*) \((.*)\); then --hr (.*)$', advice).groups()
    command_here(*shlex.split(line), capsys=capsys)
    lmdb = {'io_backend': {'type': 'lmdb'}, 'dataroot_gt': shlex.split(lmdb)[0]}
    dataset, warnings = build_checked({**options, **lmdb})
    assert len(dataset) == 36
    assert warnings == []

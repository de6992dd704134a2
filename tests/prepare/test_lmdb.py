import hashlib
import resource

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils import FileClient, imfrombytes
from basicsr.utils.file_client import LmdbBackend
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

from earn_plugin.data.image_files import read_image, write_image
from earn_plugin.data.loaders import build_checked
from earn_plugin.errors import UsageError, UserError
from earn_plugin.prepare import lmdb
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.lr import make_lr
from earn_plugin.prepare.resumable_folder import read_manifest
from earn_plugin.prepare.subimages import SubImages, make_subimages
from tests.helpers.images import lmdb_values, names_in, pair_options, photograph, write_pairs


@pytest.mark.parametrize('encoding', ['png', 'bmp'])
def test_lmdb_has_the_format_of_basicsr(folder, tmp_path, capfd, encoding):
    make_lmdb(folder, tmp_path / 'HR.lmdb', encoding=encoding)
    assert capfd.readouterr().out == ''
    assert names_in(tmp_path / 'HR.lmdb') == ['data.mdb', 'lock.mdb', 'meta_info.txt']
    assert (tmp_path / 'HR.lmdb/meta_info.txt').read_text().splitlines()[1] == 'im1.png (51,70,3) 1'
    client = FileClient('lmdb', db_paths=[str(tmp_path / 'HR.lmdb')], client_keys=['gt'])
    for name in ('im0', 'im1', 'im2'):
        image = imfrombytes(client.get(name, 'gt'))
        np.testing.assert_array_equal(image, cv2.imread(str(folder / f'{name}.png')))


def test_basicsr_reads_ours_and_its_lmdbs_are_read_alike(tmp_path):
    root = write_pairs(tmp_path, 3)
    for folder in ('HR', 'LR'):
        make_lmdb(root / folder, root / f'ours_{folder}.lmdb')
        names = names_in(root / folder)
        keys = [name.partition('.')[0] for name in names]
        make_lmdb_from_imgs(str(root / folder), str(root / f'basicsrs_{folder}.lmdb'), names, keys)
        stock = LmdbBackend(str(root / f'ours_{folder}.lmdb'))
        for name, key in zip(names, keys, strict=True):
            np.testing.assert_array_equal(imfrombytes(stock.get(key, 'default')), cv2.imread(str(root / folder / name)))
        stock._client['default'].close()  # a process opens an LMDB once
    sets = []
    for maker in ('ours', 'basicsrs'):
        roots = {'dataroot_gt': str(root / f'{maker}_HR.lmdb'), 'dataroot_lq': str(root / f'{maker}_LR.lmdb')}
        sets.append(build_checked(pair_options(root, 'val', 'lmdb', **roots))[0])
    for index in range(3):
        ours, basicsrs = (dataset[index] for dataset in sets)
        assert ours['gt_path'] == basicsrs['gt_path']
        assert torch.equal(ours['gt'], basicsrs['gt'])
        assert torch.equal(ours['lq'], basicsrs['lq'])


def test_lmdb_needs_no_size_guess_and_is_as_large_as_its_images(tmp_path):
    write_image(tmp_path / 'HR/a.png', np.zeros((4, 4, 3), np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    for index in range(4):
        write_image(tmp_path / f'HR/b{index}.png', noise)
    make_lmdb(tmp_path / 'HR', tmp_path / 'HR.lmdb')
    values = lmdb_values(tmp_path / 'HR.lmdb')
    assert len(values) == 5
    assert (tmp_path / 'HR.lmdb/data.mdb').stat().st_size < sum(map(len, values.values())) + 8192 * 16


def test_map_grows(folder, tmp_path, monkeypatch):
    make_lmdb(folder, tmp_path / 'expected.lmdb')
    monkeypatch.setattr(lmdb, 'MAP_SIZE', 2**13)
    make_lmdb(folder, tmp_path / 'HR.lmdb')
    assert lmdb_values(tmp_path / 'HR.lmdb') == lmdb_values(tmp_path / 'expected.lmdb')


def test_limited_address_space(folder, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**39, limits[1]))
    try:
        assert make_lmdb(folder, tmp_path / 'HR.lmdb')
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_all_images_that_bmp_cannot_hold_are_listed(folder, tmp_path):
    for name in ('im0', 'im2'):
        write_image(folder / f'{name}.png', photograph(40, 40).astype(np.uint16))
    with pytest.raises(UserError, match=r'im0\.png is 16-bit RGB.*\n.*im2\.png is 16-bit RGB'):
        make_lmdb(folder, tmp_path / 'HR.lmdb', encoding='bmp')


def test_images_of_every_kind_keep_their_values(tmp_path):
    kinds = {
        'grey.png': photograph(20, 30)[..., 0],
        'deep.png': photograph(20, 30).astype(np.uint16) * 257,
        'colour.bmp': photograph(20, 30),
        'see through.png': np.dstack([photograph(20, 30), photograph(20, 30)[..., 0]]),
    }
    (tmp_path / 'HR').mkdir()
    for name, image in kinds.items():
        cv2.imwrite(str(tmp_path / 'HR' / name), image)
    make_lmdb(tmp_path / 'HR', tmp_path / 'HR.lmdb')
    values = lmdb_values(tmp_path / 'HR.lmdb')
    for name, image in kinds.items():
        value = values[name.partition('.')[0]]
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED), image)
    assert 'grey.png (20,30,1) 1' in (tmp_path / 'HR.lmdb/meta_info.txt').read_text()
    make_subimages(tmp_path / 'HR', tmp_path / 'cropped', SubImages(multiple=8))
    np.testing.assert_array_equal(read_image(tmp_path / 'cropped/deep.png'), kinds['deep.png'][:16, :24])
    with pytest.raises(UserError, match=r'deep\.png is 16-bit RGB: convert it to 8 bits'):
        make_lr(tmp_path / 'HR', tmp_path / 'LR', 2)


def test_lmdb_of_sub_images_equals_that_of_their_folder(folder, tmp_path):
    make_subimages(folder, tmp_path / 'sub', SubImages(32, 16))
    make_lmdb(tmp_path / 'sub', tmp_path / 'sub.lmdb')
    make_lmdb(folder, tmp_path / 'direct.lmdb', SubImages(32, 16))
    assert lmdb_values(tmp_path / 'direct.lmdb') == lmdb_values(tmp_path / 'sub.lmdb')
    texts = [(tmp_path / f'{name}.lmdb/meta_info.txt').read_text() for name in ('sub', 'direct')]
    assert texts[0] == texts[1]


def test_manifest(folder, tmp_path):
    make_subimages(folder, tmp_path / 'sub', SubImages(32, 16))
    manifest = read_manifest(tmp_path / 'sub')
    files = {p.name: p.read_bytes() for p in (tmp_path / 'sub').glob('*.png')}
    assert manifest['count'] == len(files) == 36
    assert manifest['bytes'] == sum(map(len, files.values()))
    assert manifest['files'] == {n: [len(c), hashlib.sha256(c).hexdigest()] for n, c in files.items()}
    make_lmdb(folder, tmp_path / 'HR.lmdb')
    files = read_manifest(tmp_path / 'HR.lmdb')['files']
    assert files == {k: [len(v), hashlib.sha256(v).hexdigest()] for k, v in lmdb_values(tmp_path / 'HR.lmdb').items()}


@pytest.mark.parametrize('name', ['ümlaut', 'a.b', 'x2', 'a\tb'])
def test_names_that_an_lmdb_cannot_hold(folder, tmp_path, name):
    write_image(folder / f'{name}.png', photograph(50, 70))
    key = repr(name.removesuffix('x2')).replace('\\', r'\\')
    with pytest.raises(UserError, match=f'ASCII names of 1 to 500 .*\n  {key}'):
        make_lmdb(folder, tmp_path / 'HR.lmdb', SubImages(suffix='x2'))


def test_long_name_is_a_key(folder, tmp_path):
    write_image(folder / f'{"x" * 200}.png', photograph(40, 40))
    assert make_lmdb(folder, tmp_path / 'HR.lmdb')


def test_two_images_of_one_name(folder, tmp_path):
    cv2.imwrite(str(folder / 'im1.jpg'), photograph(40, 40))
    with pytest.raises(UserError, match=r'im1\.png and im1\.jpg would get the same name'):
        make_lmdb(folder, tmp_path / 'HR.lmdb')


@pytest.mark.parametrize(
    'call',
    [
        lambda a, b: make_lr(a, b, 0),
        lambda a, b: make_lr(a, b, 2, border='mirror'),
        lambda a, b: make_subimages(a, b, SubImages(32, 0)),
        lambda a, b: make_lmdb(a, b),
        lambda a, b: make_lmdb(a, b.with_suffix('.lmdb'), SubImages(size=32)),
        lambda a, b: make_lmdb(a, b.with_suffix('.lmdb'), encoding='jpg'),
        lambda a, b: make_lr(a, b, 2, jobs=0),
        lambda a, b: make_lr(a, b, 2, suffix='/../x'),
    ],
)
def test_wrong_usage(folder, tmp_path, call):
    with pytest.raises(UsageError):
        call(folder, tmp_path / 'out')
    assert [p.name for p in tmp_path.iterdir()] == ['HR']


def test_no_images(tmp_path):
    with pytest.raises(UserError, match='no images in'):
        make_lmdb(tmp_path, tmp_path / 'x.lmdb')

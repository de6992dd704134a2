import hashlib
import os
import struct
import zlib
from fractions import Fraction

import cv2
import lmdb
import numpy as np
import pytest
import torch
from basicsr.utils import FileClient, imfrombytes, scandir
from basicsr.utils.file_client import LmdbBackend
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

from earn_plugin.cli import main
from earn_plugin.data.bicubic import imresize
from earn_plugin.data.image_files import read_image, write_image
from earn_plugin.data.loaders import build_checked
from earn_plugin.errors import UsageError, UserError
from earn_plugin.prepare import lmdb as prepare
from earn_plugin.prepare.resumable_folder import manifest_of
from tests.helpers.command import command_here
from tests.helpers.images import photograph, write_pairs


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        write_image(tmp_path / f'HR/im{index}.png', photograph(50 + index, 70, index))
    return tmp_path / 'HR'


def names_in(folder):
    """As BasicSR lists a folder: hidden files are not seen."""
    return sorted(scandir(str(folder)))


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def stored(folder):
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}


def test_lr_is_matlabs_and_named_as_asked(folder, tmp_path):
    prepare.make_lr(folder, tmp_path / 'X2', 2, suffix='x2')
    assert names_in(tmp_path / 'X2') == ['im0x2.png', 'im1x2.png', 'im2x2.png']
    expected = imresize(photograph(51, 70, 1)[:50], Fraction(1, 2))
    np.testing.assert_array_equal(read_image(tmp_path / 'X2/im1x2.png'), expected)


def test_subimages_cover_the_image_and_pair_with_their_lr(folder, tmp_path):
    prepare.make_lr(folder, tmp_path / 'X2', 2, suffix='x2')
    prepare.make_subimages(folder, tmp_path / 'sub', 32, 16)
    prepare.make_subimages(tmp_path / 'X2', tmp_path / 'sub2', 16, 8, suffix='x2')
    names = [names_in(tmp_path / f) for f in ('sub', 'sub2')]
    assert names[0][0] == 'im0_s001.png'
    assert set(names[1]) == set(names[0])
    covered = np.zeros((50, 70))
    squares = list(prepare.subimages(np.dstack(np.mgrid[0:50, 0:70]), 32, 16))
    for square in squares:
        assert square.shape == (32, 32, 2)
        covered[square[..., 0], square[..., 1]] = 1
    assert covered.all()
    assert len(squares) == 3 * 4


def test_an_image_smaller_than_a_subimage_is_told(folder, tmp_path):
    with pytest.raises(UserError, match=r'im0\.png is 50×70, smaller than 64×64'):
        prepare.make_subimages(folder, tmp_path / 'sub', 64, 32)
    assert not (tmp_path / 'sub').exists()


def test_lmdb_is_basicsrs(folder, tmp_path, capfd):
    prepare.make_lmdb(folder, tmp_path / 'HR.lmdb')
    assert capfd.readouterr().out == ''
    assert names_in(tmp_path / 'HR.lmdb') == ['data.mdb', 'lock.mdb', 'meta_info.txt']
    assert (tmp_path / 'HR.lmdb/meta_info.txt').read_text().splitlines()[1] == 'im1.png (51,70,3) 1'
    client = FileClient('lmdb', db_paths=[str(tmp_path / 'HR.lmdb')], client_keys=['gt'])
    image = imfrombytes(client.get('im2', 'gt'))
    np.testing.assert_array_equal(image, cv2.imread(str(folder / 'im2.png')))


def test_basicsrs_own_reader_reads_ours_and_ours_reads_its_writers(tmp_path):
    root = write_pairs(tmp_path, 3)
    opt = {'name': 'x', 'type': 'PairedImageDataset', 'phase': 'val', 'scale': 2, 'io_backend': {'type': 'lmdb'}}
    for folder in ('HR', 'LR'):
        prepare.make_lmdb(root / folder, root / f'ours_{folder}.lmdb')
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
        sets.append(build_checked({**opt, **roots})[0])
    for index in range(3):
        ours, basicsrs = (dataset[index] for dataset in sets)
        assert ours['gt_path'] == basicsrs['gt_path']
        assert torch.equal(ours['gt'], basicsrs['gt'])
        assert torch.equal(ours['lq'], basicsrs['lq'])


def test_lmdb_has_room_where_the_first_image_is_the_smallest(tmp_path):
    write_image(tmp_path / 'HR/a.png', np.zeros((4, 4, 3), np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    for index in range(4):
        write_image(tmp_path / f'HR/b{index}.png', noise)
    prepare.make_lmdb(tmp_path / 'HR', tmp_path / 'HR.lmdb')
    with lmdb.open(str(tmp_path / 'HR.lmdb'), readonly=True, lock=False) as environment:
        assert environment.stat()['entries'] == 5


def test_a_damaged_image_is_named_and_nothing_half_made_is_left(folder, tmp_path):
    (folder / 'im1.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'im1\.png is not an image'):
        prepare.make_lr(folder, tmp_path / 'X2', 2)
    assert [p.name for p in tmp_path.iterdir()] == ['HR']


def test_images_of_every_kind_keep_what_they_are(tmp_path):
    kinds = {
        'grey.png': photograph(20, 30)[..., 0],
        'deep.png': photograph(20, 30).astype(np.uint16) * 257,
        'colour.bmp': photograph(20, 30),
        'see through.png': np.dstack([photograph(20, 30), photograph(20, 30)[..., 0]]),
    }
    (tmp_path / 'HR').mkdir()
    for name, image in kinds.items():
        cv2.imwrite(str(tmp_path / 'HR' / name), image)
    prepare.make_lmdb(tmp_path / 'HR', tmp_path / 'HR.lmdb')
    values = stored(tmp_path / 'HR.lmdb')
    for name, image in kinds.items():
        value = values[name.partition('.')[0]]
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED), image)
    assert 'grey.png (20,30,1) 1' in (tmp_path / 'HR.lmdb/meta_info.txt').read_text()
    prepare.make_cropped(tmp_path / 'HR', tmp_path / 'cropped', 8)
    np.testing.assert_array_equal(read_image(tmp_path / 'cropped/deep.png'), kinds['deep.png'][:16, :24])
    with pytest.raises(UserError, match=r'deep\.png is 16-bit RGB: convert it to 8 bits'):
        prepare.make_lr(tmp_path / 'HR', tmp_path / 'LR', 2)


def test_lmdb_of_subimages_is_that_of_their_folder(folder, tmp_path):
    prepare.make_subimages(folder, tmp_path / 'sub', 32, 16)
    prepare.make_lmdb(tmp_path / 'sub', tmp_path / 'sub.lmdb')
    prepare.make_lmdb(folder, tmp_path / 'direct.lmdb', size=32, step=16)
    assert stored(tmp_path / 'direct.lmdb') == stored(tmp_path / 'sub.lmdb')
    texts = [(tmp_path / f'{name}.lmdb/meta_info.txt').read_text() for name in ('sub', 'direct')]
    assert texts[0] == texts[1]


def test_a_decoded_lmdb_holds_the_same_values(folder, tmp_path):
    prepare.make_lmdb(folder, tmp_path / 'HR.lmdb', encoding='bmp')
    client = FileClient('lmdb', db_paths=[str(tmp_path / 'HR.lmdb')], client_keys=['gt'])
    for name in ('im0', 'im1', 'im2'):
        image = imfrombytes(client.get(name, 'gt'))
        np.testing.assert_array_equal(image, cv2.imread(str(folder / f'{name}.png')))


def test_manifest(folder, tmp_path):
    prepare.make_subimages(folder, tmp_path / 'sub', 32, 16)
    manifest = manifest_of(tmp_path / 'sub')
    files = {p.name: p.read_bytes() for p in (tmp_path / 'sub').glob('*.png')}
    assert manifest['count'] == len(files) == 36
    assert manifest['bytes'] == sum(map(len, files.values()))
    assert manifest['files'] == {n: [len(c), hashlib.sha256(c).hexdigest()] for n, c in files.items()}
    prepare.make_lmdb(folder, tmp_path / 'HR.lmdb')
    files = manifest_of(tmp_path / 'HR.lmdb')['files']
    assert files == {k: [len(v), hashlib.sha256(v).hexdigest()] for k, v in stored(tmp_path / 'HR.lmdb').items()}


def test_what_is_there_is_kept_and_what_is_another_is_told(folder, tmp_path):
    assert prepare.make_lr(folder, tmp_path / 'X2', 2)
    before = contents(tmp_path / 'X2')
    assert not prepare.make_lr(folder, tmp_path / 'X2', 2)
    assert contents(tmp_path / 'X2') == before
    with pytest.raises(
        UserError, match=r'made from other images or settings \(border replicate; now border symmetric\)'
    ):
        prepare.make_lr(folder, tmp_path / 'X2', 2, 'symmetric')
    (tmp_path / 'own').mkdir()
    with pytest.raises(UserError, match='was not made by this command'):
        prepare.make_lr(folder, tmp_path / 'own', 2)


def test_lr_and_subimages_pair_where_the_scale_does_not_divide(folder, tmp_path):
    prepare.make_cropped(folder, tmp_path / 'HRmod4', 4)
    prepare.make_lr(folder, tmp_path / 'X4', 4)
    prepare.make_subimages(folder, tmp_path / 'sub', 32, 16, multiple=4)
    prepare.make_subimages(tmp_path / 'HRmod4', tmp_path / 'sub_of_cropped', 32, 16)
    assert contents(tmp_path / 'sub').keys() == contents(tmp_path / 'sub_of_cropped').keys()
    for path in (tmp_path / 'sub').glob('*.png'):
        assert path.read_bytes() == (tmp_path / 'sub_of_cropped' / path.name).read_bytes()


def test_small_images_are_left_out_when_told(folder, tmp_path):
    write_image(folder / 'tiny.png', photograph(20, 70))
    prepare.make_subimages(folder, tmp_path / 'sub', 32, 16, skip_small=True)
    prepare.make_lmdb(folder, tmp_path / 'sub.lmdb', 32, 16, skip_small=True)
    assert len(names_in(tmp_path / 'sub')) == len(stored(tmp_path / 'sub.lmdb')) == 36
    with pytest.raises(UserError, match='all its images are smaller'):
        prepare.make_subimages(folder, tmp_path / 'none', 64, 16, skip_small=True)


@pytest.mark.parametrize('name', ['ümlaut', 'a.b'])
def test_names_that_an_lmdb_of_basicsr_cannot_hold(folder, tmp_path, name):
    write_image(folder / f'{name}.png', photograph(40, 40))
    with pytest.raises(UserError, match=f'ASCII names .*\n  .{name}.'):
        prepare.make_lmdb(folder, tmp_path / 'HR.lmdb')


def test_a_long_name_is_a_key(folder, tmp_path):
    write_image(folder / f'{"x" * 200}.png', photograph(40, 40))
    assert prepare.make_lmdb(folder, tmp_path / 'HR.lmdb')


def test_two_images_of_one_name(folder, tmp_path):
    cv2.imwrite(str(folder / 'im1.jpg'), photograph(40, 40))
    with pytest.raises(UserError, match=r'im1\.png and im1\.jpg would get the same name'):
        prepare.make_lmdb(folder, tmp_path / 'HR.lmdb')


@pytest.mark.parametrize(
    'call',
    [
        lambda a, b: prepare.make_lr(a, b, 0),
        lambda a, b: prepare.make_lr(a, b, 2, 'mirror'),
        lambda a, b: prepare.make_subimages(a, b, 32, 0),
        lambda a, b: prepare.make_lmdb(a, b),
        lambda a, b: prepare.make_lmdb(a, b.with_suffix('.lmdb'), size=32),
        lambda a, b: prepare.make_lmdb(a, b.with_suffix('.lmdb'), encoding='jpg'),
        lambda a, b: prepare.make_lr(a, b, 2, jobs=0),
        lambda a, b: prepare.make_lr(a, b, 2, suffix='/../x'),
    ],
)
def test_wrong_usage(folder, tmp_path, call):
    with pytest.raises(UsageError):
        call(folder, tmp_path / 'out')
    assert [p.name for p in tmp_path.iterdir()] == ['HR']


def test_no_images(tmp_path):
    with pytest.raises(UserError, match='no images in'):
        prepare.make_lmdb(tmp_path, tmp_path / 'x.lmdb')


def test_a_link_to_nothing_is_told_and_not_passed_over(folder, tmp_path):
    (folder / 'im9.png').symlink_to(tmp_path / 'moved/im9.png')
    with pytest.raises(UserError, match=r'im9\.png is a link to what is not there: '):
        prepare.make_lr(folder, tmp_path / 'X2', 2)
    (folder / 'loop.png').symlink_to('loop.png')
    with pytest.raises(UserError, match='not there, and 1 more'):
        prepare.make_lmdb(folder, tmp_path / 'X.lmdb')


def test_names_that_are_not_unicode(tmp_path):
    folder = tmp_path / 'HR'
    write_image(folder / os.fsdecode(b'\xff.png'), photograph(24, 24))
    assert prepare.make_lr(folder, tmp_path / 'X2', 2)
    assert not prepare.make_lr(folder, tmp_path / 'X2', 2)
    assert names_in(tmp_path / 'X2') == [os.fsdecode(b'\xff.png')]


def test_values_that_do_not_fit_into_the_result(tmp_path):
    """What a header does not tell of every format, and cv2 would cut to 8 bits."""
    for name, image in (
        ('floats.tif', photograph(24, 24)[..., 0].astype(np.float32) / 255),
        ('wide.ppm', photograph(24, 24).astype(np.uint16) * 257),
    ):
        folder = tmp_path / name
        folder.mkdir()
        cv2.imwrite(str(folder / name), image)
        with pytest.raises(UserError, match=f'{name} has values of {image.dtype}'):
            prepare.make_lmdb(folder, tmp_path / 'X.lmdb', encoding='bmp')
    with pytest.raises(UserError, match='convert it to 8 or 16 bits'):
        prepare.make_lr(tmp_path / 'floats.tif', tmp_path / 'X2', 2)
    assert prepare.make_subimages(tmp_path / 'wide.ppm', tmp_path / 'sub', 12, 12)
    assert read_image(tmp_path / 'sub/wide_s001.png').dtype == np.uint16


def test_an_image_larger_than_cv2_allows(tmp_path):
    content = bytearray(prepare.encode(photograph(24, 24)))
    content[16:24] = struct.pack('>II', 200_000, 200_000)
    content[29:33] = struct.pack('>I', zlib.crc32(content[12:29]))
    (tmp_path / 'HR').mkdir()
    (tmp_path / 'HR/im.png').write_bytes(content)
    with pytest.raises(UserError, match=r'im\.png cannot be decoded'):
        prepare.make_lr(tmp_path / 'HR', tmp_path / 'X2', 2)


@pytest.mark.parametrize('arguments', [('--scale', 0), ('--scale', -2), ('--multiple', 0)], ids=str)
def test_numbers_that_cannot_be(folder, tmp_path, capsys, arguments):
    told = command_here('prepare', 'lmdb', folder, tmp_path / 'X.lmdb', *arguments, capsys=capsys, expect=2)
    assert f'{arguments[0]} must be at least 1, got {arguments[1]}' in told


def test_names_that_the_suffix_makes_the_same(folder, tmp_path):
    write_image(folder / 'im0x2.png', photograph(50, 70))
    for make in (
        lambda: prepare.make_lmdb(folder, tmp_path / 'HR.lmdb', suffix='x2'),
        lambda: prepare.make_subimages(folder, tmp_path / 'sub', 32, 16, suffix='x2'),
    ):
        with pytest.raises(UserError, match=r'im0x2.png and im0.png would get the same name'):
            make()
    prepare.make_lmdb(folder, tmp_path / 'HR.lmdb')


@pytest.mark.parametrize('name', ['x2', 'a\tb'])
def test_names_that_are_no_keys(folder, tmp_path, name):
    write_image(folder / f'{name}.png', photograph(50, 70))
    with pytest.raises(UserError, match='names of 1 to 500 letters'):
        prepare.make_lmdb(folder, tmp_path / 'HR.lmdb', suffix='x2')


def test_the_advice_is_for_the_command(folder, tmp_path):
    write_image(folder / 'tiny.png', photograph(1, 1))
    with pytest.raises(UserError, match=r'cannot be used as it is:\n  tiny.png is 1×1'):
        prepare.make_lr(folder, tmp_path / 'X2', 2)
    with pytest.raises(UserError, match=r'--skip-small leaves small ones out'):
        prepare.make_subimages(folder, tmp_path / 'sub', 32, 16)


def test_no_folder_is_not_an_empty_folder(folder, tmp_path):
    with pytest.raises(UserError, match='there is no folder'):
        prepare.make_lr(tmp_path / 'nothing', tmp_path / 'X2', 2)
    with pytest.raises(UserError, match='cannot be read as a folder'):
        prepare.make_lr(folder / 'im0.png', tmp_path / 'X2', 2)


def test_lr_of_jpegs_is_told_not_to_pair_with_them(folder, tmp_path, capsys):
    cv2.imwrite(str(folder / 'im9.jpg'), photograph(40, 40))
    arguments = ['prepare', 'lr', str(folder), str(tmp_path / 'X2'), '--scale', '2']
    assert main(arguments) == 0
    assert 'im9.jpg is not; BasicSR pairs files of the same ending: with --cropped' in capsys.readouterr().out
    assert main([*arguments, '--cropped', str(tmp_path / 'HR2')]) == 0
    assert 'note' not in capsys.readouterr().out
    assert main(['prepare', 'check', str(tmp_path / 'HR2'), str(tmp_path / 'X2'), '--scale', '2']) == 0


def test_sizes_of_hr_serve_its_lr(folder, tmp_path, capsys, monkeypatch):
    """By the command: HR and LR are cut alike, also where the scale does not divide HR."""
    monkeypatch.chdir(tmp_path)
    command_here('prepare', 'lr', 'HR', 'X2', '--scale', 2, '--suffix', 'x2', capsys=capsys)
    cutting = ('--size', 32, '--step', 16, '--multiple', 4)
    command_here('prepare', 'lmdb', 'HR', 'HR.lmdb', *cutting, capsys=capsys)
    command_here('prepare', 'lmdb', 'X2', 'X2.lmdb', *cutting, '--scale', 2, '--suffix', 'x2', capsys=capsys)
    hr, lr = stored(tmp_path / 'HR.lmdb'), stored(tmp_path / 'X2.lmdb')
    assert hr.keys() == lr.keys()
    printed = command_here('prepare', 'lmdb', 'X2', 'X3.lmdb', *cutting, '--scale', 3, capsys=capsys, expect=2)
    assert '--size 32 is that of HR, and no multiple of --scale 3' in printed
    assert 'findings' in command_here('prepare', 'check', 'HR.lmdb', 'X2.lmdb', capsys=capsys)

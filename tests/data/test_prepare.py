import cv2
import lmdb
import numpy as np
import pytest
from basicsr.utils import FileClient, imfrombytes, scandir

from earn_plugin.data import prepare
from earn_plugin.errors import UserError
from tests.conftest import photograph


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        prepare.write_image(tmp_path / f'HR/im{index}.png', photograph(50 + index, 70, index))
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
    assert prepare.read_image(tmp_path / 'X2/im1x2.png').shape == (25, 35, 3)


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


def test_lmdb_has_room_where_the_first_image_is_the_smallest(tmp_path):
    prepare.write_image(tmp_path / 'HR/a.png', np.zeros((4, 4, 3), np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    for index in range(4):
        prepare.write_image(tmp_path / f'HR/b{index}.png', noise)
    prepare.make_lmdb(tmp_path / 'HR', tmp_path / 'HR.lmdb')
    with lmdb.open(str(tmp_path / 'HR.lmdb'), readonly=True, lock=False) as environment:
        assert environment.stat()['entries'] == 5


def test_a_damaged_image_is_named_and_nothing_half_made_is_left(folder, tmp_path):
    (folder / 'im1.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'im1\.png is not an image'):
        prepare.make_lr(folder, tmp_path / 'X2', 2)
    assert [p.name for p in tmp_path.iterdir()] == ['HR']


def test_no_images(tmp_path):
    with pytest.raises(UserError, match='no images in'):
        prepare.make_lmdb(tmp_path, tmp_path / 'x.lmdb')
    with pytest.raises(UserError, match='no images in'):
        prepare.images_in(tmp_path / 'nowhere')

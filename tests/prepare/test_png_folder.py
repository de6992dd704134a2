import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from earn_plugin.data.image_files import encode, read_image, write_image
from earn_plugin.errors import UserError
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.lr import make_lr
from earn_plugin.prepare.subimages import SubImages, make_subimages
from tests.helpers.command import command_here
from tests.helpers.images import contents, names_in, photograph


def test_damaged_image_is_named_and_nothing_incomplete_is_left(folder, tmp_path):
    (folder / 'im1.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'im1\.png is not an image'):
        make_lr(folder, tmp_path / 'X2', 2)
    assert [p.name for p in tmp_path.iterdir()] == ['HR']


def test_existing_output_is_kept_and_another_is_reported(folder, tmp_path):
    assert make_lr(folder, tmp_path / 'X2', 2)
    before = contents(tmp_path / 'X2')
    assert not make_lr(folder, tmp_path / 'X2', 2)
    assert contents(tmp_path / 'X2') == before
    with pytest.raises(
        UserError, match=r'made from other images or settings \(border replicate; now border symmetric\)'
    ):
        make_lr(folder, tmp_path / 'X2', 2, border='symmetric')
    (tmp_path / 'own').mkdir()
    with pytest.raises(UserError, match='was not created by this command'):
        make_lr(folder, tmp_path / 'own', 2)


def test_broken_links_are_named(folder, tmp_path):
    (folder / 'im9.png').symlink_to(tmp_path / 'moved/im9.png')
    with pytest.raises(UserError, match=r'im9\.png is a broken link: '):
        make_lr(folder, tmp_path / 'X2', 2)
    (folder / 'loop.png').symlink_to('loop.png')
    with pytest.raises(UserError, match='broken link, and 1 more'):
        make_lmdb(folder, tmp_path / 'X.lmdb')


def test_folder_without_permission(folder, tmp_path, monkeypatch):
    def is_dir(path):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'is_dir', is_dir)
    with pytest.raises(UserError, match='HR cannot be read: Permission denied'):
        make_lr(folder, tmp_path / 'X2', 2)


def test_names_that_are_not_unicode(tmp_path):
    folder = tmp_path / 'HR'
    write_image(folder / os.fsdecode(b'\xff.png'), photograph(24, 24))
    assert make_lr(folder, tmp_path / 'X2', 2)
    assert not make_lr(folder, tmp_path / 'X2', 2)
    assert names_in(tmp_path / 'X2') == [os.fsdecode(b'\xff.png')]


def test_image_larger_than_cv2_allows(tmp_path):
    content = bytearray(encode(photograph(24, 24)))
    content[16:24] = struct.pack('>II', 200_000, 200_000)
    content[29:33] = struct.pack('>I', zlib.crc32(content[12:29]))
    (tmp_path / 'HR').mkdir()
    (tmp_path / 'HR/im.png').write_bytes(content)
    with pytest.raises(UserError, match=r'im\.png cannot be decoded'):
        make_lr(tmp_path / 'HR', tmp_path / 'X2', 2)


def test_advice_is_for_the_command(folder, tmp_path, capsys):
    write_image(folder / 'tiny.png', photograph(1, 1))
    with pytest.raises(UserError, match=r'cannot be used:\n  tiny.png is 1×1'):
        make_lr(folder, tmp_path / 'X2', 2)
    with pytest.raises(UserError, match=r'--skip-small skips small ones'):
        make_subimages(folder, tmp_path / 'sub', SubImages(32, 16))
    lr = ('lr', folder, tmp_path / 'X2', '--scale', 2, '--cropped', tmp_path / 'HR2')
    assert '--skip-small' not in command_here('prepare', *lr, capsys=capsys, expect=1)


def test_missing_folder_is_not_an_empty_folder(folder, tmp_path):
    with pytest.raises(UserError, match='there is no folder'):
        make_lr(tmp_path / 'nothing', tmp_path / 'X2', 2)
    with pytest.raises(UserError, match='there is no folder'):
        make_lr(folder / 'im0.png', tmp_path / 'X2', 2)


def test_names_that_are_the_same_without_suffix(folder, tmp_path):
    write_image(folder / 'im0x2.png', photograph(50, 70))
    for make in (
        lambda: make_lmdb(folder, tmp_path / 'HR.lmdb', SubImages(suffix='x2')),
        lambda: make_subimages(folder, tmp_path / 'sub', SubImages(32, 16, suffix='x2')),
    ):
        with pytest.raises(UserError, match=r'im0x2.png and im0.png would get the same name'):
            make()
    make_lmdb(folder, tmp_path / 'HR.lmdb')


def test_values_that_the_output_cannot_hold(tmp_path):
    """Not every format has them in its header, and cv2 would reduce them to 8 bits."""
    for name, image in (
        ('floats.tif', photograph(24, 24)[..., 0].astype(np.float32) / 255),
        ('wide.ppm', photograph(24, 24).astype(np.uint16) * 257),
    ):
        folder = tmp_path / name
        folder.mkdir()
        cv2.imwrite(str(folder / name), image)
        with pytest.raises(UserError, match=f'{name} has values of {image.dtype}'):
            make_lmdb(folder, tmp_path / 'X.lmdb', encoding='bmp')
    with pytest.raises(UserError, match='convert it to 8 or 16 bits'):
        make_lr(tmp_path / 'floats.tif', tmp_path / 'X2', 2)
    assert make_subimages(tmp_path / 'wide.ppm', tmp_path / 'sub', SubImages(12, 12))
    assert read_image(tmp_path / 'sub/wide_s001.png').dtype == np.uint16

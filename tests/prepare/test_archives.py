"""Through the command, on small archives packed as the published ones."""

import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from earn_plugin.data.image_files import read_image
from earn_plugin.prepare import archives
from tests.helpers.published import TRAIN, cut_in_half, prepare, tree, unpack

PARTS = [f'DIV2K_{part}' for part in ('train_HR', 'train_LR_bicubic_X2', 'valid_HR', 'valid_LR_bicubic_X4')]


@pytest.mark.parametrize('kind', ['folders', 'mixed', 'one level down', 'tar.gz', 'the archive itself', 'edsr'])
def test_same_result_from_every_way_of_unpacking(downloads, capsys, kind):
    prepare('div2k', downloads, '--scales', 2, '--out', 'expected', capsys=capsys)
    if kind in ('folders', 'one level down', 'tar.gz', 'the archive itself'):
        unpack(downloads, 'DIV2K_train_HR', 'DIV2K_train_LR_bicubic_X2')
    elif kind == 'mixed':
        unpack(downloads, 'DIV2K_train_HR')
    place = downloads
    if kind not in ('folders', 'mixed', 'edsr'):
        (downloads / 'DIV2K').mkdir()
        for name in ('DIV2K_train_HR', 'DIV2K_train_LR_bicubic'):
            shutil.move(downloads / name, downloads / 'DIV2K')
    if kind in ('tar.gz', 'the archive itself'):
        archive = Path(shutil.make_archive('elsewhere/DIV2K', 'gztar', downloads, 'DIV2K'))
        place = archive.parent if kind == 'tar.gz' else archive
    if kind == 'edsr':  # the validation images are in the training images' folders
        for name in PARTS[::2]:
            unpack(downloads, name)
        for path in (downloads / 'DIV2K_valid_HR').iterdir():
            path.rename(downloads / 'DIV2K_train_HR' / path.name)
        (downloads / 'DIV2K_valid_HR').rmdir()
    prepare('div2k', place, '--scales', 2, capsys=capsys)
    expected = {name.replace('expected', 'datasets', 1): content for name, content in tree(Path('expected')).items()}
    result = tree()
    assert result.keys() == expected.keys()
    assert {k for k in result if result[k] != expected[k]} <= {k for k in result if k.endswith('data.mdb')}


def test_files_are_linked_and_not_changed(downloads, capsys):
    unpack(downloads, *PARTS[:2])
    before = tree(downloads)
    prepare('div2k', downloads, '--scales', 2, capsys=capsys)
    link = Path('datasets/DIV2K/DIV2K_train_LR_bicubic/X2/0002x2.png')
    assert link.readlink() == downloads / 'DIV2K_train_LR_bicubic/X2/0002x2.png'
    assert tree(downloads) == before
    assert not list(downloads.rglob('.*'))


def test_without_links_files_are_copied(downloads, capsys, monkeypatch):
    unpack(downloads, 'DIV2K_train_HR')

    def refuse(self, target):
        raise OSError('a privilege is not held')

    monkeypatch.setattr(Path, 'symlink_to', refuse)
    prepare('div2k', downloads, '--scales', 2, capsys=capsys)
    copy = Path('datasets/DIV2K/DIV2K_train_HR/0001.png')
    assert not copy.is_symlink()
    np.testing.assert_array_equal(read_image(copy), TRAIN[1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize('damage', [cut_in_half, flip])
def test_damaged_zip_is_named_and_leaves_nothing_incomplete(downloads, capsys, damage):
    content = (downloads / 'DIV2K_train_HR.zip').read_bytes()
    damage(downloads / 'DIV2K_train_HR.zip')
    printed = prepare('div2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'DIV2K_train_HR.zip is damaged or incomplete' in printed
    assert not Path('datasets/DIV2K/DIV2K_train_HR').exists()
    assert not Path('datasets/DIV2K/DIV2K_train_HR_sub.lmdb').exists()
    (downloads / 'DIV2K_train_HR.zip').write_bytes(content)
    prepare('div2k', downloads, '--scales', 2, capsys=capsys)
    np.testing.assert_array_equal(read_image(Path('datasets/DIV2K/DIV2K_train_HR/0001.png')), TRAIN[1])


def test_damage_to_an_archive_that_is_not_needed(downloads, capsys):
    cut_in_half(downloads / 'DIV2K_train_LR_bicubic_X3.zip')
    printed = prepare('div2k', downloads, '--scales', 2, capsys=capsys)
    assert 'not needed, but' in printed
    assert 'X3.zip is damaged or incomplete' in printed


@pytest.mark.parametrize('kind', ['tar', 'gztar'])
def test_cut_off_tar_is_named(downloads, capsys, kind):
    unpack(downloads, 'Flickr2K')
    archive = Path(shutil.make_archive(str(downloads / 'Flickr2K'), kind, downloads, 'Flickr2K'))
    shutil.rmtree(downloads / 'Flickr2K')
    cut_in_half(archive)
    printed = prepare('flickr2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert f'{archive} is damaged or incomplete' in printed
    assert not Path('datasets/Flickr2K').exists()


def test_cut_off_image_is_named(downloads, capsys):
    unpack(downloads, 'DIV2K_train_HR')
    cut_in_half(downloads / 'DIV2K_train_HR/0002.png')
    printed = prepare('div2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert f'{downloads}/DIV2K_train_HR/0002.png is cut off' in printed
    assert not Path('datasets/DIV2K/DIV2K_train_HR').exists()


KILLED = """
import os, signal, sys
from functools import partial
from earn_plugin import cli
from earn_plugin.prepare import archives, div2k

div2k.make_div2k = partial(div2k.make_div2k, train=(1, 2, 3), valid=(801, 802))
contents = archives.contents

def killed(images):
    for number, item in enumerate(contents(images)):
        if number == 2:
            os.kill(os.getpid(), signal.{signal})
        yield item

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
archives.contents = killed
sys.exit(cli.main(['prepare', 'div2k', 'Downloads', '--scales', '2', '--jobs', '1']))
"""


@pytest.mark.parametrize(('name', 'code'), [('SIGKILL', -signal.SIGKILL), ('SIGINT', 130), ('SIGTERM', 143)])
def test_killed_while_unpacking_resumes_there(downloads, capsys, monkeypatch, name, code):
    run = [sys.executable, '-c', KILLED.format(signal=name)]
    process = subprocess.run(run, capture_output=True, text=True, check=False)
    assert process.returncode == code
    assert 'Traceback' not in process.stderr
    assert [p.name for p in Path('datasets/DIV2K').iterdir() if not p.name.startswith('.')] == []
    if name == 'SIGINT':  # followed by a power cut
        for path in Path('datasets/DIV2K/.DIV2K_train_HR.partial').glob('*.png'):
            path.write_bytes(b'')
    read, contents = [], archives.contents

    def spied(images):
        for image, content in contents(images):
            read.append(image.name)
            yield image, content

    monkeypatch.setattr(archives, 'contents', spied)
    prepare('div2k', downloads, '--scales', 2, capsys=capsys)
    assert len([path for path in read if 'train_HR' in path]) == (3 if name == 'SIGINT' else 2)  # one of three was done
    for number, image in TRAIN.items():
        np.testing.assert_array_equal(read_image(Path(f'datasets/DIV2K/DIV2K_train_HR/{number:04d}.png')), image)
    assert not list(Path('datasets').rglob('.*.partial'))


def test_not_enough_disk_space(downloads, capsys, monkeypatch):
    monkeypatch.setattr(archives.shutil, 'disk_usage', lambda path: SimpleNamespace(free=10))
    printed = prepare('div2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'not enough disk space in datasets/DIV2K: 0.0 GiB more' in printed


def png_of(height: int, width: int) -> bytes:
    """A valid PNG of one colour, a thousandth of the size of its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    row = zlib.compress(bytes(height * (3 * width + 1)), 9)
    header = struct.pack('>IIBBBBB', height, width, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', row) + chunk(b'IEND', b'')


@pytest.mark.parametrize('bomb', ['zip', 'tar.gz', 'sparse.tar', 'files', 'image'])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, capsys, monkeypatch, bomb):
    monkeypatch.chdir(tmp_path)
    folder, zeros = tmp_path / 'DIV2K_train_HR', bytes(2**20)
    folder.mkdir()
    path = folder / f'DIV2K_train_HR.{bomb if "tar" in bomb else "zip"}'
    if bomb in ('zip', 'files', 'image'):
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            if bomb == 'zip':
                archive.writestr('DIV2K_train_HR/0001.png', zeros * 80)
            elif bomb == 'image':
                archive.writestr('DIV2K_train_HR/0001.png', png_of(9000, 9000))
            else:
                monkeypatch.setattr(archives, 'MOST_FILES', 3)
                for number in range(4):
                    archive.writestr(f'DIV2K_train_HR/{number}.txt', b'')
    elif bomb == 'tar.gz':
        with tarfile.open(path, 'w:gz') as archive:
            info = tarfile.TarInfo('DIV2K_train_HR/large.bin')
            info.size = 200 * 2**20
            archive.addfile(info, io.BytesIO(zeros * 200))
    else:
        info = tarfile.TarInfo('DIV2K_train_HR/0001.png')
        info.size = 2**40
        path.write_bytes(info.tobuf() + bytes(1024))
    printed = prepare('div2k', folder, '--scales', 2, '--allow-missing', capsys=capsys, expect=1)
    words = {'zip': '83,886,080 bytes', 'tar.gz': 'would become', 'files': 'more than 3 files', 'image': '9000×9000'}
    assert words.get(bomb, '1,099,511,627,776 bytes') in printed
    assert not Path('datasets/DIV2K/DIV2K_train_HR').exists()


def test_unreadable_folder_and_archive_are_reported(downloads, monkeypatch, capsys):
    (downloads / 'locked').mkdir()

    def refusing(function):  # root can read everything
        def refuse(path, *arguments, **keywords):
            if str(path).endswith(('locked', 'X2.zip')):
                raise PermissionError(13, 'Permission denied', str(path))
            return function(path, *arguments, **keywords)

        return refuse

    monkeypatch.setattr(os, 'scandir', refusing(os.scandir))
    monkeypatch.setattr(io, 'open', refusing(io.open))
    printed = prepare('div2k', downloads, '--scales', 3, capsys=capsys)
    assert 'Downloads/locked cannot be read: Permission denied' in printed
    assert 'X2.zip cannot be read: Permission denied' in printed
    assert 'download it again' not in printed


def evil_zip(path: Path, image: bytes) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        for name in ('../../DIV2K_train_HR/0001.png', '/DIV2K_train_HR/0002.png', 'DIV2K_train_HR/..\\0003.png'):
            archive.writestr(name, image)


def evil_tar(path: Path, image: bytes) -> None:
    with tarfile.open(path, 'w') as archive:
        for name in ('../../DIV2K_train_HR/0001.png', '/DIV2K_train_HR/0002.png'):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'
            archive.addfile(info)


@pytest.mark.parametrize('evil', [evil_zip, evil_tar])
def test_archive_cannot_write_elsewhere(tmp_path, monkeypatch, capsys, evil):
    (tmp_path / 'a/b/place').mkdir(parents=True)
    monkeypatch.chdir(tmp_path / 'a/b')
    evil(
        tmp_path / f'a/b/place/DIV2K_{evil.__name__[5:]}.{evil.__name__[5:]}',
        cv2.imencode('.png', TRAIN[3])[1].tobytes(),
    )
    prepare('div2k', 'place', '--scales', 2, '--allow-missing', capsys=capsys, expect=1)
    files = [p for p in tmp_path.rglob('*') if p.is_file() and 'lmdb' not in str(p) and not p.name.startswith('.')]
    expected = {'zip': ['a/b/datasets/DIV2K/DIV2K_train_HR/0002.png', 'a/b/place/DIV2K_zip.zip']}
    found = sorted(p.relative_to(tmp_path).as_posix() for p in files)
    assert found == expected.get(evil.__name__[5:], ['a/b/place/DIV2K_tar.tar'])

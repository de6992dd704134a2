"""Through the command itself, on small archives that are packed as the published ones."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from filelock import FileLock

from earn_plugin import cli
from earn_plugin.data.bicubic import imresize
from earn_plugin.data.image_files import read_image, write_image
from earn_plugin.prepare import archives
from earn_plugin.prepare import div2k as sets
from tests.helpers.command import command
from tests.helpers.images import photograph
from tests.helpers.published import TRAIN, prepare, tree, unpack

PARTS = [f'DIV2K_{part}' for part in ('train_HR', 'train_LR_bicubic_X2', 'valid_HR', 'valid_LR_bicubic_X4')]


def lines_of(lmdb: str) -> list[str]:
    return Path('datasets', lmdb, 'meta_info.txt').read_text().splitlines()


def test_div2k_in_a_process_with_images_missing_and_told(downloads):
    """As a user runs it, on what is not the whole of DIV2K."""
    printed = command('prepare', 'div2k', downloads, cwd=downloads.parent, expect=1)
    assert '797 of 800 images are missing: 0004.png, 0005.png, 0006.png, 0007.png, 0008.png …' in printed
    assert not Path('datasets/DIV2K').exists()


@pytest.mark.parametrize('what', ['div2k', 'flickr2k', 'benchmark', 'voc2012'])
def test_every_set_in_a_process(downloads, what):
    printed = command('prepare', what, 'Downloads', '--scales', '2', '--allow-missing', cwd=downloads.parent)
    assert ' is made' in printed
    assert 'image/s' not in printed  # no progress bar where there is no terminal
    assert not list(Path('datasets').rglob('.making*'))


def test_div2k(downloads, capsys):
    prepare('div2k', downloads, '--scales', 2, 3, 4, 8, capsys=capsys)
    root = Path('datasets/DIV2K')
    for number, image in TRAIN.items():
        np.testing.assert_array_equal(read_image(root / f'DIV2K_train_HR/{number:04d}.png'), image)
    assert [p.name for p in sorted((root / 'DIV2K_valid_LR_bicubic/X4').glob('*.png'))] == ['0801x4.png', '0802x4.png']
    hr = lines_of('DIV2K/DIV2K_train_HR_sub.lmdb')
    assert hr[:3] == ['0001_s001.png (480,480,3) 1', '0001_s002.png (480,480,3) 1', '0002_s001.png (480,480,3) 1']
    for scale in (2, 3, 4):
        lr = lines_of(f'DIV2K/DIV2K_train_LR_bicubic_X{scale}_sub.lmdb')
        assert lr == [line.replace('480', str(480 // scale)) for line in hr]
    assert len(lines_of('DIV2K/DIV2K_train_HRmod8_sub.lmdb')) == 5
    assert lines_of('DIV2K/DIV2K_train_LRbicx8_sub.lmdb')[0] == '0001_s001.png (60,60,3) 1'
    before = tree()
    assert not [*Path('datasets').glob('.*'), *root.glob('.*')]
    printed = prepare('div2k', downloads, '--scales', 2, 3, 4, 8, capsys=capsys)
    assert ' is made' not in printed
    assert printed.count('there already') == 12
    assert tree() == before


def test_flickr2k_with_div2k(downloads, capsys):
    prepare('flickr2k', downloads, '--scales', 3, capsys=capsys)
    hr = [line.split()[0] for line in lines_of('DF2K/DF2K_train_HR_sub.lmdb')]
    assert hr == [line.split()[0] for line in lines_of('DF2K/DF2K_train_LR_bicubic_X3_sub.lmdb')]
    assert sorted(hr) == sorted(
        [f'{name}.png' for name in ('000001_s001', '000002_s001', '000002_s002', '0003_s001')]
        + [f'000{i}_s00{j}.png' for i in (1, 2) for j in (1, 2)]
    )
    assert 'is made' not in prepare('flickr2k', downloads, '--scales', 3, capsys=capsys)


def test_flickr2k_without_div2k_says_what_is_missing(downloads, capsys):
    for path in downloads.glob('DIV2K*'):
        path.unlink()
    printed = prepare('flickr2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'DIV2K_train_HR.zip is not in' in printed
    assert Path('datasets/Flickr2K/Flickr2K_HR/000002.png').is_file()
    assert not Path('datasets/DF2K').exists()


def test_voc2012(downloads, capsys):
    """The first two by name; of these the one of 60 rows is smaller than a patch."""
    prepare('voc2012', downloads, '--scales', 3, capsys=capsys)
    assert lines_of('VOC2012/GTmod12.lmdb') == ['2007_000002.png (96,120,3) 1']
    assert lines_of('VOC2012/LRbicx3.lmdb') == ['2007_000002.png (32,40,3) 1']
    assert sorted(p.name for p in Path('datasets/VOC2012').iterdir()) == ['GTmod12.lmdb', 'LRbicx3.lmdb']
    prepare('voc2012', downloads, capsys=capsys)
    assert lines_of('VOC2012/LRbicx4.lmdb') == ['2007_000002.png (24,30,3) 1']


def test_voc2012_of_another_size_is_told(downloads, capsys):
    with tarfile.open(downloads / 'VOC2012test.tar', 'w') as archive:
        archive.add(downloads / 'benchmark.tar', 'VOCdevkit/VOC2012/JPEGImages/2009_000001.jpg')
    printed = prepare('voc2012', downloads, capsys=capsys, expect=1)
    assert '4 images instead of 3 are in' in printed


@pytest.mark.parametrize('kind', ['folders', 'mixed', 'one level down', 'tar.gz', 'the archive itself', 'edsr'])
def test_however_it_was_unpacked_div2k_is_the_same(downloads, capsys, kind):
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
    if kind == 'edsr':  # the validation images are in the folders of the others
        for name in PARTS[::2]:
            unpack(downloads, name)
        for path in (downloads / 'DIV2K_valid_HR').iterdir():
            path.rename(downloads / 'DIV2K_train_HR' / path.name)
        (downloads / 'DIV2K_valid_HR').rmdir()
    prepare('div2k', place, '--scales', 2, capsys=capsys)
    expected = {name.replace('expected', 'datasets', 1): content for name, content in tree(Path('expected')).items()}
    made = tree()
    assert made.keys() == expected.keys()
    assert {k for k in made if made[k] != expected[k]} <= {k for k in made if k.endswith('data.mdb')}


def test_files_of_the_user_are_linked_and_stay_as_they_are(downloads, capsys):
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


def test_in_place(downloads, capsys):
    unpack(downloads, *PARTS[:2])
    Path('datasets').mkdir()
    downloads.rename('datasets/DIV2K')
    prepare('div2k', 'datasets/DIV2K', '--scales', 2, capsys=capsys)
    assert not Path('datasets/DIV2K/DIV2K_train_HR').is_symlink()
    assert not Path('datasets/DIV2K/DIV2K_train_HR/0001.png').is_symlink()
    assert len(lines_of('DIV2K/DIV2K_train_LR_bicubic_X2_sub.lmdb')) == 5


def test_what_is_in_place_is_counted(downloads, capsys):
    unpack(downloads, 'DIV2K_train_HR')
    Path('datasets').mkdir()
    downloads.rename('datasets/DIV2K')
    Path('datasets/DIV2K/DIV2K_train_HR/0002.png').rename('datasets/DIV2K/DIV2K_train_HR/0009.png')
    printed = prepare('div2k', 'datasets/DIV2K', '--scales', 2, capsys=capsys, expect=1)
    assert 'DIV2K_train_HR: 1 images are not of this set, move them: 0009.png' in printed
    Path('datasets/DIV2K/DIV2K_train_HR/0009.png').unlink()
    printed = prepare('div2k', 'datasets/DIV2K', '--scales', 2, capsys=capsys, expect=1)
    assert 'DIV2K_train_HR: 1 of 3 images are missing: 0002.png' in printed
    assert not Path('datasets/DIV2K/DIV2K_train_HR_sub.lmdb').exists()


def test_what_is_in_place_and_cut_off_is_named(downloads, capsys):
    unpack(downloads, 'DIV2K_train_HR', 'DIV2K_train_LR_bicubic_X2')
    Path('datasets').mkdir()
    downloads.rename('datasets/DIV2K')
    half(Path('datasets/DIV2K/DIV2K_train_LR_bicubic/X2/0002x2.png'))
    printed = prepare('div2k', 'datasets/DIV2K', '--scales', 2, capsys=capsys, expect=1)
    assert 'X2/0002x2.png is cut off' in printed
    assert not Path('datasets/DIV2K/DIV2K_train_LR_bicubic_X2_sub.lmdb').exists()


def test_a_missing_archive_is_named_and_the_rest_is_made(downloads, capsys):
    (downloads / 'DIV2K_train_LR_bicubic_X3.zip').rename(downloads / 'DIV2K_train_LR_bicubic_X3.zip.part')
    printed = prepare('div2k', downloads, '--scales', 2, 3, capsys=capsys, expect=1)
    assert 'DIV2K_train_LR_bicubic_X3.zip is not in' in printed
    assert 'https://data.vision.ee.ethz.ch/cvl/DIV2K/' in printed
    assert 'DIV2K_train_LR_bicubic_X3.zip.part is a download that has not ended' in printed
    assert Path('datasets/DIV2K/DIV2K_train_LR_bicubic_X2_sub.lmdb').is_dir()
    assert not Path('datasets/DIV2K/DIV2K_train_LR_bicubic/X3').exists()


def test_missing_lr_images_are_made_when_asked_for(downloads, capsys):
    prepare('div2k', downloads, '--scales', 2, '--out', 'expected', capsys=capsys)
    (downloads / 'DIV2K_train_LR_bicubic_X2.zip').unlink()
    prepare('div2k', downloads, '--scales', 2, '--make-lr', capsys=capsys)
    made, expected = ({p.name: p for p in Path(r).rglob('000?x2.png')} for r in ('datasets', 'expected'))
    assert len(made) == 3
    for name, path in made.items():
        np.testing.assert_array_equal(read_image(path), read_image(expected[name]))


@pytest.mark.parametrize('hr', [(480, 484), (491, 480)])
def test_lr_images_of_another_size_are_told(downloads, capsys, hr):
    """240×240 is none of 480×484; 246×240 of 491×480, rounded up, is, but cut to what 12 divides they differ."""
    unpack(downloads, 'DIV2K_train_HR', 'DIV2K_train_LR_bicubic_X2')
    write_image(downloads / 'DIV2K_train_HR/0002.png', photograph(*hr))
    lr = photograph(246 if hr[0] == 491 else 240, 240)
    write_image(downloads / 'DIV2K_train_LR_bicubic/X2/0002x2.png', lr)
    printed = prepare('div2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'X2: 1 images are not 1/2 of those in DIV2K_train_HR: 0002x2.png' in printed
    assert not Path('datasets/DIV2K/DIV2K_train_LR_bicubic_X2_sub.lmdb').exists()


def test_lr_images_that_were_rounded_up_pair(tmp_path, monkeypatch, capsys):
    """MATLAB makes 241 of 481; sub-images at the right and at the bottom must still show the same."""
    hr = photograph(721, 484, 8)
    write_image(tmp_path / 'D/DIV2K_train_HR/0001.png', hr)
    write_image(tmp_path / 'D/DIV2K_train_LR_bicubic/X2/0001x2.png', imresize(hr, Fraction(1, 2)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sets, 'div2k', partial(sets.div2k, train=[1]))
    prepare('div2k', 'D', '--scales', 2, capsys=capsys)
    assert lines_of('DIV2K/DIV2K_train_HR_sub.lmdb') == [f'0001_s00{i}.png (480,480,3) 1' for i in (1, 2)]
    assert lines_of('DIV2K/DIV2K_train_LR_bicubic_X2_sub.lmdb') == [f'0001_s00{i}.png (240,240,3) 1' for i in (1, 2)]


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize('damage', [half, flip])
def test_a_damaged_zip_is_named_and_nothing_half_made(downloads, capsys, damage):
    whole = (downloads / 'DIV2K_train_HR.zip').read_bytes()
    damage(downloads / 'DIV2K_train_HR.zip')
    printed = prepare('div2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'DIV2K_train_HR.zip is damaged or not there whole' in printed
    assert not Path('datasets/DIV2K/DIV2K_train_HR').exists()
    assert not Path('datasets/DIV2K/DIV2K_train_HR_sub.lmdb').exists()
    (downloads / 'DIV2K_train_HR.zip').write_bytes(whole)
    prepare('div2k', downloads, '--scales', 2, capsys=capsys)
    np.testing.assert_array_equal(read_image(Path('datasets/DIV2K/DIV2K_train_HR/0001.png')), TRAIN[1])


def test_damage_to_what_is_not_needed_is_told_and_no_failure(downloads, capsys):
    half(downloads / 'DIV2K_train_LR_bicubic_X3.zip')
    printed = prepare('div2k', downloads, '--scales', 2, capsys=capsys)
    assert 'not needed, but' in printed
    assert 'X3.zip is damaged or not there whole' in printed


@pytest.mark.parametrize('kind', ['tar', 'gztar'])
def test_half_a_tar_is_named(downloads, capsys, kind):
    unpack(downloads, 'Flickr2K')
    archive = Path(shutil.make_archive(str(downloads / 'Flickr2K'), kind, downloads, 'Flickr2K'))
    shutil.rmtree(downloads / 'Flickr2K')
    half(archive)
    printed = prepare('flickr2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert f'{archive} is damaged or not there whole' in printed
    assert not Path('datasets/Flickr2K').exists()


def test_an_image_that_is_cut_off_is_named(downloads, capsys):
    unpack(downloads, 'DIV2K_train_HR')
    half(downloads / 'DIV2K_train_HR/0002.png')
    printed = prepare('div2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert f'{downloads}/DIV2K_train_HR/0002.png is cut off' in printed
    assert not Path('datasets/DIV2K/DIV2K_train_HR').exists()


KILLED = """
import os, signal, sys
from functools import partial
from earn_plugin import cli
from earn_plugin.prepare import archives, div2k as sets

sets.div2k = partial(sets.div2k, train=(1, 2, 3), valid=(801, 802))
contents = archives.contents

def killed(images):
    for number, item in enumerate(contents(images)):
        if number == 2:
            os.kill(os.getpid(), signal.{signal})
        yield item

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
archives.contents, archives.BATCH = killed, 1
sys.exit(cli.main(['prepare', 'div2k', 'Downloads', '--scales', '2', '--jobs', '1']))
"""


@pytest.mark.parametrize(('name', 'code'), [('SIGKILL', -signal.SIGKILL), ('SIGINT', 130), ('SIGTERM', 143)])
def test_killed_while_unpacking_it_goes_on_there(downloads, capsys, monkeypatch, name, code):
    run = [sys.executable, '-c', KILLED.format(signal=name)]
    process = subprocess.run(run, capture_output=True, text=True, check=False)
    assert process.returncode == code
    assert 'Traceback' not in process.stderr
    assert [p.name for p in Path('datasets/DIV2K').iterdir() if not p.name.startswith('.')] == []
    if name == 'SIGINT':  # and then the power failed
        next(Path('datasets/DIV2K/.DIV2K_train_HR.partial').glob('*.png')).write_bytes(b'')
    read, contents = [], archives.contents

    def spied(images):
        for image, content in contents(images):
            read.append(image.name)
            yield image, content

    monkeypatch.setattr(archives, 'contents', spied)
    prepare('div2k', downloads, '--scales', 2, capsys=capsys)
    assert len([path for path in read if 'train_HR' in path]) == (2 if name == 'SIGINT' else 1)  # of three
    for number, image in TRAIN.items():
        np.testing.assert_array_equal(read_image(Path(f'datasets/DIV2K/DIV2K_train_HR/{number:04d}.png')), image)
    assert not list(Path('datasets').rglob('.*.partial'))


def test_a_second_run_is_kept_out(downloads, capsys):
    Path('datasets').mkdir()
    with FileLock('datasets/.prepare.lock'):
        printed = prepare('div2k', downloads, capsys=capsys, expect=1)
    assert 'another basicsr prepare is at work in datasets' in printed


def test_no_room(downloads, capsys, monkeypatch):
    monkeypatch.setattr(archives.shutil, 'disk_usage', lambda path: SimpleNamespace(free=10))
    printed = prepare('div2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'has no room for 0.0 GiB more' in printed


@pytest.mark.parametrize(('arguments', 'code', 'told'), [
    (['nowhere'], 1, 'nowhere is neither a folder nor an archive'),
    (['Downloads', '--jobs', '0'], 2, 'jobs must be at least 1, got 0'),
    (['Downloads', '--out', 'Downloads/benchmark.tar'], 1, 'Downloads/benchmark.tar cannot be written to'),
])  # fmt: skip
def test_mistakes(downloads, capsys, arguments, code, told):
    assert told in prepare('div2k', *arguments, capsys=capsys, expect=code)


def test_a_folder_that_may_not_be_read_is_told(downloads, monkeypatch, capsys):
    (downloads / 'locked').mkdir()
    scandir = os.scandir

    def refused(path):  # for root may read all
        if Path(path).name == 'locked':
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refused)
    assert 'Downloads/locked cannot be read: Permission denied' in prepare('div2k', downloads, capsys=capsys)


@pytest.mark.parametrize(('what', 'scale'), [('flickr2k', 8), ('voc2012', 8), ('div2k', 5)])
def test_scales_that_are_not(what, scale, capsys):
    with pytest.raises(SystemExit) as leave:
        cli.main(['prepare', what, '.', '--scales', str(scale)])
    assert leave.value.code == 2


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
def test_an_archive_writes_nowhere_else(tmp_path, monkeypatch, capsys, evil):
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

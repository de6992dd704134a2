"""Interrupted commands resume, and their output is the same as without the interruption."""

import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from earn_plugin.data.image_files import encode, write_image
from earn_plugin.errors import UserError
from earn_plugin.prepare import png_folder
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.lr import make_lr
from earn_plugin.prepare.resumable_folder import (
    JOURNAL,
    MANIFEST,
    PartialFolder,
    in_threads,
    read_manifest,
    resumable_folder,
)
from earn_plugin.prepare.subimages import SubImages, make_subimages
from earn_plugin.signals import Stopped
from tests.helpers.command import command, start
from tests.helpers.images import contents, lmdb_values, photograph

KILLS = 3


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('images') / 'HR'
    for index in range(30):
        write_image(root / f'im{index:02d}.png', photograph(200 + index, 300, index))
    return root


def values(folder: Path) -> dict[str, bytes]:
    """Of an LMDB, and the other files."""
    files = contents(folder)
    del files['data.mdb']
    return {**lmdb_values(folder), **files}


def lines_of(journal: Path) -> int:
    try:
        return journal.read_text().count('\n')
    except FileNotFoundError:
        return 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ('what', 'name', 'read'), [('subimages', 'sub', contents), ('lmdb', 'sub.lmdb', values)], ids=['subimages', 'lmdb']
)
def test_killed_three_times(folder, tmp_path, what, name, read):
    """Killed at random moments after some images."""
    settings = ['--size', 64, '--step', 8, '--jobs', 1]
    command('prepare', what, folder, tmp_path / 'expected' / name, *settings, cwd=tmp_path)
    expected = read(tmp_path / 'expected' / name)
    target = tmp_path / 'broken' / name
    journal = target.with_name(f'.{name}.partial') / JOURNAL
    chance = random.Random(0)
    lengths = [0]
    for _ in range(KILLS):
        process = start('prepare', what, folder, target, *settings, cwd=tmp_path)
        while process.poll() is None and lines_of(journal) < lengths[-1] + 2:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        lengths.append(lines_of(journal))
    assert lengths == sorted(set(lengths)), lengths  # each run resumed the work of the one before
    command('prepare', what, folder, target, *settings, cwd=tmp_path)
    assert read(target) == expected
    assert [path.name for path in target.parent.iterdir()] == [name]


def make(folder, target):
    return make_subimages(folder, target, SubImages(96, 48), jobs=1)


def interrupt_after(monkeypatch, count, error):
    """Raise an error after so many images."""
    record = PartialFolder.record

    def record_and_raise(work, *entry):
        record(work, *entry)
        if len(work.done) == count:
            raise error

    monkeypatch.setattr(PartialFolder, 'record', record_and_raise)


def test_ctrl_c_reports_progress_and_the_next_run_resumes(folder, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 7, KeyboardInterrupt)
    with pytest.raises(Stopped, match='7 of 30 images are done; run the same command again') as stopped:
        make(folder, tmp_path / 'sub')
    assert stopped.value.exit_code == 130
    assert not (tmp_path / 'sub').exists()
    monkeypatch.undo()
    written = []
    monkeypatch.setattr(png_folder, 'encode', lambda image: written.append(1) or encode(image))
    assert make(folder, tmp_path / 'sub')
    manifest = read_manifest(tmp_path / 'sub')
    assert len(written) == sum(not name.startswith(tuple(f'im0{n}' for n in range(7))) for name in manifest['files'])
    make(folder, tmp_path / 'unbroken')
    assert contents(tmp_path / 'sub') == contents(tmp_path / 'unbroken')


def test_full_disk(folder, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 3, OSError(28, 'No space left on device'))
    with pytest.raises(UserError, match='No space left on device; 3 of 30 images are done'):
        make(folder, tmp_path / 'sub')


def test_folder_that_is_not_writable(folder, tmp_path, monkeypatch):
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(UserError, match=r'file/sub could not be completed: .*; 0 of 30 images are done'):
        make(folder, tmp_path / 'file/sub')

    def full(self, *arguments, **settings):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_text', full)
    with pytest.raises(UserError, match='No space left on device'):
        make(folder, tmp_path / 'sub')


def test_full_disk_under_an_lmdb(folder, tmp_path):
    """A limit to the length of files stops LMDB as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(UserError, match=r', with [0-9,]+ MiB of disk space left; 0 of 30 images'):
            make_lmdb(folder, tmp_path / 'X.lmdb')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize('content', ['{}', '[]', '{"recipe": 1, "files": {}}', 'half a li'])
def test_damaged_manifest(folder, tmp_path, content):
    make(folder, tmp_path / 'sub')
    (tmp_path / 'sub' / MANIFEST).write_text(content)
    with pytest.raises(UserError, match=r'is damaged .* remove .*sub and create it again'):
        make(folder, tmp_path / 'sub')


def test_output_that_is_no_longer_complete(folder, tmp_path):
    make(folder, tmp_path / 'sub')
    assert not make(folder, tmp_path / 'sub')
    (tmp_path / 'sub/im03_s001.png').write_bytes(b'')
    (tmp_path / 'sub/im04_s001.png').unlink()
    with pytest.raises(UserError, match=r'no longer complete, im03_s001.png, … is missing or changed: remove it first'):
        make(folder, tmp_path / 'sub')
    make_lmdb(folder, tmp_path / 'X.lmdb')
    assert not make_lmdb(folder, tmp_path / 'X.lmdb')
    (tmp_path / 'X.lmdb/meta_info.txt').unlink()
    with pytest.raises(UserError, match=r'no longer complete, meta_info.txt is missing'):
        make_lmdb(folder, tmp_path / 'X.lmdb')
    make_lmdb(folder, tmp_path / 'Y.lmdb')
    os.truncate(tmp_path / 'Y.lmdb/data.mdb', 100_000)
    with pytest.raises(UserError, match=r'data.mdb is cut off: it has 100,000 of'):
        make_lmdb(folder, tmp_path / 'Y.lmdb')


def test_broken_link_as_target_is_found_before_the_work(folder, tmp_path):
    (tmp_path / 'sub').symlink_to(tmp_path / 'away')
    with pytest.raises(UserError, match='sub exists, and was not created by this command'):
        make(folder, tmp_path / 'sub')
    assert not (tmp_path / '.sub.partial').exists()


def test_lost_files_and_incomplete_lines_are_made_again(folder, tmp_path, monkeypatch):
    """What a power cut leaves."""
    interrupt_after(monkeypatch, 9, KeyboardInterrupt)
    with pytest.raises(Stopped):
        make(folder, tmp_path / 'sub')
    monkeypatch.undo()
    partial = tmp_path / '.sub.partial'
    (partial / 'im03_s001.png').write_bytes(b'')
    (partial / 'im05_s002.png').unlink()
    (partial / f'.{MANIFEST}.iigm_s73').touch()
    text = (partial / JOURNAL).read_text()
    (partial / JOURNAL).write_text(text[:-30])
    make(folder, tmp_path / 'sub')
    make(folder, tmp_path / 'unbroken')
    assert contents(tmp_path / 'sub') == contents(tmp_path / 'unbroken')


def test_other_settings_start_again(folder, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 9, KeyboardInterrupt)
    with pytest.raises(Stopped):
        make(folder, tmp_path / 'sub')
    monkeypatch.undo()
    make_subimages(folder, tmp_path / 'sub', SubImages(96, 96))
    make_subimages(folder, tmp_path / 'unbroken', SubImages(96, 96))
    assert contents(tmp_path / 'sub') == contents(tmp_path / 'unbroken')


def test_images_that_changed_after_a_kill_are_read_again(tmp_path, monkeypatch):
    """Even if their size is the same, as that of BMP files of one shape."""
    folder = tmp_path / 'HR'
    folder.mkdir()
    for index in range(12):
        (folder / f'im{index:02d}.bmp').write_bytes(encode(photograph(96, 96, index), '.bmp'))
    interrupt_after(monkeypatch, 9, KeyboardInterrupt)
    with pytest.raises(Stopped):
        make_lr(folder, tmp_path / 'X2', 2)
    monkeypatch.undo()
    (folder / 'im00.bmp').write_bytes(encode(photograph(96, 96, 99), '.bmp'))
    make_lr(folder, tmp_path / 'X2', 2)
    make_lr(folder, tmp_path / 'unbroken', 2)
    assert contents(tmp_path / 'X2') == contents(tmp_path / 'unbroken')
    for path in folder.iterdir():  # a copied data set has other times
        os.utime(path, (1, 1))
    assert not make_lr(folder, tmp_path / 'X2', 2)


def test_two_at_once(folder, tmp_path):
    with resumable_folder(tmp_path / 'sub', {'sources': 0}), pytest.raises(UserError, match='another process is crea'):
        make(folder, tmp_path / 'sub')


def test_threads_keep_the_order_and_raise_the_failure():
    paths = [Path(str(n)) for n in range(50)]
    assert [result for _, result in in_threads(paths, lambda p: int(p.name) ** 2, label='', total=50, jobs=4)] == [
        n**2 for n in range(50)
    ]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(paths, lambda p: 1 // (int(p.name) - 20), label='', total=50, jobs=4))


@pytest.fixture(params=['lr', 'subimages', 'lmdb', 'bmp'])
def made(request, tmp_path):
    """A folder of images, what a command made of it, and a function that runs the command again."""
    images = tmp_path / 'HR'
    for index in range(4):
        write_image(images / f'im{index}.png', photograph(64, 64, index))
    name = 'made.lmdb' if request.param in ('lmdb', 'bmp') else 'made'
    commands = {
        'lr': lambda root: make_lr(root / 'HR', root / name, 2),
        'subimages': lambda root: make_subimages(root / 'HR', root / name, SubImages(32, 32)),
        'lmdb': lambda root: make_lmdb(root / 'HR', root / name),
        'bmp': lambda root: make_lmdb(root / 'HR', root / name, encoding='bmp'),
    }
    assert commands[request.param](tmp_path)
    return images, tmp_path / name, commands[request.param]


def change(path: Path, place: int) -> None:
    """Change one byte and set the time of the last change back."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_changed_source_is_not_the_same(made):
    images, _, run = made
    assert not run(images.parent)
    (images / 'im1.png').touch()
    assert not run(images.parent)
    content = (images / 'im1.png').read_bytes()
    change(images / 'im1.png', len(content) - 2)
    with pytest.raises(UserError, match=r'im1\.png has changed since it was created'):
        run(images.parent)
    (images / 'im1.png').write_bytes(content)
    assert not run(images.parent)


def test_changed_output_is_not_the_same(made):
    images, target, run = made
    file = target / 'data.mdb' if target.suffix else sorted(target.glob('im1*'))[0]
    place = file.read_bytes().index(lmdb_values(target)['im1']) + 100 if target.suffix else 100
    change(file, place)
    with pytest.raises(UserError, match=r'im1.* is missing or changed'):
        run(images.parent)


@pytest.mark.parametrize('change', [('im1.png (64,64,3) 1\n', ''), ('im1.png (64,', 'im1.png (46,')])
def test_a_changed_list_of_an_lmdb_is_not_the_same(tmp_path, change):
    for index in range(2):
        write_image(tmp_path / f'HR/im{index}.png', photograph(64, 64, index))
    make_lmdb(tmp_path / 'HR', tmp_path / 'X.lmdb')
    meta_info = tmp_path / 'X.lmdb/meta_info.txt'
    meta_info.write_text(meta_info.read_text().replace(*change))
    with pytest.raises(UserError, match='no longer complete, im1 is missing or changed'):
        make_lmdb(tmp_path / 'HR', tmp_path / 'X.lmdb')


def test_copies_are_compared_by_content_and_only_once(made, tmp_path, monkeypatch):
    images, target, run = made
    for folder in (images, target):
        shutil.copytree(folder, tmp_path / 'copy' / folder.name)
    assert not run(tmp_path / 'copy')
    monkeypatch.setattr(Path, 'read_bytes', None)
    assert not run(tmp_path / 'copy')

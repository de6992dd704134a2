"""What is made goes on after a kill, and comes out as if nothing had happened."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lmdb
import pytest

from earn_plugin.data.image_files import write_image
from earn_plugin.errors import UserError
from earn_plugin.prepare import lmdb as prepare
from earn_plugin.prepare import resumable_folder as making
from earn_plugin.signals import Stopped
from tests.helpers.command import command, start
from tests.helpers.images import photograph

KILLS = 20


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('images') / 'HR'
    for index in range(30):
        write_image(root / f'im{index:02d}.png', photograph(200 + index, 300, index))
    return root


def listed(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != 'lock.mdb'}


def values(folder: Path) -> dict[str, bytes]:
    """Of an LMDB, in a process of its own, for one process opens an LMDB once; and the files beside it."""
    code = (
        'import lmdb, sys, hashlib, json\n'
        'with lmdb.open(sys.argv[1], readonly=True, lock=False) as e, e.begin() as t:\n'
        '    print(json.dumps({k.decode(): hashlib.sha256(v).hexdigest() for k, v in t.cursor()}))'
    )
    content = json.loads(subprocess.check_output([sys.executable, '-c', code, str(folder)]))
    return content | {name: text for name, text in listed(folder).items() if name != 'data.mdb'}


def written_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ('what', 'name', 'read'), [('subimages', 'sub', listed), ('lmdb', 'sub.lmdb', values)], ids=['subimages', 'lmdb']
)
def test_killed_twenty_times(folder, tmp_path, what, name, read):
    """Killed at random moments, among them some while Python starts and some when all is done."""
    cutting = ['--size', 64, '--step', 16, '--jobs', 1]
    command('prepare', what, folder, tmp_path / 'whole' / name, *cutting, cwd=tmp_path)
    expected = read(tmp_path / 'whole' / name)
    target = tmp_path / 'broken' / name
    journal = target.with_name(f'.{name}.partial') / making.JOURNAL
    chance = random.Random(0)
    journals = []
    for _ in range(KILLS):
        before = written_at(journal)
        process = start('prepare', what, folder, target, *cutting, cwd=tmp_path)
        if chance.random() < 0.8:
            while process.poll() is None and written_at(journal) == before:
                time.sleep(0.01)
        time.sleep(chance.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if target.exists():  # it was done: whole, and from the beginning for the next
            assert read(target) == expected
            target.rename(tmp_path / f'done{len(list(tmp_path.iterdir()))}')
        journals.append(journal.read_text().count('\n') if journal.exists() else 0)
    assert any(later > earlier > 1 for earlier, later in itertools.pairwise(journals)), journals
    command('prepare', what, folder, target, *cutting, cwd=tmp_path)
    assert read(target) == expected
    assert [path.name for path in target.parent.iterdir()] == [name]


def make(folder, target):
    return prepare.make_subimages(folder, target, 96, 48, jobs=1)


def interrupt_after(monkeypatch, count, error):
    """Let the work end with an error after so many images."""
    note = making.Work.note

    def noting(work, *entry):
        note(work, *entry)
        if len(work.done) == count:
            raise error

    monkeypatch.setattr(making.Work, 'note', noting)


def test_ctrl_c_tells_how_far_it_is_and_the_next_run_goes_on(folder, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 7, KeyboardInterrupt)
    with pytest.raises(Stopped, match='7 of 30 images are done: the same command goes on') as stopped:
        make(folder, tmp_path / 'sub')
    assert stopped.value.exit_code == 130
    assert not (tmp_path / 'sub').exists()
    monkeypatch.undo()
    written = []
    encode = prepare.encode
    monkeypatch.setattr(prepare, 'encode', lambda image: written.append(1) or encode(image))
    assert make(folder, tmp_path / 'sub')
    made = making.manifest_of(tmp_path / 'sub')
    assert len(written) == sum(not name.startswith(tuple(f'im0{n}' for n in range(7))) for name in made['files'])
    make(folder, tmp_path / 'unbroken')
    assert listed(tmp_path / 'sub') == listed(tmp_path / 'unbroken')


def test_a_full_disk(folder, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 3, OSError(28, 'No space left on device'))
    with pytest.raises(UserError, match='No space left on device; 3 of 30 images are done'):
        make(folder, tmp_path / 'sub')


def test_a_place_that_may_not_be_written_to(folder, tmp_path, monkeypatch):
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(UserError, match=r'file/sub could not be finished: .*; 0 of 30 images are done'):
        make(folder, tmp_path / 'file/sub')

    def full(self, *arguments, **settings):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_text', full)
    with pytest.raises(UserError, match='No space left on device'):
        make(folder, tmp_path / 'sub')


def test_a_full_disk_under_an_lmdb(folder, tmp_path, monkeypatch):
    def commit(self):
        raise lmdb.Error('mdb_txn_commit: Input/output error')

    monkeypatch.setattr(prepare.Store, 'commit', commit)
    with pytest.raises(UserError, match=r'Input/output error, with [0-9,]+ MiB free on the disk; 0 of 30 images'):
        prepare.make_lmdb(folder, tmp_path / 'X.lmdb')


@pytest.mark.parametrize('content', ['{}', '[]', '{"recipe": 1, "files": {}}', 'half a li'])
def test_a_damaged_manifest(folder, tmp_path, content):
    make(folder, tmp_path / 'sub')
    (tmp_path / 'sub' / making.MANIFEST).write_text(content)
    with pytest.raises(UserError, match=r'is damaged .* remove .*sub and make it anew'):
        make(folder, tmp_path / 'sub')


def test_what_was_made_and_is_no_longer_whole(folder, tmp_path):
    make(folder, tmp_path / 'sub')
    assert not make(folder, tmp_path / 'sub')
    (tmp_path / 'sub/im03_s001.png').write_bytes(b'')
    (tmp_path / 'sub/im04_s001.png').unlink()
    with pytest.raises(UserError, match=r'no longer whole, im03_s001.png, … is missing or changed: remove it first'):
        make(folder, tmp_path / 'sub')
    prepare.make_lmdb(folder, tmp_path / 'X.lmdb')
    assert not prepare.make_lmdb(folder, tmp_path / 'X.lmdb')
    (tmp_path / 'X.lmdb/meta_info.txt').unlink()
    with pytest.raises(UserError, match=r'no longer whole, meta_info.txt is missing'):
        prepare.make_lmdb(folder, tmp_path / 'X.lmdb')
    prepare.make_lmdb(folder, tmp_path / 'Y.lmdb')
    os.truncate(tmp_path / 'Y.lmdb/data.mdb', 100_000)
    with pytest.raises(UserError, match=r'data.mdb is cut off: it has 100,000 of'):
        prepare.make_lmdb(folder, tmp_path / 'Y.lmdb')


def test_a_link_to_nothing_is_in_the_way_before_the_work(folder, tmp_path):
    (tmp_path / 'sub').symlink_to(tmp_path / 'away')
    with pytest.raises(UserError, match='sub exists, and was not made by this command'):
        make(folder, tmp_path / 'sub')
    assert not (tmp_path / '.sub.partial').exists()


def test_lost_files_and_half_lines_are_made_again(folder, tmp_path, monkeypatch):
    """What a power cut leaves."""
    interrupt_after(monkeypatch, 9, KeyboardInterrupt)
    with pytest.raises(Stopped):
        make(folder, tmp_path / 'sub')
    monkeypatch.undo()
    partial = tmp_path / '.sub.partial'
    (partial / 'im03_s001.png').write_bytes(b'')
    (partial / 'im05_s002.png').unlink()
    (partial / f'.{making.MANIFEST}.iigm_s73').touch()
    text = (partial / making.JOURNAL).read_text()
    (partial / making.JOURNAL).write_text(text[:-30])
    make(folder, tmp_path / 'sub')
    make(folder, tmp_path / 'unbroken')
    assert listed(tmp_path / 'sub') == listed(tmp_path / 'unbroken')


def test_other_settings_start_from_nothing(folder, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 9, KeyboardInterrupt)
    with pytest.raises(Stopped):
        make(folder, tmp_path / 'sub')
    monkeypatch.undo()
    prepare.make_subimages(folder, tmp_path / 'sub', 96, 96)
    prepare.make_subimages(folder, tmp_path / 'unbroken', 96, 96)
    assert listed(tmp_path / 'sub') == listed(tmp_path / 'unbroken')


def test_images_that_changed_after_a_kill_are_read_again(tmp_path, monkeypatch):
    """Also where no size tells: BMP files of one shape are as long as one another."""
    folder = tmp_path / 'HR'
    folder.mkdir()
    for index in range(12):
        (folder / f'im{index:02d}.bmp').write_bytes(prepare.encode(photograph(96, 96, index), '.bmp'))
    interrupt_after(monkeypatch, 9, KeyboardInterrupt)
    with pytest.raises(Stopped):
        prepare.make_lr(folder, tmp_path / 'X2', 2)
    monkeypatch.undo()
    (folder / 'im00.bmp').write_bytes(prepare.encode(photograph(96, 96, 99), '.bmp'))
    prepare.make_lr(folder, tmp_path / 'X2', 2)
    prepare.make_lr(folder, tmp_path / 'unbroken', 2)
    assert listed(tmp_path / 'X2') == listed(tmp_path / 'unbroken')
    for path in folder.iterdir():  # a copy of the whole data set has other times
        os.utime(path, (1, 1))
    assert not prepare.make_lr(folder, tmp_path / 'X2', 2)


def test_two_at_once(folder, tmp_path):
    with making.making(tmp_path / 'sub', {'sources': 0}):
        ended = []
        other = threading.Thread(target=lambda: ended.append(attempt(lambda: make(folder, tmp_path / 'sub'))))
        other.start()
        other.join()
    assert 'another process is making' in str(ended[0])


def attempt(call):
    try:
        return call()
    except UserError as error:
        return error


def test_each_keeps_the_order_and_names_the_failure():
    paths = [Path(str(n)) for n in range(50)]
    assert [result for _, result in making.each(paths, lambda p: int(p.name) ** 2, '', jobs=4)] == [
        n**2 for n in range(50)
    ]
    with pytest.raises(ZeroDivisionError):
        list(making.each(paths, lambda p: 1 // (int(p.name) - 20), '', jobs=4))

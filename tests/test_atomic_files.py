import os
from pathlib import Path

import pytest

from earn_plugin.atomic_files import atomic_file, atomic_folder, atomic_path, remove_leftovers, remove_leftovers_of


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_only_when_complete(tmp_path):
    path = tmp_path / 'new' / 'file'
    with atomic_file(path) as file:
        file.write(b'first half')
        assert not path.exists()
        file.write(b', second half')
    assert path.read_bytes() == b'first half, second half'
    assert names(path.parent) == ['file']


def test_failure_keeps_the_earlier_file_and_leaves_no_other(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'before')
    with pytest.raises(OSError, match='full'), atomic_file(path) as file:
        file.write(b'after')
        raise OSError('full')
    assert path.read_bytes() == b'before'
    assert names(tmp_path) == ['file']


def test_permissions_are_the_usual_ones_and_the_umask_is_not_touched(tmp_path, monkeypatch):
    """The umask belongs to the process: changing it for a moment would change the files of other threads."""
    (tmp_path / 'plain').touch()
    (tmp_path / 'plain_folder').mkdir()
    monkeypatch.setattr(os, 'umask', lambda mask: pytest.fail('the umask was touched'))
    with atomic_file(tmp_path / 'file') as file:
        file.write(b'')
    with atomic_folder(tmp_path / 'folder'):
        pass
    assert (tmp_path / 'file').stat().st_mode == (tmp_path / 'plain').stat().st_mode
    assert (tmp_path / 'folder').stat().st_mode == (tmp_path / 'plain_folder').stat().st_mode


def test_folder_appears_only_when_complete(tmp_path):
    path = tmp_path / 'folder'
    with atomic_folder(path) as created:
        (created / 'a').touch()
        assert not path.exists()
    assert names(path) == ['a']
    with pytest.raises(FileExistsError, match='folder'), atomic_folder(path):
        pass


def test_failed_folder_does_not_exist(tmp_path):
    with pytest.raises(KeyError), atomic_folder(tmp_path / 'folder') as created:
        (created / 'a').touch()
        raise KeyError
    assert names(tmp_path) == []


def test_another_process_may_be_faster(tmp_path):
    path = tmp_path / 'folder'
    with pytest.raises(FileExistsError), atomic_folder(path) as created:
        (created / 'ours').touch()
        path.mkdir()
        (path / 'theirs').touch()
    assert names(tmp_path) == ['folder']
    assert names(path) == ['theirs']


def test_leftovers_of_a_killed_process(tmp_path):
    for name in ('.5.state.x1y2_z3w', '5.state', '.hidden', '.hidden.too'):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ['.hidden', '.hidden.too', '5.state']


def test_a_killed_process_leaves_what_is_removed(tmp_path):
    writing = atomic_file(tmp_path / 'file')
    writing.__enter__()
    assert len(names(tmp_path)) == 1
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_a_path_takes_its_name_when_its_content_is_complete(tmp_path):
    path = tmp_path / 'folder/a.png'
    with atomic_path(path) as temporary:
        temporary.write_bytes(b'new')
        assert temporary.suffix == '.png' and not path.exists()
    assert path.read_bytes() == b'new' and names(path.parent) == ['a.png']
    with pytest.raises(ValueError), atomic_path(path) as temporary:
        temporary.write_bytes(b'newer')
        raise ValueError
    assert path.read_bytes() == b'new' and names(path.parent) == ['a.png']


def test_only_leftovers_of_these_files_are_removed(tmp_path):
    writing = atomic_path(tmp_path / 'a.png')
    writing.__enter__().touch()
    kept = ['.a.png', '.a.png.0123abcd', '.a.png.settings.png', '.b.png.0123abcd.png', 'a.png']
    for name in kept:
        (tmp_path / name).touch()
    remove_leftovers_of([tmp_path / 'a.png', tmp_path / 'missing/b.png'])
    assert names(tmp_path) == sorted(kept)

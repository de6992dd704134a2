from pathlib import Path

import pytest

from earn_plugin.atomic_files import atomic_file, atomic_folder, remove_leftovers


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_only_when_whole(tmp_path):
    path = tmp_path / 'new' / 'file'
    with atomic_file(path) as file:
        file.write(b'half')
        assert not path.exists()
        file.write(b' whole')
    assert path.read_bytes() == b'half whole'
    assert names(path.parent) == ['file']


def test_failure_keeps_what_was_there_and_leaves_nothing_else(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'before')
    with pytest.raises(OSError, match='full'), atomic_file(path) as file:
        file.write(b'after')
        raise OSError('full')
    assert path.read_bytes() == b'before'
    assert names(tmp_path) == ['file']


def test_file_has_the_usual_permissions(tmp_path):
    with atomic_file(tmp_path / 'file') as file:
        file.write(b'')
    (tmp_path / 'plain').touch()
    assert (tmp_path / 'file').stat().st_mode == (tmp_path / 'plain').stat().st_mode


def test_folder_appears_only_when_whole(tmp_path):
    path = tmp_path / 'folder'
    with atomic_folder(path) as made:
        (made / 'a').touch()
        assert not path.exists()
    assert names(path) == ['a']
    with pytest.raises(FileExistsError, match='folder'), atomic_folder(path):
        pass


def test_failed_folder_is_not_there(tmp_path):
    with pytest.raises(KeyError), atomic_folder(tmp_path / 'folder') as made:
        (made / 'a').touch()
        raise KeyError
    assert names(tmp_path) == []


def test_somebody_else_may_be_faster(tmp_path):
    path = tmp_path / 'folder'
    with pytest.raises(FileExistsError), atomic_folder(path) as made:
        (made / 'ours').touch()
        path.mkdir()
        (path / 'theirs').touch()
    assert names(tmp_path) == ['folder']
    assert names(path) == ['theirs']


def test_leftovers_of_a_killed_process(tmp_path):
    for name in ('.5.state.x1y2_z3w', '5.state', '.hidden', '.hidden.too'):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ['.hidden', '.hidden.too', '5.state']

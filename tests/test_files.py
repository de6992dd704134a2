from pathlib import Path

import pytest

from earn_plugin.files import whole_file, whole_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_only_when_whole(tmp_path):
    path = tmp_path / 'new' / 'file'
    with whole_file(path) as file:
        file.write(b'half')
        assert not path.exists()
        file.write(b' whole')
    assert path.read_bytes() == b'half whole'
    assert names(path.parent) == ['file']


def test_failure_keeps_what_was_there_and_leaves_nothing_else(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'before')
    with pytest.raises(OSError, match='full'), whole_file(path) as file:
        file.write(b'after')
        raise OSError('full')
    assert path.read_bytes() == b'before'
    assert names(tmp_path) == ['file']


def test_file_has_the_usual_permissions(tmp_path):
    with whole_file(tmp_path / 'file') as file:
        file.write(b'')
    (tmp_path / 'plain').touch()
    assert (tmp_path / 'file').stat().st_mode == (tmp_path / 'plain').stat().st_mode


def test_folder_appears_only_when_whole(tmp_path):
    path = tmp_path / 'folder'
    with whole_folder(path) as made:
        (made / 'a').touch()
        assert not path.exists()
    assert names(path) == ['a']
    with pytest.raises(FileExistsError, match='folder'), whole_folder(path):
        pass


def test_failed_folder_is_not_there(tmp_path):
    with pytest.raises(KeyError), whole_folder(tmp_path / 'folder') as made:
        (made / 'a').touch()
        raise KeyError
    assert names(tmp_path) == []

"""Where results go: folders, patterns and single pictures, name clashes, results next to or below the pictures."""

import errno
import os
from pathlib import Path

import pytest

from earn_plugin.errors import UsageError
from earn_plugin.inference.targets import find_targets


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def create(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(source: str, target: str, *settings) -> dict[str, str]:
    return {str(item.source): str(item.path) for item in find_targets(Path(source), Path(target), *settings)}


def test_a_tree():
    create('in/a.png', 'in/b.JPG', 'in/sub/c.tiff', 'in/sub/.hidden.png', 'in/.thumbs/d.png', 'in/notes.txt')
    assert found('in', 'out') == {
        'in/a.png': 'out/a.png',
        'in/b.JPG': 'out/b.JPG',
        'in/sub/c.tiff': 'out/sub/c.tiff',
    }
    assert found('in', 'out', 'jpeg', '_x4') == {
        'in/a.png': 'out/a_x4.jpg',
        'in/b.JPG': 'out/b_x4.JPG',
        'in/sub/c.tiff': 'out/sub/c_x4.jpg',
    }


def test_links_are_followed_but_not_in_circles():
    create('in/a.png', 'elsewhere/b.png')
    Path('in/linked').symlink_to('../elsewhere')
    Path('in/circle').symlink_to('.')
    assert list(found('in', 'out')) == ['in/a.png', 'in/linked/b.png']


def test_a_folder_that_cannot_be_read_is_not_skipped_silently(monkeypatch):
    create('in/a.png', 'in/sub/b.png')
    scandir = os.scandir

    def refuse(path):  # as the system does unless the user is root
        if Path(path).name == 'sub':
            raise PermissionError(errno.EACCES, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    assert list(found('in', 'out')) == ['in/a.png', 'in/sub']


@pytest.mark.parametrize('source', ['in', 'in/**/*.png', 'in/**/*'])
def test_results_below_the_pictures_are_no_pictures(source):
    create('in/a.png', 'in/x4/a.png', 'in/sub/b.png')
    assert sorted(found(source, 'in/x4').values()) == ['in/x4/a.png', 'in/x4/sub/b.png']


@pytest.mark.parametrize('source', ['in', 'in/*'])
@pytest.mark.parametrize('kind', [None, 'webp'])
def test_results_next_to_the_pictures_are_no_pictures(source, kind):
    create('in/a.png', 'in/a_x4.png', 'in/a_x4.webp')
    assert list(found(source, 'in', kind, '_x4')) == ['in/a.png']


def test_patterns():
    create('in/a.png', 'in/b.jpg', 'in/sub/c.png', 'in/x[1].png')
    assert found('in/*.png', 'out') == {'in/a.png': 'out/a.png', 'in/x[1].png': 'out/x[1].png'}
    assert found('in/**/*.png', 'out')['in/sub/c.png'] == 'out/sub/c.png'
    assert found('in/x[1].png', 'out') == {'in/x[1].png': 'out/x[1].png'}  # a file of that name comes first


def test_a_single_picture():
    create('a.png', 'photo', 'old.png')
    assert found('a.png', 'b.jpg') == {'a.png': 'b.jpg'}
    assert found('a.png', 'old.png') == {'a.png': 'old.png'}
    assert found('a.png', 'out') == {'a.png': 'out/a.png'}
    assert found('photo', 'out') == {'photo': 'out/photo.png'}
    Path('folder.png').mkdir()
    assert found('a.png', 'folder.png') == {'a.png': 'folder.png/a.png'}


@pytest.mark.parametrize(
    ('source', 'target', 'settings', 'message'),
    [
        ('missing', 'out', (), 'missing does not exist'),
        ('in/*.gif', 'out', (), 'no pictures in'),
        ('empty', 'out', (), 'no pictures in empty'),
        ('in', 'out', ('png',), r'in/a.jpg and in/a.png → out/a.png'),
        ('in', 'in', (), 'would replace the picture'),
        ('in/a.png', 'in/a.png', (), 'would replace the picture'),
        ('in/a.png', 'in/a.jpg', (), None),
        ('in', 'out.png', (), 'for several pictures name a folder'),
        ('in/a.png', 'out.bmp', (), 'possible are png, jpeg, webp, tiff'),
        ('in/a.png', 'out.jpg', ('png',), 'is a file name'),
        ('in/a.png', 'out.jpg', (None, '_x4'), 'is a file name'),
        ('in', 'out', (None, 'x/4'), 'slash'),
        ('in', 'in/notes.txt', (), 'cannot be written to'),
    ],
)
def test_mistakes_are_found_before_any_work(source, target, settings, message):
    create('in/a.png', 'in/a.jpg', 'in/notes.txt', 'empty/notes.txt')
    if message is None:
        assert found(source, target, *settings)
        return
    with pytest.raises(UsageError, match=message):
        found(source, target, *settings)

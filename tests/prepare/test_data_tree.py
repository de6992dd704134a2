from pathlib import Path

import pytest
from filelock import FileLock

from earn_plugin import cli
from tests.helpers.command import command
from tests.helpers.published import cut_in_half, lmdb_lines, prepare, unpack

PARTS = 'DIV2K_train_HR', 'DIV2K_train_LR_bicubic_X2'


def in_tree(downloads: Path, *names: str) -> None:
    unpack(downloads, *names)
    Path('datasets').mkdir()
    downloads.rename('datasets/DIV2K')


def test_output_of_a_process(downloads):
    printed = command('prepare', 'voc2012', 'Downloads', '--scales', '2', '--allow-missing', cwd=downloads.parent)
    assert ' created' in printed
    assert 'image/s' not in printed  # no progress bar where there is no terminal
    assert not list(Path('datasets').rglob('.intermediate*'))


def test_in_place(downloads, capsys):
    in_tree(downloads, *PARTS)
    prepare('div2k', 'datasets/DIV2K', '--scales', 2, capsys=capsys)
    assert not Path('datasets/DIV2K/DIV2K_train_HR').is_symlink()
    assert not Path('datasets/DIV2K/DIV2K_train_HR/0001.png').is_symlink()
    assert len(lmdb_lines('DIV2K/DIV2K_train_LR_bicubic_X2_sub.lmdb')) == 5


def test_existing_images_are_counted(downloads, capsys):
    in_tree(downloads, PARTS[0])
    Path('datasets/DIV2K/DIV2K_train_HR/0002.png').rename('datasets/DIV2K/DIV2K_train_HR/0009.png')
    printed = prepare('div2k', 'datasets/DIV2K', '--scales', 2, capsys=capsys, expect=1)
    assert 'DIV2K_train_HR: 1 images do not belong to this set, move them: 0009.png' in printed
    Path('datasets/DIV2K/DIV2K_train_HR/0009.png').unlink()
    printed = prepare('div2k', 'datasets/DIV2K', '--scales', 2, capsys=capsys, expect=1)
    assert 'DIV2K_train_HR: 1 of 3 images are missing: 0002.png' in printed
    assert not Path('datasets/DIV2K/DIV2K_train_HR_sub.lmdb').exists()


def test_existing_cut_off_image_is_named(downloads, capsys):
    in_tree(downloads, *PARTS)
    cut_in_half(Path('datasets/DIV2K/DIV2K_train_LR_bicubic/X2/0002x2.png'))
    printed = prepare('div2k', 'datasets/DIV2K', '--scales', 2, capsys=capsys, expect=1)
    assert 'X2/0002x2.png is cut off' in printed
    assert not Path('datasets/DIV2K/DIV2K_train_LR_bicubic_X2_sub.lmdb').exists()


def test_second_run_is_refused(downloads, capsys):
    Path('datasets').mkdir()
    with FileLock('datasets/.prepare.lock'):
        printed = prepare('div2k', downloads, capsys=capsys, expect=1)
    assert 'another basicsr prepare works in datasets' in printed


@pytest.mark.parametrize(('arguments', 'code', 'message'), [
    (['nowhere'], 1, 'nowhere is neither a folder nor an archive'),
    (['Downloads', '--jobs', '0'], 2, 'jobs must be at least 1, got 0'),
    (['Downloads', '--out', 'Downloads/benchmark.tar'], 1, 'Downloads/benchmark.tar: File exists'),
])  # fmt: skip
def test_mistakes(downloads, capsys, arguments, code, message):
    assert message in prepare('div2k', *arguments, capsys=capsys, expect=code)


@pytest.mark.parametrize(('what', 'scale'), [('flickr2k', 8), ('voc2012', 8), ('div2k', 5)])
def test_unknown_scale(what, scale, capsys):
    with pytest.raises(SystemExit) as leave:
        cli.main(['prepare', what, '.', '--scales', str(scale)])
    assert leave.value.code == 2

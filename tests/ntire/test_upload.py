import io
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from earn_plugin import cli
from earn_plugin.convert.networks import NetworkChoice, find_network
from earn_plugin.data.image_files import read_image
from earn_plugin.errors import UsageError, UserError
from earn_plugin.ntire.official_run import to_image, to_tensor
from earn_plugin.ntire.upload import Upload, check_lr, names_in_zip, verify, write_upload
from tests.helpers.images import photograph

CPU = torch.device('cpu')


@pytest.fixture
def lr_dir(tmp_path):
    folder = tmp_path / 'lr'
    folder.mkdir()
    for index, size in enumerate([(13, 22), (9, 7), (16, 16)]):
        cv2.imwrite(str(folder / f'{901 + index:04}x4.png'), photograph(*size, index))
    (folder / 'notes.txt').write_text('no image')
    (folder / '.DS_Store').write_text('no image')
    return folder


def network():
    torch.manual_seed(0)
    return find_network(NetworkChoice('LGVAN', {'num_feat': 4, 'num_block': 1}))


@pytest.mark.parametrize('names', ['lr', 'hr'])
def test_the_upload(tmp_path, lr_dir, names):
    out = tmp_path / 'made/upload.zip'
    found = network()
    readme = {'runtime': 0.008, 'extra_data': True, 'description': 'LGVAN, 4 features'}
    report = write_upload(found, Upload(lr_dir, out, CPU, names, trained=False, **readme))
    assert '3 PNGs and readme.txt, verified' in report
    with zipfile.ZipFile(out) as archive:
        suffix = '' if names == 'hr' else 'x4'
        assert archive.namelist() == [*(f'{number:04}{suffix}.png' for number in (901, 902, 903)), 'readme.txt']
        assert archive.read('readme.txt').decode() == (
            'runtime per image [s] : 0.0080\n'
            'CPU[1] / GPU[0] : 1\n'
            'Extra Data [1] / No Extra Data [0] : 1\n'
            'Other description : LGVAN, 4 features\n'
        )
        image = cv2.imdecode(np.frombuffer(archive.read(f'0901{suffix}.png'), np.uint8), cv2.IMREAD_UNCHANGED)
    with torch.no_grad():
        expected = to_image(found.network(to_tensor(read_image(lr_dir / '0901x4.png'), 1.0, CPU)), 1.0)
    assert np.array_equal(image, expected)
    assert [path.name for path in out.parent.iterdir()] == ['upload.zip']


def test_from_the_command_line(tmp_path, lr_dir, capsys):
    words = ['ntire', 'zip', '--model', 'LGVAN', '--set', 'num_feat=4', 'num_block=1', '--lr-dir', str(lr_dir)]
    assert cli.main([*words, '--out', f'{tmp_path}/x.zip', '--device', 'cpu']) == 0
    printed = capsys.readouterr().out
    assert 'Extra Data [1] / No Extra Data [0] : 0' in printed
    with zipfile.ZipFile(tmp_path / 'x.zip') as archive:
        runtime = float(archive.read('readme.txt').split()[5])
    assert 0 < runtime < 10
    assert f'{runtime:.4f} s per image on cpu' in printed
    assert cli.main([*words, '--out', 'x.tar']) == 2
    assert capsys.readouterr().err.startswith('basicsr ntire zip: --out x.tar: the upload is a zip')


def test_files_that_are_left_out(tmp_path, lr_dir, capsys):
    (lr_dir / '0903x4.png').rename(lr_dir / '0903x4.PNG')  # included
    (lr_dir / '0904x4.gif').write_bytes(b'GIF89a')
    (lr_dir / 'more').mkdir()
    report = write_upload(network(), Upload(lr_dir, tmp_path / 'x.zip', CPU, trained=False))
    assert '3 PNGs' in report
    printed = capsys.readouterr().err
    assert printed.splitlines()[0].startswith('warning: not a checkpoint: these are initial weights')
    assert printed.count('\n') == 2
    assert 'warning: left out of the upload: 0904x4.gif, more, notes.txt in' in printed


@pytest.mark.parametrize('hr', ['DIV2K_LSDIR_test_HR', 'hr_images', 'testHR', 'GT', 'photos'])
def test_a_folder_of_hr_images(tmp_path, lr_dir, hr):
    """By its name, or by the LR images next to it."""
    folder = tmp_path / hr / '..' / hr
    (tmp_path / hr).mkdir()
    for path in lr_dir.glob('*.png'):
        height, width = cv2.imread(str(path)).shape[:2]
        cv2.imwrite(str(folder / path.name.replace('x4', '')), photograph(4 * height + 1, 4 * width + 2))
    for name in ('0901x4.png', '0901.png'):
        (lr_dir / '0901x4.png').rename(lr_dir / name)
        with pytest.raises(UsageError, match=rf'--lr-dir .*{hr} seems to have the HR images; .* such as .*lr$'):
            write_upload(network(), Upload(folder, tmp_path / 'x.zip', CPU, trained=False))
    for path in lr_dir.iterdir():
        path.unlink()
    images = names_in_zip(folder, 'lr')
    if hr == 'photos':
        assert check_lr(folder, images) == []
    else:
        with pytest.raises(UsageError, match='seems to have the HR images'):
            check_lr(folder, images)


def test_images_as_large_as_hr_images(tmp_path):
    (tmp_path / 'photos').mkdir()
    cv2.imwrite(str(tmp_path / 'photos/0901.png'), np.zeros((20, 1020, 3), np.uint8))
    (warning,) = check_lr(tmp_path / 'photos', names_in_zip(tmp_path / 'photos', 'lr'))
    assert '0901.png is 20×1020, large for an LR image, and its output will be 4 times as large: does' in warning


def test_lr_images_without_x4(tmp_path, lr_dir):
    """As in the test sets of 2022 and 2023, which may be next to those of later years."""
    folder = tmp_path / 'DIV2K_test_LR'
    folder.mkdir()
    (folder / '0901.png').write_bytes((lr_dir / '0901x4.png').read_bytes())
    assert check_lr(folder, names_in_zip(folder, 'lr')) == []


def test_two_images_of_one_name(lr_dir):
    os.link(lr_dir / '0901x4.png', lr_dir / '0901.png')
    assert len(names_in_zip(lr_dir, 'lr')) == 4
    with pytest.raises(UserError, match=r'two images would be 0901\.png'):
        names_in_zip(lr_dir, 'hr')


def test_no_images(tmp_path):
    with pytest.raises(UserError, match='has no images'):
        names_in_zip(tmp_path, 'lr')
    with pytest.raises(UserError, match='is not a folder'):
        names_in_zip(tmp_path / 'none', 'lr')


def test_a_damaged_image_leaves_nothing(tmp_path, lr_dir):
    (lr_dir / '0902x4.png').write_bytes(b'no image')
    out = tmp_path / 'made/upload.zip'
    with pytest.raises(UserError, match=r'0902x4\.png cannot be decoded'):
        write_upload(network(), Upload(lr_dir, out, CPU, trained=False))
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        *[({'description': text}, '--description must be one line') for text in ('a\nb', 'a\n', 'a\rb', 'a\u2028b')],
        *[({'runtime': runtime}, 'seconds per image') for runtime in (-1.0, 0.0, float('nan'), float('inf'))],
    ],
)
def test_values_that_the_readme_cannot_have(given, message):
    with pytest.raises(UsageError, match=message):
        Upload(Path(), Path('x.zip'), CPU, **given)


README = Upload(Path(), Path('x.zip'), CPU).readme(1.0)


def zip_with(changes: dict) -> io.BytesIO:
    """An upload of one image, 8×12, with changed files; None for a missing one."""
    files = {
        'a.png': photograph(8, 12),
        'readme.txt': README.encode(),
        **changes,
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w') as archive:
        for name, content in files.items():
            if isinstance(content, np.ndarray):
                content = cv2.imencode('.png', content)[1].tobytes()
            if content is not None:
                archive.writestr(name, content)
    return packed


def test_a_valid_zip():
    verify(zip_with({}), {'a.png': (8, 12)}, README)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'sub/b.png': b''}, r'see sub/b\.png'),
        ({'a.png': None}, r'see a\.png'),
        ({'a.png': photograph(8, 9)}, r'a\.png in the zip must be \(8, 12, 3\), got \(8, 9, 3\)'),
        ({'a.png': photograph(8, 12)[..., 0]}, r'a\.png in the zip .* got \(8, 12\)'),
        ({'a.png': b'damaged'}, r'a\.png in the zip .* got None'),
        ({'readme.txt': b'runtime per image [s] : 1\n'}, 'four lines'),
    ],
)
def test_an_invalid_zip(changes, message):
    with pytest.raises(UserError, match=message):
        verify(zip_with(changes), {'a.png': (8, 12)}, README)

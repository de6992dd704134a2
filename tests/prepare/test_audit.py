import json
import shutil

import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image

from earn_plugin.cli import main
from earn_plugin.errors import UserError
from earn_plugin.prepare.audit import audit_datasets
from tests.helpers.command import command
from tests.helpers.images import make_lmdbs, photograph, write_pairs
from tests.helpers.options import write_options


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Eight pairs ×2 in HR and LR, under the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_pairs(tmp_path, 8)


@pytest.fixture
def check(capsys):
    """Runs prepare check; returns what it prints, and a dict of file → problem."""

    def run(*arguments, expect=1):
        assert main(['prepare', 'check', *map(str, arguments)]) == expect
        printed = capsys.readouterr().out
        rows = [line.strip().split('  ', 1) for line in printed.splitlines() if line.startswith('  ')]
        return printed, {row[0]: row[1].strip() for row in rows}

    return run


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def test_one_report_names_every_problem(tmp_path):
    write_pairs(tmp_path, 11, scale=4)
    hr, lr = tmp_path / 'HR', tmp_path / 'LR'
    content = (hr / 'im00.png').read_bytes()
    (hr / 'im00.png').write_bytes(content[: len(content) // 2])
    (hr / 'im01.png').write_text('not an image')
    Image.open(hr / 'im02.png').convert('L').save(hr / 'im02.png')
    cv2.imwrite(str(hr / 'im03.png'), photograph(96, 112).astype(np.uint16) * 257)
    Image.open(hr / 'im04.png').convert('RGBA').save(hr / 'im04.png')
    for folder in (hr, lr):
        Image.open(folder / 'im05.png').convert('CMYK' if folder == hr else 'RGB').save(folder / 'im05.jpg')
        (folder / 'im05.png').unlink()
        (folder / 'im08.png').rename(folder / 'mein Bild ü.png')
    cv2.imwrite(str(lr / 'im06.png'), photograph(20, 28))
    (lr / 'im07.png').unlink()
    flip(hr / 'im09.png')
    printed = command('prepare', 'check', 'HR', 'LR', cwd=tmp_path, expect=1)
    rows = [line.strip().split('  ', 1) for line in printed.splitlines() if line.startswith('  ')]
    expected = [
        ('HR/im00.png', 'is cut off: the PNG does not end'),
        ('HR/im01.png', 'is not an image'),
        ('HR/im02.png', 'is grey; BasicSR reads it as 8-bit RGB'),
        ('HR/im03.png', 'is 16-bit RGB; BasicSR reads it as 8-bit RGB'),
        ('HR/im04.png', 'is RGBA; BasicSR reads it as 8-bit RGB'),
        ('HR/im05.jpg', 'is CMYK; BasicSR reads it as 8-bit RGB'),
        ('HR/im06.png', 'is 96×112, but ×4 of LR/im06.png (20×28) is 80×112'),
        ('HR/im09.png', "is damaged: broken PNG file (bad header checksum in b'IDAT')"),
        ('HR/mein Bild ü.png', "has a space in its name: BasicSR's meta_info files end a name at a space"),
        ('HR/mein Bild ü.png', "is not an ASCII name: BasicSR's LMDB and cv2 on Windows do not accept it"),
        ('LR/im07.png', 'is missing: HR/im07.png needs it'),
        ('LR/mein Bild ü.png', "has a space in its name: BasicSR's meta_info files end a name at a space"),
        ('LR/mein Bild ü.png', "is not an ASCII name: BasicSR's LMDB and cv2 on Windows do not accept it"),
    ]
    assert [(row[0], row[1].strip()) for row in rows] == expected
    assert 'warning: HR and LR: scale 4, which fits 6 of 7 pairs' in printed
    assert printed.splitlines()[-1] == '21 images, 10 pairs, 13 problems'


def test_valid_data_sets_of_an_options_file(tiny, tmp_path):
    other = write_pairs(tmp_path / 'other', 3)
    for folder in ('HR', 'LR'):
        for index, path in enumerate(sorted((other / folder).iterdir())):
            cv2.imwrite(
                str(path), photograph(48, 56, 100 + index)[:: 1 if folder == 'HR' else 2, :: 1 if folder == 'HR' else 2]
            )
    roots = {'dataroot_gt': str(other / 'HR'), 'dataroot_lq': str(other / 'LR')}
    tiny['datasets']['val'].update(roots, io_backend={'type': 'disk'})
    printed = command('prepare', 'check', write_options(tmp_path, tiny), cwd=tmp_path)
    assert printed == '18 images, 9 pairs, 0 problems\n'


def test_training_images_that_are_test_images_are_named(root, tiny, tmp_path, check):
    """The fixture trains and validates on one LMDB."""
    printed, found = check(write_options(tmp_path, tiny))
    assert len(found) == 12
    assert found[f'{tiny["datasets"]["train"]["dataroot_gt"]}:im03'] == 'is also a test image'
    assert printed.startswith('train: 12 problems')


def test_against_test_images_in_another_format(root, check):
    (root / 'test').mkdir()
    cv2.imwrite('test/copy.bmp', cv2.imread('HR/im02.png'))
    cv2.imwrite('test/grey.png', np.zeros((48, 56, 3), np.uint8))
    cv2.imwrite('HR/im05.png', np.zeros((48, 56, 3), np.uint8))  # images of one colour do not count as the same
    _, found = check('HR', 'LR', '--against', 'test')
    assert found == {'HR/im02.png': 'is also a test image: test/copy.bmp'}
    assert check('HR', '--against', 'test')[1] == found


def test_repeated_images_are_only_a_warning(root, check):
    for folder in ('HR', 'LR'):
        shutil.copy(f'{folder}/im02.png', f'{folder}/im05.png')
    printed, _ = check('HR', 'LR', '--scale', 2, expect=0)
    assert 'warning: HR/im05.png is the same image as im02.png' in printed
    assert printed.count('warning') == 1


def test_scale_is_found_or_requested(root, check):
    assert 'scale 2, which fits 8 of 8 pairs' in check('HR', 'LR', expect=0)[0]
    assert len(check('HR', 'LR', '--scale', 3)[1]) == 8
    for index in range(5):
        cv2.imwrite(f'LR/im{index:02d}.png', photograph(48 // (index + 3), 56 // (index + 3)))
    assert check('HR', 'LR')[1] == {'HR': 'has no scale that fits most LR images: give the scale'}


def test_sizes_that_are_not_multiples_are_for_validation_only(root, check):
    cv2.imwrite('HR/im01.png', photograph(49, 57))
    assert check('HR', 'LR')[1] == {'HR/im01.png': 'is 49×57, but ×2 of LR/im01.png (24×28) is 48×56'}
    check('HR', 'LR', '--phase', 'val', expect=0)


def test_names(root, check):
    (root / 'HR/im00.png').rename('HR/a.b.png')
    (root / 'HR/im01.png').rename('HR/IM02.png')
    cv2.imwrite('HR/im03.bmp', photograph(8, 8))
    (root / 'HR/.hidden').write_text('ignored, as in BasicSR')
    _, found = check('HR')
    assert set(found) == {'HR/a.b.png', 'HR/im02.png', 'HR/im03.png'}
    assert 'has a dot in its name' in found['HR/a.b.png']
    assert found['HR/im02.png'] == 'has the same name as IM02.png on Windows and macOS'
    assert found['HR/im03.png'] == 'has the same name as im03.bmp as LMDB keys'


def test_template_and_leftovers(root, check):
    for path in sorted((root / 'LR').iterdir()):
        path.rename(path.with_name(f'{path.stem}x2.png'))
    _, found = check('HR', 'LR')
    needs = "im00.png needs im00.png, but the names are like im00x2.png (filename_tmpl is '{}')"
    assert found == {'HR': f'has no pair in LR: {needs}'}
    check('HR', 'LR', '--filename_tmpl', '{}x2', expect=0)
    (root / 'HR/im04.png').unlink()
    assert check('HR', 'LR', '--filename_tmpl', '{}x2')[1] == {'LR/im04x2.png': 'has no HR image in HR'}


def put(path, key, value):
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as writing:
        writing.put(key, value) if value is not None else writing.delete(key)


def test_lmdbs(root, check):
    make_lmdbs(root)
    check('HR.lmdb', 'LR.lmdb', expect=0)
    for lmdb_folder in ('HR.lmdb', 'LR.lmdb'):
        (root / lmdb_folder / '.manifest.json').unlink()
    content = (root / 'HR/im01.png').read_bytes()
    put('HR.lmdb', b'im00', content[:-20])
    put('HR.lmdb', b'im02', cv2.imencode('.png', photograph(50, 56))[1].tobytes())
    put('HR.lmdb', b'im03', None)
    put('HR.lmdb', b'more', content)
    with (root / 'LR.lmdb/meta_info.txt').open('a') as file:
        file.write('a (1).png (24,28,3) 1\n')
    _, found = check('HR.lmdb', 'LR.lmdb', '--phase', 'val', '--scale', 2)
    assert found.pop('HR.lmdb:more').startswith('is stored but not listed')
    assert found.pop('LR.lmdb:a (1)') in ('is missing: meta_info names it', 'has no HR image in HR.lmdb')
    assert found == {
        'HR.lmdb:im00': 'is cut off: the PNG does not end',
        'HR.lmdb:im02': 'is 50×56, but ×2 of LR.lmdb:im02 (24×28) is 48×56',
        'HR.lmdb:im03': 'is missing: meta_info names it',
    }


def test_wrong_shape_in_meta_info(root, check):
    make_lmdbs(root)
    put('LR.lmdb', b'im02', cv2.imencode('.png', photograph(12, 14))[1].tobytes())
    (root / 'LR.lmdb/.manifest.json').unlink()
    assert check('LR.lmdb')[1] == {'LR.lmdb:im02': 'is 12×14, but meta_info.txt says 24×28'}


def test_manifest(root, check):
    make_lmdbs(root)
    put('HR.lmdb', b'im02', (root / 'HR/im01.png').read_bytes())
    _, found = check('HR.lmdb', 'LR.lmdb', '--scale', 2)
    assert set(found) == {'HR.lmdb:im02'}
    assert found['HR.lmdb:im02'].startswith('was changed: ')
    files = {path.name: [path.stat().st_size, '0' * 64] for path in (root / 'HR').iterdir()}
    del files['im03.png']
    files['im99.png'] = [1, '']
    manifest = {'recipe': {}, 'files': files, 'count': len(files), 'bytes': sum(size for size, _ in files.values())}
    (root / 'HR/.manifest.json').write_text(json.dumps(manifest))
    _, found = check('HR')
    assert found.pop('HR/im03.png') == 'was added: it is not in the manifest'
    assert found.pop('HR/im99.png') == 'is missing: it is in the manifest'
    assert len(found) == 7
    assert all(what.startswith('was changed: ') and '00000000…' in what for what in found.values())
    (root / 'HR/.manifest.json').write_text(json.dumps({**manifest, 'count': 3}))
    assert 'is damaged' in check('HR')[1]['HR']
    (root / 'HR/.manifest.json').write_text('{')
    assert 'is damaged' in check('HR')[1]['HR']


def test_meta_info_file_selects_images(root):
    (root / 'chosen.txt').write_text('im01.png (48,56,3)\nim09.png (48,56,3)\n')
    roots = {'dataroot_gt': 'HR', 'dataroot_lq': 'LR', 'meta_info_file': 'chosen.txt'}
    report = audit_datasets([{'name': 'set', 'type': 'PairedImageDataset', 'phase': 'train', 'scale': 2, **roots}])
    assert [str(problem) for _, problems in report.problems for problem in problems] == [
        'HR/im09.png is missing: meta_info names it',
        'LR/im09.png is missing: meta_info names it',
    ]


def test_folders_of_clips_are_searched(root):
    (root / 'clips').mkdir()
    (root / 'HR').rename('clips/000')
    flip(root / 'clips/000/im03.png')
    report = audit_datasets([{'name': 'clips', 'type': 'VideoTestDataset', 'phase': 'val', 'dataroot_gt': 'clips'}])
    assert report.images == 8
    assert [problem.where for _, problems in report.problems for problem in problems] == ['clips/000/im03.png']


def test_wrong_usage(root, tiny, tmp_path, capsys):
    def error(*arguments, code=2):
        assert main(['prepare', 'check', *map(str, arguments)]) == code
        return capsys.readouterr().err

    assert 'there is no folder nowhere; nowhere is neither' in error('nowhere')
    assert 'there is no folder nowhere' in error('nowhere', 'LR')
    assert 'there is no folder nowhere' in error('HR', 'nowhere', code=1)
    assert 'there is no folder nowhere' in error('HR', '--against', 'nowhere', code=1)
    assert '--scale must be at least 1' in error('HR', 'LR', '--scale', 0)
    assert 'pass the LR folder' in error('HR', '--scale', 2)
    assert 'pass the LR folder' in error('HR', '--phase', 'val')
    assert "filename_tmpl must be like '{}x4', got '{1}'" in error('HR', 'LR', '--filename_tmpl', '{1}', code=1)
    options = write_options(tmp_path, tiny)
    assert 'an options file has its own' in error(options, '--scale', 2)
    tiny['datasets']['train']['dataroot_gt'] = 'nowhere.lmdb'
    assert 'nowhere.lmdb does not exist' in error(write_options(tmp_path, tiny))
    (root / 'empty.lmdb').mkdir()
    assert 'it has no data.mdb' in error('empty.lmdb', code=1)
    for file in ('data.mdb', 'meta_info.txt'):
        (root / 'empty.lmdb' / file).write_bytes(b'im.png (1,2,3) 1')
    assert 'empty.lmdb cannot be read' in error('empty.lmdb', code=1)
    with pytest.raises(UserError, match='both be folders'):
        make_lmdbs(root)
        audit_datasets(
            [{'name': 's', 'type': 'PairedImageDataset', 'phase': '', 'dataroot_gt': 'HR', 'dataroot_lq': 'LR.lmdb'}]
        )


def test_broken_links(root, check):
    for name, target in (('gone.png', 'moved/gone.png'), ('loop.png', 'loop.png')):
        (root / 'HR' / name).symlink_to(target)
    found = check('HR', 'LR')[1]
    assert found == dict.fromkeys(('HR/gone.png', 'HR/loop.png'), 'is a broken link')


def test_hr_alone_reads_no_lr(root):
    (root / 'LR/im00.png').write_text('not an image')
    opt = {'name': 's', 'type': 'BicubicPairDataset', 'phase': 'train', 'scale': 2}
    assert not audit_datasets([{**opt, 'dataroot_gt': 'HR', 'dataroot_lq': 'LR'}]).count


def test_meta_info_file_that_is_a_folder(root):
    opt = {'name': 's', 'type': 'SingleImageDataset', 'phase': 'test', 'dataroot_lq': 'LR', 'meta_info_file': 'HR'}
    with pytest.raises(UserError, match='data set s: HR cannot be read: Is a directory'):
        audit_datasets([opt])


def test_empty_folder_is_a_problem(root, check):
    (root / 'none').mkdir()
    assert check('none')[1] == {'none': 'is empty: it has no images'}


def test_cut_off_lmdb(root):
    make_lmdbs(root)
    content = (root / 'HR.lmdb/data.mdb').read_bytes()
    for length in (len(content) - 1, len(content) // 2, 8192, 5000, 4096, 200, 0):
        (root / 'HR.lmdb/data.mdb').write_bytes(content[:length])
        with pytest.raises(UserError, match=r'HR\.lmdb.* is cut off'):
            audit_datasets([{'name': 's', 'type': 'SingleImageDataset', 'phase': 'test', 'dataroot_lq': 'HR.lmdb'}])


def test_hr_alone_must_be_as_large_as_the_crop(root):
    opt = {'name': 's', 'type': 'BicubicPairDataset', 'phase': 'train', 'scale': 5, 'dataroot_gt': 'HR'}
    height = min(cv2.imread(str(path)).shape[0] for path in (root / 'HR').iterdir())
    assert not audit_datasets([{**opt, 'gt_size': height - height % 5}]).count
    problems = audit_datasets([{**opt, 'gt_size': height - height % 5 + 1}]).problems[0][1]
    assert problems
    assert all('smaller than gt_size' in problem.what for problem in problems)

import shutil

import pytest

from earn_plugin.errors import UserError
from earn_plugin.ntire.image_pairs import check_path, find_pairs
from earn_plugin.ntire.years import find_year
from tests.helpers.ntire_trees import write_tree

LAYOUT_OF = [
    (2022, 'valid', 'DIV2K_valid'),
    (2022, 'test', 'DIV2K_test'),
    (2023, 'valid', 'DIV2K_valid'),
    (2023, 'test', 'DIV2K_test'),
    (2023, 'hybrid_test', 'hybrid_test'),
    *[(year, 'valid', 'mixed_valid') for year in (2024, 2025, 2026)],
    *[(year, 'test', 'mixed_test') for year in (2024, 2025, 2026)],
]


def pairs_of(root, year, split, limit=None, track='efficient'):
    return find_pairs(root, find_year(year, track).splits[split], split, limit)


@pytest.mark.parametrize(('year', 'split', 'layout'), LAYOUT_OF)
def test_the_layout_of_each_year(tmp_path, year, split, layout):
    pairs, warnings = pairs_of(write_tree(tmp_path, layout), year, split)
    assert len(pairs) == 3
    assert all(pair.lr.is_file() for pair in pairs)
    assert [pair.hr for pair in pairs] == sorted(pair.hr for pair in pairs)
    assert any('3 of the official' in warning for warning in warnings) == (
        layout.startswith('DIV2K') or split == 'valid'
    )


def test_a_limit(tmp_path):
    pairs, warnings = pairs_of(write_tree(tmp_path, 'mixed_test'), 2026, 'test', limit=2)
    assert [pair.hr.name for pair in pairs] == ['000001.png', '000002.png']
    assert warnings == ['--limit: 2 of the 3 images of test']


@pytest.mark.parametrize(('year', 'layout', 'stem'), [(2022, 'DIV2K_valid', '0804'), (2026, 'mixed_valid', '000004')])
def test_images_that_the_official_script_does_not_find(tmp_path, year, layout, stem):
    root = write_tree(tmp_path, layout)
    (hr,) = root.glob('*_HR')
    for name in (f'{stem}.PNG', 'a.jpg'):
        (hr / name).write_bytes(next(hr.glob('*.png')).read_bytes())
    pairs, warnings = pairs_of(root, year, 'valid')
    assert len(pairs) == 3
    assert f'{hr}: not measured, as by the official script: {stem}.PNG, a.jpg' in warnings[0]


def test_quality_uses_the_layout_that_exists(tmp_path):
    for layout in ('DIV2K_valid', 'mixed_valid'):
        pairs, _ = pairs_of(write_tree(tmp_path / layout, layout), 2025, 'valid', track='quality')
        assert len(pairs) == 3


def test_an_empty_data_folder(tmp_path):
    with pytest.raises(UserError, match=r'DIV2K_valid_HR does not exist.*DIV2K_valid_LR/NAMEx4\.png'):
        pairs_of(tmp_path, 2022, 'valid')
    (tmp_path / 'DIV2K_valid_HR').mkdir()
    (tmp_path / 'DIV2K_valid_LR').mkdir()
    with pytest.raises(UserError, match='DIV2K_valid_HR has no PNG images;'):
        pairs_of(tmp_path, 2022, 'valid')
    (tmp_path / 'DIV2K_valid_HR/cat.png').touch()
    with pytest.raises(UserError, match=r'no PNG images named 0801\.png to 0900\.png'):
        pairs_of(tmp_path, 2022, 'valid')


def test_missing_lr_images(tmp_path):
    write_tree(tmp_path, 'mixed_valid')
    (tmp_path / 'DIV2K_LSDIR_valid_LR/000002x4.png').unlink()
    with pytest.raises(UserError, match=r'1 LR images of .* the first is .*000002x4\.png'):
        pairs_of(tmp_path, 2024, 'valid')
    hr = tmp_path / 'DIV2K_LSDIR_valid_HR/000002.png'
    hr.unlink()
    hr.symlink_to('nowhere.png')
    with pytest.raises(UserError, match=r'000002\.png is a broken link'):
        pairs_of(tmp_path, 2024, 'valid')


def test_paths_that_break_the_official_script():
    (warning,) = check_path('/a/photos_HR/x', find_year(2026), ('valid',))
    assert '/a/photos_LR/x' in warning
    assert check_path('/a/b.png/x', find_year(2023), ('hybrid_test',))
    assert not check_path('/a/photos_HR/x', find_year(2022), ('valid',))  # its script has no such rule
    assert not check_path('/a/photos/x', find_year(2026), ('valid',))


def test_the_names_of_2024_in_its_first_scripts(tmp_path):
    write_tree(tmp_path, 'hybrid_test')
    for part in ('HR', 'LR'):
        shutil.copytree(tmp_path / f'LSDIR_DIV2K_test_{part}', tmp_path / f'LSDIR_DIV2K_valid_{part}')
    for split in ('valid', 'test'):
        pairs, _ = pairs_of(tmp_path, 2024, split)
        assert [pair.hr.parent.name for pair in pairs] == [f'LSDIR_DIV2K_{split}_HR'] * 3
    with pytest.raises(UserError, match='DIV2K_LSDIR_valid_HR does not exist'):
        pairs_of(tmp_path, 2025, 'valid')

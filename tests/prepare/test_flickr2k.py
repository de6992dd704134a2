from pathlib import Path

from tests.helpers.published import lmdb_lines, prepare


def test_flickr2k_with_div2k(downloads, capsys):
    prepare('flickr2k', downloads, '--scales', 3, capsys=capsys)
    hr = [line.split()[0] for line in lmdb_lines('DF2K/DF2K_train_HR_sub.lmdb')]
    assert hr == [line.split()[0] for line in lmdb_lines('DF2K/DF2K_train_LR_bicubic_X3_sub.lmdb')]
    assert sorted(hr) == sorted(
        [f'{name}.png' for name in ('000001_s001', '000002_s001', '000002_s002', '0003_s001')]
        + [f'000{i}_s00{j}.png' for i in (1, 2) for j in (1, 2)]
    )
    assert 'created' not in prepare('flickr2k', downloads, '--scales', 3, capsys=capsys)


def test_flickr2k_without_div2k(downloads, capsys):
    for path in downloads.glob('DIV2K*'):
        path.unlink()
    printed = prepare('flickr2k', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'DIV2K_train_HR.zip is not in' in printed
    assert Path('datasets/Flickr2K/Flickr2K_HR/000002.png').is_file()
    assert not Path('datasets/DF2K').exists()

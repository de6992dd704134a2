import pytest

from tests.benchmarks.preparing import benchmark_prepare
from tests.helpers.images import write_pairs


def test_prepare_is_compared_with_basicsr(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write_pairs(tmp_path / 'data', 2)
    benchmark_prepare(root / 'HR', 24, 12, 2, 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('2 images, 24 sub-images of 24×24')
    assert [line.split('  ')[0] for line in lines[1:]] == ['LR ×2'] * 3 + ['sub-images'] * 3 + ['LMDB'] * 3
    assert [path.name for path in tmp_path.iterdir()] == ['data']
    with pytest.raises(SystemExit, match='as large as 100×100; use a smaller'):
        benchmark_prepare(root / 'HR', 100, 12, 2, 1)

import cv2
import pytest

from tests.benchmarks.reading import benchmark_data, dataset_of, decoding_share, make_sources, options
from tests.helpers.images import photograph


@pytest.fixture
def hr(tmp_path):
    (tmp_path / 'photographs').mkdir()
    for index, size in enumerate([(402, 384), (390, 411), (100, 100)]):  # the last is too small for a sub-image
        cv2.imwrite(str(tmp_path / f'photographs/{index}.png'), photograph(*size, index))
    return tmp_path / 'photographs'


def test_decoding_is_timed(hr, tmp_path):
    source = make_sources(hr, tmp_path / 'sources', 384)[2]
    decode = cv2.imdecode
    assert 0 < decoding_share(dataset_of(options(source, 'PairedImageDataset', 0, 1)), 4) < 1
    assert cv2.imdecode is decode


def test_table(hr, tmp_path, capsys):
    benchmark_data(hr, tmp_path, 384, 16, 0, 1)
    printed = capsys.readouterr().out.splitlines()
    rows = [line for line in printed if line.endswith('%')]
    assert len(rows) == 6
    for row in rows:
        *_, basicsr, ours, ratio, hr_alone, _, _ = row.split()
        assert min(map(float, (basicsr, ours, ratio, hr_alone))) > 0
    assert [path for path in tmp_path.iterdir() if path != hr] == []  # the data sets are removed

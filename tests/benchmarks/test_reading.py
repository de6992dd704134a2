import cv2
import pytest
import torch

from tests.benchmarks.reading import SCALE, benchmark_data, dataset_of, decoding_share, make_sources, options
from tests.helpers.images import photograph


@pytest.fixture
def hr(tmp_path):
    (tmp_path / 'photographs').mkdir()
    for index, size in enumerate([(402, 384), (390, 411), (100, 100)]):  # the last is too small for a sub-image
        cv2.imwrite(str(tmp_path / f'photographs/{index}.png'), photograph(*size, index))
    return tmp_path / 'photographs'


def test_all_sources_give_the_same_samples(tmp_path, hr):
    """A BMP LMDB is read bit for bit as one of PNG."""
    sources = {source.name: source for source in make_sources(hr, tmp_path / 'sources', 384)}
    assert len(sources) == 6
    for size in (384, 192):
        samples = []
        for name, source in sources.items():
            if not name.startswith(str(size)):
                continue
            for kind in ('PairedImageDataset', 'BicubicPairDataset'):
                opt = options(source, kind, 0, 1)
                opt['datasets']['train']['phase'] = 'val'
                dataset = dataset_of(opt)
                read = [dataset[i] for i in range(len(dataset))]
                assert len(read) == source.count >= 4
                samples.append((kind, sorted(read, key=lambda sample: sample['gt'].sum().item())))
        assert len(samples) >= 4
        for kind, read in samples:
            for sample, expected in zip(read, samples[0][1], strict=True):
                assert torch.equal(sample['gt'], expected['gt'])
                # the LR of a sub-image equals the sub-image of the LR only inside
                inside = (..., slice(2, -2), slice(2, -2)) if kind == 'BicubicPairDataset' else ...
                assert torch.equal(sample['lq'][inside], expected['lq'][inside])
        assert samples[0][1][0]['gt'].shape[-1] == samples[0][1][0]['lq'].shape[-1] * SCALE


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
    assert 'is the fastest' in printed[-1]
    assert [path for path in tmp_path.iterdir() if path != hr] == []  # the data sets are removed


def test_images_smaller_than_a_sub_image(tmp_path, hr):
    with pytest.raises(SystemExit, match='use a smaller --size'):
        make_sources(hr, tmp_path / 'sources', 480)

"""What results.json records next to its figures: against images and files whose making is known."""

import hashlib
import json

import cv2
import pytest
import torch
from basicsr.archs import build_network

import earn_plugin
from earn_plugin.data.bicubic import imresize
from earn_plugin.training.test import Duration, mean_seconds
from tests.helpers.images import photograph, write_pairs
from tests.helpers.options import write_options

METRICS = {
    'psnr': {'type': 'calculate_psnr', 'crop_border': 2, 'test_y_channel': True, 'better': 'higher'},
    'psnr_rgb': {'type': 'calculate_psnr', 'crop_border': 0},
}


@pytest.fixture
def tested(tiny, tmp_path, run_here, monkeypatch):
    """The report of a test of a random network on folders of pairs."""

    def run(**roots: tuple) -> dict:
        network = build_network(tiny['network_g'])
        torch.save({'params': network.state_dict()}, tmp_path / 'net.pth')
        del tiny['train'], tiny['logger'], tiny['val']['val_freq']
        tiny['path'] = {'pretrain_network_g': 'net.pth'}
        tiny['val']['metrics'] = METRICS
        tiny['datasets'] = {}
        for name, (hr, lr) in roots.items():
            kind = {'type': 'PairedImageDataset', 'dataroot_lq': str(lr)} if lr else {'type': 'BicubicPairDataset'}
            folder = {'name': name, 'dataroot_gt': str(hr), 'io_backend': {'type': 'disk'}}
            tiny['datasets'][f'test_{name}'] = kind | folder
        run_here('test', '-opt', write_options(tmp_path, tiny), cwd=tmp_path)
        return json.loads((tmp_path / 'results/tiny/results.json').read_text())

    return run


def test_the_protocol_is_what_the_images_show(tested, tmp_path):
    twelve = write_pairs(tmp_path / 'twelve', 2, size=(24, 30))  # HR 48×60
    even = write_pairs(tmp_path / 'even', 2, size=(25, 30))
    cv2.imwrite(str(even / 'HR/im00.png'), photograph(51, 60, 0))  # not cropped; BasicSR does it
    (symmetric := tmp_path / 'symmetric').mkdir()
    (other := tmp_path / 'other').mkdir()
    for path in (twelve / 'HR').iterdir():
        hr = cv2.imread(str(path))
        cv2.imwrite(str(symmetric / path.name), imresize(hr, 0.5, 'symmetric'))
        cv2.imwrite(str(other / path.name), cv2.resize(hr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC))
    hr = twelve / 'HR'
    report = tested(
        a=(hr, twelve / 'LR'), b=(even / 'HR', even / 'LR'), c=(hr, symmetric), d=(hr, other), e=(even / 'HR', None)
    )
    found = {name: dataset['protocol'] for name, dataset in report['datasets'].items()}
    assert {name: (protocol['hr_multiple'], protocol['lr']) for name, protocol in found.items()} == {
        'a': (12, "MATLAB's bicubic"),
        'b': (2, "MATLAB's bicubic"),
        'c': (12, "MATLAB's bicubic, symmetric border"),
        'd': (12, 'given files'),
        'e': (2, "MATLAB's bicubic"),
    }
    assert all((protocol['scale'], protocol['images']) == (2, 2) for protocol in found.values())
    given = {'type': 'calculate_psnr', 'input_order': 'HWC'}
    assert found['a']['metrics'] == {
        'psnr': {**given, 'crop_border': 2, 'test_y_channel': True},
        'psnr_rgb': {**given, 'crop_border': 0, 'test_y_channel': False},
    }


def test_seconds_are_the_wall_time_unless_others_had_the_processors():
    assert mean_seconds([Duration(2.0, 2.0), Duration(1.0, 4.0)]) == 1.5
    assert mean_seconds([Duration(2.0, 1.0), Duration(1.0, 1.0)]) is None


def test_the_network_its_file_and_the_machine(tested, tmp_path):
    root = write_pairs(tmp_path / 'data2', 1)
    report = tested(a=(root / 'HR', root / 'LR'))
    content = (tmp_path / 'net.pth').read_bytes()
    assert report['checkpoint'] == {'file': 'net.pth', 'sha256': hashlib.sha256(content).hexdigest()}
    assert report['parameters'] == sum(p.numel() for p in torch.load(tmp_path / 'net.pth')['params'].values())
    assert report['network_g'].items() >= {'type': 'EARN', 'num_feat': 16, 'upscale': 2, 'use_asca': True}.items()
    assert report['versions'] == {'earn_plugin': earn_plugin.__version__, 'torch': torch.__version__}
    assert report['device']
    assert 0 < (report['datasets']['a']['seconds_per_image'] or 1) < 60  # None on a busy machine
    assert report['path']['results_root'] == 'results/tiny'
    assert str(tmp_path) not in json.dumps(report)

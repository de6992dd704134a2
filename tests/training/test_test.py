"""`basicsr test`: table, images, JSON."""

import json
import math
import re

import cv2
import pytest
import torch
from basicsr.archs import build_network
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils.registry import DATASET_REGISTRY, METRIC_REGISTRY

from earn_plugin.data.bicubic import imresize
from tests.helpers.command import torchrun
from tests.helpers.images import contents
from tests.helpers.options import write_options


@pytest.fixture
def options(tiny, pairs, tmp_path):
    """Tests a random network on folders; the second data set has no targets."""
    torch.manual_seed(1)
    network = build_network(tiny['network_g'])
    torch.save({'params': network.state_dict()}, tmp_path / 'net.pth')
    tiny['path'] = {'pretrain_network_g': str(tmp_path / 'net.pth')}
    del tiny['train'], tiny['logger'], tiny['val']['val_freq']
    tiny['val'].update(save_img=True, suffix='SR')
    folder = {'dataroot_lq': str(pairs / 'LR'), 'io_backend': {'type': 'disk'}}
    tiny['datasets'] = {
        'test_1': {'name': 'Pairs', 'type': 'PairedImageDataset', 'dataroot_gt': str(pairs / 'HR'), **folder},
        'test_2': {'name': 'Alone', 'type': 'SingleImageDataset', **folder},
    }
    return tiny, network


@pytest.mark.slow
def test_table_images_and_json_agree(options, pairs, tmp_path, run_here):
    opt, network = options
    printed = run_here('test', '-opt', write_options(tmp_path, opt), cwd=tmp_path)
    report = json.loads((tmp_path / 'results/tiny/results.json').read_text())
    results = report['datasets']['Pairs']
    assert set(results['images']) == {f'im{i:02d}' for i in range(6)}
    for name, values in results['images'].items():
        hr = cv2.imread(str(pairs / f'HR/{name}.png'))
        sr = cv2.imread(str(tmp_path / f'results/tiny/visualization/Pairs/{name}_SR.png'))
        bicubic = imresize(cv2.imread(str(pairs / f'LR/{name}.png')), 2)
        for image, found in ((sr, values), (bicubic, results['bicubic']['images'][name])):
            assert found['psnr'] == pytest.approx(calculate_psnr(image, hr, 2, test_y_channel=True), abs=1e-9)
            assert found['ssim'] == pytest.approx(calculate_ssim(image, hr, 2, test_y_channel=True), abs=1e-9)
        both = values, results['bicubic']['images'][name]
        expected = [f'{each[metric]:.4f}' for metric in ('psnr', 'ssim') for each in both]
        assert re.search(rf'^{name} +(.+)$', printed, re.MULTILINE)[1].split() == expected
    assert re.search(r'^Pairs +psnr +bicubic +ssim +bicubic$', printed, re.MULTILINE)
    psnr = [values['psnr'] for values in results['images'].values()]
    assert results['mean']['psnr'] == pytest.approx(sum(psnr) / 6)
    assert f'{results["mean"]["psnr"]:.4f}' in re.search(r'^mean .+$', printed, re.MULTILINE)[0]
    # the images are the network's
    lq = cv2.imread(str(pairs / 'LR/im03.png'))[..., ::-1] / 255.0
    with torch.no_grad():
        out = network(torch.tensor(lq.copy()).permute(2, 0, 1)[None].float())[0]
    expected = (out.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()[..., ::-1]
    sr = cv2.imread(str(tmp_path / 'results/tiny/visualization/Pairs/im03_SR.png'))
    assert abs(sr - expected).max() <= 1
    # without targets there are images, and no metrics
    assert 'Alone: 6 images, no metrics' in printed
    assert report['datasets']['Alone']['images']['im00'] == {}
    assert (tmp_path / 'results/tiny/visualization/Alone/im05_SR.png').is_file()


@pytest.mark.slow
def test_images_of_one_name_do_not_overwrite_each_other(options, pairs, tmp_path, run_here):
    opt, _ = options
    for folder in ('HR', 'LR'):
        cv2.imwrite(str(pairs / f'{folder}/im00.bmp'), cv2.imread(str(pairs / f'{folder}/im01.png')))
    run_here('test', '-opt', write_options(tmp_path, opt), cwd=tmp_path)
    report = json.loads((tmp_path / 'results/tiny/results.json').read_text())
    results = report['datasets']['Pairs']
    assert len(results['images']) == 7
    for metrics in (results, results['bicubic']):
        both = [
            metrics['images'][name]['psnr'] for name in ('im00', 'im00.png', 'im00.bmp') if name in metrics['images']
        ]
        assert sorted(both) != [metrics['images']['im01']['psnr']] * 2
        assert metrics['images']['im01']['psnr'] in both
    assert len(list((tmp_path / 'results/tiny/visualization/Pairs').iterdir())) == 7


def test_images_of_equal_sizes_need_no_scale(options, pairs, tmp_path, run_here, monkeypatch):
    class Denoising(PairedImageDataset):
        def __init__(self, opt):
            super().__init__({**opt, 'scale': 1})

    monkeypatch.setitem(DATASET_REGISTRY._obj_map, 'Denoising', Denoising)
    opt, _ = options
    del opt['scale'], opt['datasets']['test_2']
    opt['datasets']['test_1'].update(type='Denoising', dataroot_lq=str(pairs / 'HR'))
    network = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'upscale': 1}
    opt.update(network_g=network, path={})
    run_here('test', '-opt', write_options(tmp_path, opt), cwd=tmp_path)
    report = json.loads((tmp_path / 'results/tiny/results.json').read_text())
    assert report['datasets']['Pairs']['bicubic']['mean']['psnr'] == math.inf


@pytest.mark.slow
def test_an_unsuitable_network_file_is_reported(options, tmp_path, run_here):
    opt, _ = options
    torch.save({'params': {}}, tmp_path / 'net.pth')
    printed = run_here('test', '-opt', write_options(tmp_path, opt), cwd=tmp_path, expect=1)
    assert 'net.pth holds no weights' in printed
    (tmp_path / 'net.pth').write_bytes(b'not a network')
    printed = run_here('test', '-opt', write_options(tmp_path, opt), cwd=tmp_path, expect=1)
    assert 'net.pth cannot be loaded: it is damaged, or not a checkpoint' in printed
    assert not (tmp_path / 'results').exists()


LGVAN = {'type': 'LGVAN', 'num_feat': 8, 'num_block': 1, 'upscale': 2}


@pytest.fixture
def lgvan(options, tmp_path):
    """The options with a network that has a fused form, and only the data set with targets."""
    opt, _ = options
    network = build_network(LGVAN)
    for parameter in network.parameters():  # zeros would switch the branches off
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save({'params': network.state_dict()}, tmp_path / 'net.pth')
    opt.update(network_g=LGVAN)
    del opt['datasets']['test_2']
    return opt, network.eval()


def test_the_fused_form_gives_the_same(lgvan, tmp_path, run_here):
    opt, _ = lgvan
    path, results = write_options(tmp_path, opt), tmp_path / 'results/tiny/results.json'
    printed = run_here('test', '-opt', path, cwd=tmp_path)
    assert re.search(r'^Pairs +psnr', printed, re.MULTILINE)
    trained = json.loads(results.read_text())
    assert (trained['fused'], trained['self_ensemble']) == (False, False)
    printed = run_here('test', '-opt', path, '--fused', cwd=tmp_path)
    assert re.search(r'^Pairs, fused +psnr', printed, re.MULTILINE)
    fused = json.loads(results.read_text())
    assert (fused['fused'], fused['self_ensemble']) == (True, False)
    for name, values in trained['datasets']['Pairs']['images'].items():
        assert fused['datasets']['Pairs']['images'][name]['psnr'] == pytest.approx(values['psnr'], abs=1e-4)
    assert fused['datasets']['Pairs']['bicubic'] == trained['datasets']['Pairs']['bicubic']


@pytest.mark.parametrize('by', ['flag', 'options'])
def test_a_self_ensemble_is_the_mean_over_flips_and_transpositions(lgvan, pairs, tmp_path, run_here, by):
    opt, network = lgvan
    flags = ['--self-ensemble'] if by == 'flag' else []
    opt['val']['self_ensemble'] = by == 'options'
    printed = run_here('test', '-opt', write_options(tmp_path, opt), *flags, cwd=tmp_path)
    assert re.search(r'^Pairs, self-ensemble +psnr', printed, re.MULTILINE)
    report = json.loads((tmp_path / 'results/tiny/results.json').read_text())
    assert (report['fused'], report['self_ensemble']) == (False, True)
    lq = cv2.imread(str(pairs / 'LR/im03.png'))[..., ::-1].transpose(2, 0, 1)[None] / 255.0
    total = 0
    for rows in (1, -1):
        for columns in (1, -1):
            for axes in ((0, 1, 2, 3), (0, 1, 3, 2)):
                turned = lq[..., ::rows, ::columns].transpose(axes)
                with torch.no_grad():
                    output = network.double()(torch.tensor(turned.copy())).numpy()
                total = total + output.transpose(axes)[..., ::rows, ::columns] / 8
    expected = (total[0].clip(0, 1) * 255).round().transpose(1, 2, 0)[..., ::-1]
    sr = cv2.imread(str(tmp_path / 'results/tiny/visualization/Pairs/im03_SR.png'))
    assert abs(sr - expected).max() <= 1
    assert (sr != expected).mean() < 1e-3
    found = report['datasets']['Pairs']['images']['im03']['psnr']
    hr = cv2.imread(str(pairs / 'HR/im03.png'))
    assert found == pytest.approx(calculate_psnr(expected.astype('uint8'), hr, 2, test_y_channel=True), abs=1e-3)


@pytest.mark.parametrize(
    ('changed', 'reason'),
    [
        ({}, 'EARN has no fused form; networks with one: A2N, LGVAN'),
        (
            {
                'model_type': 'VideoRecurrentModel',
                'network_g': {'type': 'BasicVSR', 'num_feat': 8, 'num_block': 1},
                'path': {},
            },
            'fused is for models of single images, derived from SRModel; not VideoRecurrentModel',
        ),
    ],
    ids=['network', 'model'],
)
def test_what_has_no_fused_form_is_reported(options, changed, reason, tmp_path, run_here):
    opt, _ = options
    opt.update(changed)
    code = 2 if changed else 1
    assert reason in run_here('test', '-opt', write_options(tmp_path, opt), '--fused', cwd=tmp_path, expect=code)
    assert not (tmp_path / 'results').exists()


def test_a_metric_that_fails_ends_the_test_with_its_image(options, tmp_path, run_here, monkeypatch):
    seen = []

    def picky(img, img2, **kwargs):
        seen.append(img)
        raise ValueError('too dark')

    monkeypatch.setitem(METRIC_REGISTRY._obj_map, 'picky', picky)
    opt, _ = options
    opt['val']['metrics'] = {'picky': {'type': 'picky'}}
    printed = run_here('test', '-opt', write_options(tmp_path, opt), cwd=tmp_path, expect=1)
    assert 'the test on Pairs failed: image im00, metric picky, too dark' in printed
    assert len(seen) == 1


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(options, pairs, tmp_path, run_here):
    """Also with images of one name, which are in different processes, and with fewer images than processes."""
    opt, _ = options
    for folder in ('HR', 'LR'):
        cv2.imwrite(str(pairs / f'{folder}/im00.bmp'), cv2.imread(str(pairs / f'{folder}/im01.png')))
        (pairs / 'one' / folder).mkdir(parents=True)
        cv2.imwrite(str(pairs / f'one/{folder}/a.png'), cv2.imread(str(pairs / f'{folder}/im02.png')))
    one = opt['datasets']['test_1'] | {'name': 'One'}
    one.update({f'dataroot_{side}': str(pairs / 'one' / folder) for side, folder in (('gt', 'HR'), ('lq', 'LR'))})
    opt['datasets']['test_3'] = one
    path, results = str(write_options(tmp_path, opt)), tmp_path / 'results/tiny'
    outputs = []
    for run in (lambda: run_here('test', '-opt', path, cwd=tmp_path), lambda: torchrun(tmp_path, 'test', '-opt', path)):
        printed = run()
        table = re.findall(r'^(?:Pairs|One|Alone|im\d\d|a|mean)[.:,\w]* .*\d$', printed, re.MULTILINE)
        images = {name: contents(results / 'visualization' / name) for name in ('Pairs', 'Alone', 'One')}
        report = json.loads((results / 'results.json').read_text())
        for found in report['datasets'].values():
            assert 0 < (found.pop('seconds_per_image') or 1) < 60  # None on a busy machine
        outputs.append((table, images, report))
    assert outputs[1][2].pop('device') == f'{outputs[0][2].pop("device")}, one of 2 processes'
    assert outputs[0] == outputs[1]
    assert [len(images) for images in outputs[0][1].values()] == [7, 7, 1]
    assert len(outputs[0][0]) == 7 + 1 + 1 + 1

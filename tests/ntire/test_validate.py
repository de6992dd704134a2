import json
import math
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils.registry import ARCH_REGISTRY
from torch.nn import functional as F

from earn_plugin import cli
from earn_plugin.convert.networks import FoundNetwork, NetworkChoice, find_network
from earn_plugin.convert.weight_files import write_weights
from earn_plugin.errors import UsageError, UserError
from earn_plugin.ntire import official_run as running
from earn_plugin.ntire.image_pairs import find_pairs
from earn_plugin.ntire.official_run import RunSettings
from earn_plugin.ntire.validate import Validation, validate
from earn_plugin.ntire.validation_report import ValidationReport
from earn_plugin.ntire.years import find_year
from tests.helpers import ntire_formulas as formulas
from tests.helpers.command import command
from tests.helpers.ntire_trees import write_tree

TINY = {'num_feat': 8, 'num_block': 1}
LGVAN = NetworkChoice('LGVAN', TINY)


def run(network, year, data_dir, **settings):
    if 'save_dir' in settings:
        settings['save_dir'] = Path(settings['save_dir'])
    return validate(network, Validation(year, Path(data_dir), **{'device': 'cpu', **settings}))


@pytest.fixture
def found():
    torch.manual_seed(0)
    return find_network(NetworkChoice('LGVAN', TINY))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    return tmp_path


@pytest.fixture
def data(tmp_path):
    return write_tree(tmp_path / 'data', 'mixed_valid')


def by_hand(network, lr, hr, data_range=1.0):
    """The network's result, and HR as it is measured, written down from the protocol's text."""
    x = torch.from_numpy(cv2.cvtColor(cv2.imread(str(lr)), cv2.COLOR_BGR2RGB)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        y = network(x / (255 / data_range))[0].clamp(0, data_range).permute(1, 2, 0).numpy()
    image = np.uint8((y * 255.0 / data_range).round())[..., ::-1]
    target = cv2.imread(str(hr))
    target = target[: target.shape[0] // 4 * 4, : target.shape[1] // 4 * 4]
    return image, target


@pytest.mark.parametrize(
    ('year', 'layouts', 'flags'),
    [
        (2022, ['DIV2K_valid', 'DIV2K_test'], {'include_test': True}),
        (2023, ['hybrid_test'], {'hybrid_test': True}),
        (2024, ['mixed_valid'], {}),
        (2025, ['mixed_valid', 'mixed_test'], {'include_test': True}),
        (2026, ['mixed_valid'], {'save_dir': 'images'}),
    ],
)
def test_each_year(here, found, year, layouts, flags):
    for layout in layouts:
        write_tree(here / 'data', layout)
    report = run(found, year, 'data', ssim=True, model_id=7, **flags)
    splits = ['hybrid_test'] if year == 2023 else ['valid', 'test'][: len(layouts)]
    written = json.loads((here / 'results.json').read_text())
    assert list(written) == ['07_LGVAN']
    entry = written['07_LGVAN']
    keys = [
        f'{s}_{k}' for s in splits for k in ('runtime', 'psnr', 'ssim', 'memory', 'ave_runtime', 'ave_psnr', 'ave_ssim')
    ]
    assert set(entry) == {*keys, 'activations', 'num_conv', 'flops', 'num_parameters'}

    for split in splits:
        folders = sorted({path.parent for path in (here / 'data').rglob('*.png')})
        hr = next(f for f in folders if f.name.endswith('HR') and (split in f.name or split == 'hybrid_test'))
        lr = hr.with_name(hr.name.replace('_HR', '_LR'))
        for i, (low, high) in enumerate(zip(sorted(lr.iterdir()), sorted(hr.iterdir()), strict=True)):
            image, target = by_hand(found.network, low, high)
            assert entry[f'{split}_psnr'][i] == pytest.approx(calculate_psnr(image, target, 4), abs=1e-12)
            assert entry[f'{split}_ssim'][i] == pytest.approx(calculate_ssim(image, target, 4), abs=1e-12)
            if 'save_dir' in flags:
                assert np.array_equal(cv2.imread(str(here / 'images/07_LGVAN' / split / high.name)), image)
        assert len(entry[f'{split}_runtime']) == 3
        assert entry[f'{split}_ave_runtime'] == sum(entry[f'{split}_runtime']) / 3
        assert entry[f'{split}_memory'] > 50

    counts = formulas.lgvan(256, 256, 8, 1)
    assert entry['activations'] == counts.activations / 1e6
    assert entry['num_conv'] == counts.convs
    leaky_relu, bilinear = 8 * 1024 * 1024, 4 * 3 * 1024 * 1024
    by_fvcore = counts.multiply_adds - leaky_relu + bilinear
    assert entry['flops'] == (counts.multiply_adds if year < 2024 else by_fvcore) / 1e9
    assert entry['num_parameters'] == sum(p.numel() for p in found.network.parameters()) / 1e6
    columns = (here / 'results.txt').read_text().splitlines()[1].split('\t')
    assert columns[0] == '07_LGVAN            '
    assert len(columns) == (11 if 'include_test' in flags else 8)
    assert 'training form' in str(report)


def test_the_report(here, found, data):
    report = run(found, 2026, data, limit=2)
    text = str(report)
    times = report.entry['valid_runtime']
    rows = {line[:36].strip(): line[36:].split() for line in text.splitlines()[2:]}
    assert 'SPAN (baseline)' in text.splitlines()[1]
    assert rows['valid runtime, official mean [ms]'] == [f'{sum(times) / 2:.2f}', '7.74']
    assert rows['without the first image'] == [f'{times[1]:.2f}']
    assert rows['median'] == [f'{sum(times) / 2:.2f}']
    assert rows['parameters [M]'][1] == '0.151'
    assert rows['PSNR gate'] == ['passed' if report.entry['valid_ave_psnr'] >= 26.9 else 'missed']
    flops, params = report.entry['flops'], report.entry['num_parameters']
    score = 0.8 * math.exp(2 * report.runtime / 7.74) + 0.1 * math.exp(2 * flops / 9.83)
    assert sum(report.score) == pytest.approx(score + 0.1 * math.exp(2 * params / 0.151), rel=1e-12)
    assert rows['score, lower is better'][1] == '7.3891'


def test_the_score_without_a_gpu(here, found, data):
    report = run(found, 2026, data, limit=2)
    rows = {line[:36].strip(): line[36:].split() for line in str(report).splitlines()[2:]}
    flops, params = report.entry['flops'], report.entry['num_parameters']
    assert [rows[title][0] for title in ('score, lower is better', 'of runtime')] == ['–', '–']
    assert rows['of FLOPs'] == [f'{0.1 * math.exp(2 * flops / 9.83):.4f}', '0.7389']
    runtime = float(rows['equal at a runtime of [ms]'][0])
    assert sum(find_year(2026).score(runtime, flops, params)) == pytest.approx(math.e**2, rel=5e-3)
    assert str(report).count('not part of the score') == 1
    on_gpu = {line[:36].strip(): line[36:].split() for line in str(replace(report, on_gpu=True)).splitlines()[2:]}
    assert on_gpu['score, lower is better'] == [f'{sum(report.score):.4f}', '7.3891']
    assert on_gpu['of runtime'][0] == f'{report.score[0]:.4f}'


@pytest.mark.parametrize(
    ('figures', 'answers'),
    [
        ((26.95, 7.0, 9.0, 0.15), ['yes', 'yes', 'yes', 'yes']),
        ((26.95, 7.744, 9.834, 0.1514), ['yes', 'yes', 'yes', 'yes']),  # as the table rounds them
        ((26.95, 7.0, 12.0, 0.15), ['yes', 'no, FLOPs 12.00 G > 9.83 G', 'yes', 'no, FLOPs 12.00 G > 9.83 G']),
        (
            (26.95, 9.0, 9.0, 0.2),
            ['yes', 'no, parameters 0.200 M > 0.151 M', 'no, runtime 9.00 ms > 7.74 ms; para', 'no, '],
        ),
        ((26.8, 7.0, 9.0, 0.15), ['no, the PSNR misses the gate'] * 4),
    ],
)
def test_eligibility(figures, answers):
    psnr, runtime, flops, params = figures
    entry = {'valid_ave_psnr': psnr, 'valid_ave_runtime': runtime, 'flops': flops, 'num_parameters': params}
    report = ValidationReport('X', 'training form', find_year(2026), 'GPU', {'valid': 1}, entry, [])
    assert list(report.eligibility) == ['overall', 'runtime sub-track', 'FLOPs sub-track', 'parameters sub-track']
    assert all(found.startswith(answer) for found, answer in zip(report.eligibility.values(), answers, strict=True))
    assert replace(report, year=find_year(2023)).eligibility == {}
    if psnr > 26.9:
        without = list(replace(report, on_gpu=False).eligibility.values())
        assert without[0] == 'yes'
        assert all(answer.startswith(('if the runtime on', 'no, FLOPs', 'no, para')) for answer in without[2:])


def test_several_runs(here, found, data, monkeypatch, capsys):
    times = iter(range(1, 100))
    timed = running.time_pass
    monkeypatch.setattr(running, 'time_pass', lambda *given: (timed(*given)[0], float(next(times))))
    report = run(found, 2026, data, runs=3)
    assert report.entry['valid_runtime'] == [4, 5, 6]  # the means of 1, 4, 7 and so on
    assert report.entry['valid_ave_runtime'] == 5
    assert len(report.entry['valid_psnr']) == 3
    assert len(report.warnings) == len(set(report.warnings))
    (row,) = (line.split() for line in str(report).splitlines() if 'of 3 runs' in line)
    assert row[-1] == '2.00–8.00'
    assert 'of 1 runs' not in str(run(found, 2026, data))


def test_a_note_is_printed_once_and_what_matters_most_comes_first(data, capsys):
    words = ['ntire', 'validate', '--year', '2024', '--model', 'LGVAN', '--set', 'num_feat=8', '--data-dir', str(data)]
    assert cli.main(words) == 0
    first, *_ = (line for line in capsys.readouterr().out.splitlines() if line.startswith('warning: '))
    assert 'initial weights' in first
    report = run(FoundNetwork(Nearest(255.0), 'Nearest', {}), 2024, data)
    printed = str(report) + capsys.readouterr().err
    assert printed.count('the data range looks wrong') == 1


def test_the_quality_track_measures_y(here, found, data):
    report = run(found, 2025, data, track='quality', limit=1)
    image, target = by_hand(
        found.network, data / 'DIV2K_LSDIR_valid_LR/000001x4.png', data / 'DIV2K_LSDIR_valid_HR/000001.png'
    )
    assert report.entry['valid_psnr'] == [
        pytest.approx(calculate_psnr(image, target, 4, test_y_channel=True), abs=1e-12)
    ]
    assert report.score is None
    assert report.passed is None


class Nearest(torch.nn.Module):
    """Repeats pixels, clamped to its range as if it were trained on it."""

    def __init__(self, data_range=1.0, scale=4):
        super().__init__()
        self.data_range, self.scale = data_range, scale

    def forward(self, x):
        known = x.clamp(0.05 * self.data_range, self.data_range)
        return torch.nn.functional.interpolate(known, scale_factor=self.scale)


@pytest.mark.parametrize(('own', 'given'), [(1.0, 255.0), (255.0, 1.0)])
def test_a_wrong_data_range(data, capsys, own, given):
    network = FoundNetwork(Nearest(own), 'Nearest', {})
    right, wrong = (run(network, 2024, data, data_range=r, limit=2) for r in (own, given))
    figures = tuple(report.entry['valid_psnr'][0] for report in (right, wrong))
    both = '000001.png: {1:.2f} dB with data range {3:g}, {0:.2f} dB with {2:g}; try --data-range {2:g}'
    warning = 'the data range looks wrong. ' + both.format(*figures, own, given)
    assert warning in wrong.warnings
    assert capsys.readouterr().err.count(f'warning: {warning}\n') == 1
    assert not any('data range' in line for line in right.warnings)


def test_a_network_of_another_scale(data):
    with pytest.raises(UserError, match=r'NTIRE is ×4: .* must be 1×3×48×44, got 1×3×24×22'):
        run(FoundNetwork(Nearest(scale=2), 'Nearest', {}), 2024, data)


def test_a_network_that_fails(data):
    network = torch.nn.Sequential(torch.nn.Conv2d(4, 48, 1), torch.nn.PixelShuffle(4))
    with pytest.raises(UserError, match=r'000001x4\.png \(12×11\): .*channels'):
        run(FoundNetwork(network, 'Sequential', {}), 2024, data)


def test_images_too_small_to_be_measured(found, data):
    for path in data.rglob('000001*.png'):
        cv2.imwrite(str(path), np.zeros((4, 5, 3) if 'x4' in path.name else (16, 20, 3), np.uint8))
    with pytest.raises(UserError, match=r'000001\.png is 16×20.* 19×19'):
        run(found, 2024, data, ssim=True)


def test_images_are_laid_out_as_in_the_official_script():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    x = running.to_tensor(image, 255.0, torch.device('cpu'))
    official = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1).float().div(1).unsqueeze(0)
    assert torch.equal(x, official)
    assert x.stride() == official.stride()


def test_flops_of_fused_attention_are_those_of_an_export(data):
    """Plain there: two matrix products between the 32×32 pooled pixels of 3 features each."""

    class Pooled(torch.nn.Upsample):
        def forward(self, x):
            tokens = F.avg_pool2d(x, 8, ceil_mode=True).flatten(2).mT
            tokens = F.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=0.0)
            return super().forward(x + tokens.mean(1)[..., None, None])

    report = run(FoundNetwork(Pooled(scale_factor=4), 'Pooled', {}), 2026, data)
    assert report.entry['flops'] >= 2 * 3 * (32 * 32) ** 2 / 1e9
    assert any('0.0063 G of attention' in warning for warning in report.warnings)


def test_grey_images_have_three_equal_channels(found, data):
    for path in data.rglob('000001*.png'):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    report = run(found, 2024, data, limit=1)
    lr, hr = data / 'DIV2K_LSDIR_valid_LR/000001x4.png', data / 'DIV2K_LSDIR_valid_HR/000001.png'
    assert report.entry['valid_psnr'] == [pytest.approx(calculate_psnr(*by_hand(found.network, lr, hr), 4), abs=1e-12)]


def test_images_of_16_bits(found, data):
    lr = data / 'DIV2K_LSDIR_valid_LR/000001x4.png'
    cv2.imwrite(str(lr), cv2.imread(str(lr)).astype(np.uint16) * 257)
    with pytest.raises(UserError, match=r'000001x4\.png has 16 bits'):
        run(found, 2024, data)


def test_lr_images_of_another_scale(here, found, data):
    lr = data / 'DIV2K_LSDIR_valid_LR/000001x4.png'
    cv2.imwrite(str(lr), cv2.imread(str(lr))[:-1])
    with pytest.raises(UserError, match=r'48×44, but four times .* is 44×44'):
        run(found, 2024, data)


def test_a_nested_checkpoint_gives_a_warning(here, data, found):
    write_weights(here / 'net.pth', found.network.state_dict(), {'arch': 'LGVAN', 'arguments': TINY}, ('params',))
    report = run(NetworkChoice('net.pth'), 2024, data, limit=1)
    assert any(warning.startswith('net.pth has its weights nested in params') for warning in report.warnings)
    again = run(found, 2024, data, limit=1)
    assert again.entry['valid_psnr'] == report.entry['valid_psnr']
    assert 'the earlier run of LGVAN in results.json is replaced' in again.warnings


def test_initial_weights_give_a_warning(data):
    report = run(LGVAN, 2024, data, limit=1)
    assert any('initial weights' in warning for warning in report.warnings)


def test_runs_with_and_without_the_test_set_do_not_mix(here, found, data, monkeypatch):
    write_tree(data, 'mixed_test')
    run(found, 2024, data, limit=1)
    before = (here / 'results.json').read_bytes()
    monkeypatch.setattr(running, 'time_pass', None)  # nothing is computed before this is known
    with pytest.raises(UserError, match='LGVAN on valid, but this run is on valid and test'):
        run(found, 2024, data, name='other', include_test=True)
    assert (here / 'results.json').read_bytes() == before


@pytest.mark.parametrize(
    ('year', 'flags', 'message'),
    [
        (2024, {'hybrid_test': True}, '2024 has no hybrid test set'),
        (2023, {'hybrid_test': True, 'include_test': True}, 'omit --include-test'),
        (2024, {'data_range': 2}, '1 or 255, got 2'),
        (2024, {'limit': 0}, 'at least 1'),
        (2024, {'runs': 0}, 'at least 1'),
        (2024, {'device': 'meta'}, 'computes nothing'),
    ],
)
def test_flags_that_contradict_each_other(found, data, year, flags, message):
    with pytest.raises(UsageError, match=message):
        run(found, year, data, **flags)


def test_the_command(here, data, capsys):
    data.rename(here / 'photos_HR')
    arguments = ['ntire', 'validate', '--year', '2024', '--model', 'LGVAN', '--set', 'num_feat=8', 'num_block=1']
    printed = command(*arguments, '--data-dir', 'photos_HR', '--limit', '1', '--model-id', '3', cwd=here)
    assert 'NTIRE 2024, efficient SR ×4: 03_LGVAN, training form' in printed
    assert 'would look for the LR images in photos_LR' in printed
    assert '03_LGVAN' in (here / 'results.txt').read_text()
    assert cli.main([*arguments, '--data-dir', 'nowhere']) == 1
    assert capsys.readouterr().err.startswith('basicsr ntire validate: nowhere/DIV2K_LSDIR_valid_HR does not exist')


def test_no_output_stays_in_the_memory_of_the_next_image(found, data):
    outputs, alive = [], []

    class Watched(torch.nn.Module):
        def forward(self, x):
            alive.append(sum(output() is not None for output in outputs))
            out = found.network(x)
            outputs.append(weakref.ref(out))
            return out

    pairs = find_pairs(data, find_year(2026).splits['valid'], 'valid', None)[0]
    running.run_split(Watched(), pairs, 'valid', RunSettings(torch.device('cpu'), 1.0, 'efficient', False, False))
    assert alive == [0] * 4  # three images, the first one with both ranges


def test_images_that_cannot_be_saved(here, found, data):
    (here / 'file').touch()
    with pytest.raises(UserError, match='cannot write file/LGVAN/valid/'):
        run(found, 2026, data, save_dir='file')


def test_results_that_no_table_can_hold_stop_the_run(here, found, data, monkeypatch):
    (here / 'results.json').write_text('{"other": {"valid_ave_psnr": 30.0}}')
    monkeypatch.setattr(running, 'time_pass', None)  # nothing runs
    with pytest.raises(UserError, match="other has no valid 'valid_ave_runtime'"):
        run(found, 2026, data)


def test_long_titles_keep_the_columns(here, found):
    write_tree(here / 'data', 'hybrid_test')
    lines = str(run(found, 2023, 'data', limit=1, hybrid_test=True)).splitlines()
    table = [line for line in lines[1:] if not line.startswith('warning')]
    assert len({len(line) for line in table}) == 1


def test_a_network_of_an_arch_file(here, data, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'path', sys.path[:])
    (here / 'own_arch.py').write_text(
        'from basicsr.utils.registry import ARCH_REGISTRY\nfrom torch import nn\n\n\n@ARCH_REGISTRY.register()\n'
        'class OwnNet(nn.Upsample):\n    def __init__(self):\n        super().__init__(scale_factor=4)\n'
    )
    words = ['--arch-file', 'own_arch.py']
    try:
        ran = cli.main(['ntire', 'validate', '--year', '2026', '--model', 'OwnNet', '--data-dir', str(data), *words])
        counted = cli.main(['complexity', 'OwnNet', '--size', '8', '8', *words])
    finally:
        ARCH_REGISTRY._obj_map.pop('OwnNet', None)
    assert (ran, counted) == (0, 0)
    assert 'OwnNet, training form' in capsys.readouterr().out

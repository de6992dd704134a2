"""basicsr report: what the page has, against the run itself; what it says where something is missing."""

import base64
import hashlib
import re
import shlex
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils import tensor2img
from basicsr.utils.registry import ARCH_REGISTRY

import earn_plugin
from earn_plugin.cli import parser
from earn_plugin.convert.networks import NetworkChoice, find_network
from earn_plugin.measure.complexity import count_complexity
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.options_file import find_options_file, override, read_options
from earn_plugin.report import report
from earn_plugin.report.recorded_run import find_run, recorded_options
from earn_plugin.training.model import flatten
from tests.helpers.command import command_here
from tests.helpers.reports import IMAGE, NAME, SET, train_tiny

pytest.importorskip('matplotlib')

TITLES = [
    *('Training curves', 'Metrics', 'Before and after', 'Attention', 'Attribution', 'Complexity', 'Settings'),
    *('Environment', 'How to reproduce'),
]


class Page(HTMLParser):
    """The elements of a page with their attributes and texts."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.text = path.read_text(encoding='utf-8')
        self.open: list[list[str]] = []
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in ('meta', 'link', 'img', 'input'):
            self.open.append(self.elements[-1][2])

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        self.open.pop()
        if tag in ('td', 'th'):
            self.handle_data('\t')

    def handle_data(self, text):
        for texts in self.open:
            texts.append(text)

    def all(self, *tags: str) -> list[tuple[str, dict, str]]:
        return [(tag, attributes, ''.join(texts)) for tag, attributes, texts in self.elements if tag in tags]

    def texts(self, *tags: str) -> list[str]:
        return [text for *_, text in self.all(*tags)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Where a run has been trained, and its report written."""
    folder = tmp_path_factory.mktemp('report')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_tiny(folder, '--force_yml', 'train:total_iter=4', 'val:val_freq=2', 'logger:save_checkpoint_freq=2')
        report.write_report(NAME)
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope='module')
def page(folder) -> Page:
    return Page(folder / 'experiments' / NAME / 'report.html')


def written(capsys, *arguments: str, only: tuple[str, ...] = (), monkeypatch=None, expect: int = 0) -> tuple[str, str]:
    """What the command printed, and the text of the page."""
    if only:
        monkeypatch.setattr(report, 'SECTIONS', {title: report.SECTIONS[title] for title in only})
    printed = command_here('report', NAME, '-o', 'out.html', *arguments, capsys=capsys, expect=expect)
    return printed, '' if expect else Path('out.html').read_text(encoding='utf-8')


def test_every_section_is_there(page):
    assert page.texts('h1') == [NAME]
    assert page.texts('h2') == TITLES
    assert 'Not available' not in page.text
    levels = [int(tag[1]) for tag, *_ in page.all('h1', 'h2', 'h3')]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    labels = [attributes['aria-label'] for _, attributes, _ in page.all('svg')]
    assert len(labels) == len(set(labels)) >= 10 and any(label.startswith('PSNR') for label in labels)
    assert any('mask' in label for label in labels) and any('attribution' in label for label in labels)


def test_nothing_of_the_run_is_code(page):
    [(_, _, script)] = page.all('script')
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [a['content'] for _, a, _ in page.all('meta') if a.get('http-equiv') == 'Content-Security-Policy']
    assert policy.startswith("default-src 'none'; img-src data:;") and f"script-src 'sha256-{digest}';" in policy
    assert not any(name.startswith('on') for _, attributes, _ in page.elements for name in attributes)
    sources = [value for _, a, _ in page.elements for key, value in a.items() if key in ('src', 'href', 'xlink:href')]
    assert sources and all(source.startswith(('data:', '#')) for source in sources)
    identifiers = [attributes['id'] for _, attributes, _ in page.elements if 'id' in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {SET, IMAGE} <= set(page.texts('h3'))


def test_the_metrics_are_those_of_the_last_validation(page):
    log = find_run(NAME).log
    found = re.findall(r'psnr (\S+) \(bicubic (\S+), (\S+)\), ssim (\S+) \(bicubic (\S+), (\S+)\)', log)
    psnr, psnr_bicubic, psnr_gain, ssim, ssim_bicubic, ssim_gain = map(float, found[-1])
    rows = [text.strip().split('\t') for text in page.texts('tr')]
    [mean] = [row[1:] for row in rows if row[0] == 'mean']
    expected = [psnr_bicubic, psnr, psnr_gain, ssim_bicubic, ssim, ssim_gain]
    np.testing.assert_allclose([float(cell) for cell in mean], expected, atol=1.01e-4)  # both are rounded
    [head] = [row[1:] for row in rows if row[0] == f'PSNR (dB), {SET}']
    best = max((float(values[0]), -iteration) for iteration, values in zip((2, 4), found, strict=True))
    assert head[:5] == [f'{psnr_bicubic:.4f}', f'{psnr:.4f}', '4', f'{best[0]:.4f}', str(-best[1])]
    names = [row[0] for row in rows if row[0] == IMAGE or row[0].startswith('im0')]
    assert sorted(names) == sorted([IMAGE, *(f'im0{number}' for number in range(1, 6))])


def test_the_pictures_are_the_images_and_the_results(page):
    images = {attributes['alt']: attributes['src'] for _, attributes, _ in page.all('img')}
    network = earn_plugin.load(Path('experiments', NAME, 'models/net_g_latest.pth'))
    assert len(images) == 3 * 6
    for name in (IMAGE, 'im03'):
        lr, hr = (cv2.imread(f'data/{kind}/{name}.png') for kind in ('LR', 'HR'))
        x = torch.from_numpy(lr[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            result = tensor2img(network(x))
        for alt, expected in (('the HR original', hr), ('enlarged by EARN', result)):
            content = base64.b64decode(images[f'{name}, {alt}'].removeprefix('data:image/webp;base64,'))
            shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            assert np.abs(shown.astype(int) - expected).max() <= (alt == 'enlarged by EARN')  # float32 sums


def test_the_commands_repeat_the_run(page):
    lines = next(text for text in page.texts('code') if 'basicsr train' in text).splitlines()
    commands = [parser().parse_args(shlex.split(line)[1:]) for line in lines]
    assert [args.command for args in commands] == ['train', 'report', 'upscale']
    options = read_options(find_options_file(commands[0].opt))
    override(options, commands[0].force_yml)
    repeated, recorded = (
        flatten(fill_defaults(options, is_train=True)),
        flatten(recorded_options(find_run(NAME).folder)),
    )
    assert repeated.keys() == recorded.keys()
    assert {key for key in repeated if repeated[key] != recorded[key]} <= {('auto_resume',)}
    changes = find_run(NAME).changes()
    assert changes[('train', 'total_iter')] == (6, 4) and len(changes) == 3


def test_without_states_the_log_has_the_options(folder):
    run = find_run(NAME)
    states, logged = recorded_options(run.folder), {}
    moved = (run.folder / 'training_states').rename(run.folder / 'moved')
    try:
        logged = recorded_options(run.folder)
    finally:
        moved.rename(run.folder / 'training_states')
    assert logged == states


def test_weights_without_metadata_are_those_of_the_options(folder, capsys, monkeypatch):
    path = Path('experiments', NAME, 'models/net_g_9.pth')  # as stock BasicSR writes it
    weights = torch.load(path.with_name('net_g_latest.pth'), weights_only=True)
    torch.save({key: weights[key] for key in ('params', 'params_ema')}, path)
    try:
        printed, text = written(capsys, only=('Metrics', 'Complexity'), monkeypatch=monkeypatch)
    finally:
        path.unlink()
    assert 'not in the report' not in printed and 'net_g_9.pth' in text


def test_a_folder_of_one_network_file(folder, capsys, monkeypatch):
    file = Path('experiments/bare/models/net_g_latest.pth')
    file.parent.mkdir(parents=True)
    shutil.copy(Path('experiments', NAME, 'models/net_g_latest.pth'), file)
    monkeypatch.setattr(report, 'SECTIONS', {'Complexity': report.SECTIONS['Complexity']})
    command_here('report', 'bare', '-o', 'out.html', capsys=capsys)
    text = Path('out.html').read_text(encoding='utf-8')
    found = find_network(NetworkChoice(str(file)))
    expected = count_complexity(found, (360, 640), torch.device('cpu'), fvcore=False)
    assert 'EARN ×2' in text and f'{expected.hooks / 1e9:,.2f} G' in text


def test_the_best_validation_is_a_number(folder, capsys, monkeypatch):
    log = next(Path('experiments', NAME).glob('*.log'))
    text = log.read_text(encoding='utf-8')
    log.write_text(re.sub(r'(at iteration 2: psnr) [\d.]+', r'\1 nan', text), encoding='utf-8')
    try:
        _, page = written(capsys, only=('Settings',), monkeypatch=monkeypatch)
    finally:
        log.write_text(text, encoding='utf-8')
    assert '>nan<' not in page


@pytest.mark.parametrize('case', ['no data', 'no network', 'unknown network', 'no log'])
def test_what_is_missing_is_one_sentence_and_the_rest_is_there(folder, case, capsys, monkeypatch):
    run = Path('experiments', NAME)
    with monkeypatch.context() as patch:
        moved = {'no data': Path('data/HR'), 'no network': run / 'models', 'no log': next(run.glob('*.log'))}.get(case)
        if moved:
            moved.rename('moved')
        if case == 'unknown network':
            patch.delitem(ARCH_REGISTRY._obj_map, 'EARN')
        try:
            printed, text = written(capsys, only=('Metrics', 'Before and after', 'Attention'), monkeypatch=patch)
        finally:
            if moved:
                Path('moved').rename(moved)
    sentence = {
        'no data': 'HR',
        'no network': 'has no network file',
        'unknown network': '--import MODULE',
        'no log': 'Nothing is logged',
    }[case]
    assert sentence in text and f'<h1>{"&lt;"}' in text and 'out.html written' in printed
    assert ('not in the report' in printed) == (case != 'no log')
    assert ('bicubic PSNR' in text) == (case != 'no data')


def test_a_network_without_attention_and_images_without_originals(folder, capsys, monkeypatch):
    only = ('Metrics', 'Before and after', 'Attention')
    options = recorded_options(Path('experiments', NAME))
    options['datasets']['val'] = {'name': 'lr', 'type': 'SingleImageDataset', 'dataroot_lq': 'data/LR', 'phase': 'val'}
    options['datasets']['val'] |= {'io_backend': {'type': 'disk'}}
    monkeypatch.setattr('earn_plugin.report.recorded_run.recorded_options', lambda folder: options)
    monkeypatch.setattr('earn_plugin.figures.attention_maps.SOURCES', ())
    printed, text = written(capsys, '--images', '2', only=only, monkeypatch=monkeypatch)
    assert 'not in the report: attention: EARN has no attention' in printed
    assert 'Without HR images there are no metrics' in text
    assert text.count('type="range"') == 2 and 'value="hr"' not in text and '2 of 6 validation images' in text


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nothing'], 'nothing is not an experiment'),
        ([NAME, '-o', 'net.pth'], 'net.pth: a report ends in .html'),
        ([NAME, '--images', '-1'], '--images must be 0 or more'),
        ([NAME, '--device', 'tpu9'], 'tpu9 is not a device'),
        (['options.yml'], 'options.yml is a file'),
        (['data'], 'has neither log files'),
    ],
)
def test_wrong_usage(folder, arguments, message, capsys):
    assert message in command_here('report', *arguments, capsys=capsys, expect=2)


def test_many_large_pictures_are_compressed(folder, capsys, monkeypatch):
    only = ('Before and after',)
    lossless = written(capsys, only=only, monkeypatch=monkeypatch)[1]
    monkeypatch.setattr('earn_plugin.report.report_images.LARGEST', 1000)
    compressed = written(capsys, only=only, monkeypatch=monkeypatch)[1]
    assert 'as lossless WebP' in lossless and 'WebP of quality 90' in compressed
    assert len(compressed) < len(lossless)

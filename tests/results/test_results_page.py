"""`basicsr results`: tables, verdicts and CSV of results.json files, made by hand and by `basicsr test`."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network

from earn_plugin.errors import UsageError, UserError
from earn_plugin.results.results_page import BEGIN, END, write_page
from earn_plugin.results.tested_results import find_results
from tests.helpers.command import command_here
from tests.helpers.options import write_options
from tests.helpers.places import ROOT

A2N = {'type': 'A2N', 'num_feat': 40, 'num_upfeat': 24, 'num_block': 16, 'upscale': 2, 'variant': 'A2N'}


def figures(psnr: float, ssim: float, offset: float = 0.5) -> dict:
    """Of two images, whose means are given."""
    images = {'a': {'psnr': psnr - offset, 'ssim': ssim}, 'b': {'psnr': psnr + offset, 'ssim': ssim}}
    return {'images': images, 'mean': {'psnr': psnr, 'ssim': ssim}}


def report(psnr: float = 38.06, ssim: float = 0.9608, dataset: str = 'Set5', name: str = 'mine', **changes) -> dict:
    """As `basicsr test` writes it; ``changes`` are of the protocol."""
    arguments = {'crop_border': changes.pop('border', 2), 'test_y_channel': changes.pop('y', True)}
    metrics = {metric: {'type': f'calculate_{metric}', **arguments} for metric in ('psnr', 'ssim')}
    protocol = {'scale': 2, 'images': 2, 'hr_multiple': 2, 'lr': "MATLAB's bicubic", 'metrics': metrics, **changes}
    found = {'seconds_per_image': 0.125, 'protocol': protocol, **figures(psnr, ssim), 'bicubic': figures(33.0, 0.93)}
    return {
        'name': name,
        'network_g': A2N,
        'parameters': 1036443,
        'checkpoint': {'file': 'net.pth', 'sha256': '0123456789abcdef'},
        'versions': {'earn_plugin': '0.1.0', 'torch': '2.13.0'},
        'device': 'a processor, 1 thread',
        'fused': False,
        'self_ensemble': False,
        'path': {},
        'datasets': {dataset: found},
    }


def write(folder: Path, **reports: dict) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in reports.items():
        (folder / f'{name}.json').write_text(json.dumps(content))
    return folder


def rows(text: str) -> list[list[str]]:
    """The cells of the table lines before the published figures."""
    lines = text.partition('## Published')[0].splitlines()
    return [line[2:-2].split(' | ') for line in lines if line.startswith('| ')]


@pytest.mark.parametrize(
    ('measured', 'expected'),
    [
        ((38.069, 0.9608), 'equal'),
        ((38.051, 0.9599), 'equal'),
        ((38.07, 0.9618), 'equal'),
        ((38.071, 0.9608), 'PSNR above (+0.01), SSIM equal'),
        ((38.06, 0.9597), 'PSNR equal, SSIM below (−0.0011)'),
        ((37.81, 0.9658), 'PSNR below (−0.25), SSIM above (+0.0050)'),
    ],
)
def test_verdicts(tmp_path, measured, expected):
    head, cells, *_ = rows(write_page([write(tmp_path / 'r', a=report(*measured))]))
    row = dict(zip(head, cells, strict=True))
    assert (row['published'], row['verdict']) == ('38.06 / 0.9608', expected)
    assert row['PSNR / SSIM'] == f'{measured[0]:.2f} / {measured[1]:.4f}'
    assert (row['bicubic'], row['images'], row['s/image']) == ('33.00 / 0.9300', '2', '0.125 (1)')


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'hr_multiple': 12}, 'HR cropped to 12, not the scale'),
        ({'lr': 'given files'}, "LR: given files, not MATLAB's bicubic"),
        ({'border': 0}, 'border 0, not the scale'),
        ({'y': False}, 'on RGB, not Y'),
        ({'y': False, 'border': 4}, 'on RGB, not Y; border 4, not the scale'),
        ({'lr': "MATLAB's bicubic, symmetric border"}, None),
    ],
)
def test_a_different_protocol_gives_its_reason_and_a_table_of_its_own(tmp_path, changes, reason):
    folder = write(tmp_path / 'r', a=report(), b=report(**changes))
    text = write_page([folder])
    assert text.count('### PSNR and SSIM on ') == 2
    verdicts = [cells[7] for cells in rows(text) if cells[0] == 'mine' and len(cells) == 9]
    assert verdicts == ['equal', f'different protocol: {reason}' if reason else 'equal']


def test_what_cannot_be_compared_is_said(tmp_path):
    """EARN's SSIM; a network of other sizes; a file of an earlier version."""
    earn = report(37.96, 0.96)
    earn['network_g'] = {
        **{'type': 'EARN', 'variant': 'paper', 'num_feat': 64, 'num_block': 4, 'upscale': 2},
        **dict.fromkeys(('use_asca', 'use_skip', 'use_local_attention'), True),
    }
    small = report(name='small')
    small['network_g'] = A2N | {'num_feat': 8}
    old = report(name='old')
    for key in ('parameters', 'checkpoint', 'versions', 'device'):
        del old[key]
    del old['datasets']['Set5']['protocol'], old['datasets']['Set5']['seconds_per_image']
    text = write_page([write(tmp_path / 'r', earn=earn | {'name': 'earn'}, small=small, old=old)])
    found = {cells[0]: cells for cells in rows(text) if '×2' in cells}
    assert found['earn'][6:8] == ['37.96 / 0.948', 'PSNR equal, SSIM different protocol: not stated']
    assert found['small'][6:8] == ['', '']
    assert re.search(r'### Protocol not recorded\n\n.+\n.+\n\| old .+ \| protocol not recorded \|$', text, re.MULTILINE)


def test_a_page_keeps_its_text_and_the_same_files_give_the_same_page(tmp_path, capsys):
    folder, page = write(tmp_path / 'r', b=report(dataset='Set14', name='b'), a=report()), tmp_path / 'page.md'
    assert 'page.md written' in command_here('results', folder, '-o', page, capsys=capsys)
    first = page.read_text()
    assert first.startswith(f'# Results\n\n{BEGIN}') and first.endswith(f'{END}\n')
    page.write_text(f'Before.\n{first}After.\n')
    write_page([folder / 'a.json', folder / 'b.json'], page)
    assert page.read_text() == f'Before.\n{first}After.\n'
    page.write_text('A page of mine.\n')
    assert f'{page} has no place for the tables' in command_here('results', folder, '-o', page, capsys=capsys, expect=1)
    assert page.read_text() == 'A page of mine.\n'


def test_tables_are_sorted_and_give_the_network_and_the_machine(tmp_path):
    """By scale, set and name; an ensemble has its own rows and published figures."""
    reports = {'a': report(dataset='Urban100', name='b'), 'b': report(dataset='Set14', name='b'), 'c': report(name='z')}
    reports |= {'d': report(name='b', scale=1), 'e': report(name='b') | {'self_ensemble': True, 'device': 'a GPU'}}
    reports['f'] = report(name='a') | {'parameters': 7, 'checkpoint': None}
    text = write_page([write(tmp_path / 'r', **reports)])
    cells = [line for line in rows(text) if line[1].startswith('×')]
    assert [line[0:3] for line in cells if line[1] == '×2'] == [
        ['a', '×2', 'Set5'],
        ['b, self-ensemble', '×2', 'Set5'],
        ['z', '×2', 'Set5'],
        ['b', '×2', 'Set14'],
        ['b', '×2', 'Urban100'],
    ]
    assert ['b', 'A2N', '1,036,443', '`01234567`', '0.1.0'] in rows(text)
    assert ['a', 'A2N', '7', '', '0.1.0'] in rows(text)
    assert '(1) a processor, 1 thread, torch 2.13.0\n\n(2) a GPU, torch 2.13.0' in text
    assert cells[1][-1] == '0.125 (2)'


@pytest.mark.parametrize(
    ('second', 'message'),
    [
        (report(38.0), 'both have PSNR of mine on Set5'),
        (report(dataset='B100') | {'checkpoint': {'sha256': 'other'}}, 'have different networks named mine'),
        (report(name='other', images=2), None),
    ],
    ids=['same cell', 'same name', 'other name'],
)
def test_files_that_contradict_each_other_are_named(tmp_path, capsys, second, message):
    folder = write(tmp_path / 'r', first=report(), second=second)
    if message is None:
        second['datasets']['Set5']['bicubic'] = figures(33.1, 0.93)
        write(folder, second=second)
        message = 'measured different images under the name Set5: bicubic has PSNR 33.0000 and 33.1000'
    printed = command_here('results', folder, capsys=capsys, expect=1)
    assert message in printed
    assert str(folder / 'first.json') in printed and str(folder / 'second.json') in printed


def damaged(content, value):
    """The content with ``value`` in place of each of its parts, one at a time, or without it."""
    for key in list(content):
        without = {name: each for name, each in content.items() if name != key}
        yield without
        yield {**without, key: value}
        if isinstance(content[key], dict):
            yield from ({**without, key: inner} for inner in damaged(content[key], value))


@pytest.mark.parametrize(
    'value', [None, 'text', ['list'], {'a': {}}, float('nan'), 10**400], ids=lambda value: str(value)[:20]
)
def test_whatever_is_damaged_is_an_error_with_the_file(tmp_path, value):
    path = tmp_path / 'results.json'
    for content in damaged(report(), value):
        path.write_text(json.dumps(content))
        try:
            write_page([path], table=tmp_path / 'images.csv')
        except UserError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize('content', [b'{"name": "cut', b'\xff\xfe', b'[]', b'', b'{"ablation": "a", "variants": 3}'])
def test_what_is_not_a_results_json(tmp_path, capsys, content):
    (tmp_path / 'results.json').write_bytes(content)
    assert str(tmp_path / 'results.json') in command_here('results', tmp_path, capsys=capsys, expect=1)


def test_a_mean_typed_by_hand_is_found(tmp_path):
    content = report()
    content['datasets']['Set5']['mean']['psnr'] = 38.2
    with pytest.raises(UserError, match=r'a.json .+ the mean psnr is 38.2, that of its images 38.06'):
        write_page([write(tmp_path / 'r', a=content)])


def test_ablations_and_ntire(tmp_path):
    metric = {'mean': 30.1, 'standard_deviation': 0.02, 'difference': None, 'seeds': {'0': 30.1}}
    variants = [{'name': 'EARN', 'parameters': 12345, 'metrics': {'held_out psnr': metric}}]
    ablation = {'ablation': 'ablate_EARN_x4', 'recipe': 'demo_EARN_x4', 'seeds': [0], 'variants': variants}
    names = ('ave_psnr', 'ave_runtime', 'memory')
    entry = {f'valid_{name}': 27.5 for name in names} | dict.fromkeys(('num_parameters', 'flops', 'activations'), 1.5)
    text = write_page([write(tmp_path / 'r', a=ablation, b={'LGVAN': entry | {'num_conv': 3}})])
    assert re.search(r'## Ablation ablate_EARN_x4\n\nProtocol not recorded.+\n\n.+\n.+\n\| EARN .+30.100 ± 0.020', text)
    assert re.search(r'## NTIRE\n\nProtocol not recorded.+\n\n```\nModel.+\nLGVAN +\t27.50', text)


def test_from_test_to_page_and_csv(tiny, pairs, tmp_path, monkeypatch, capsys):
    """A retest, whose earlier results BasicSR keeps in another folder, does not count twice."""
    monkeypatch.chdir(tmp_path)
    torch.save({'params': build_network(tiny['network_g']).state_dict()}, tmp_path / 'net.pth')
    del tiny['train'], tiny['logger'], tiny['val']['val_freq']
    folders = {'dataroot_gt': str(pairs / 'HR'), 'dataroot_lq': str(pairs / 'LR'), 'io_backend': {'type': 'disk'}}
    tiny['datasets'] = {'test': {'name': 'Pairs', 'type': 'PairedImageDataset', **folders}}
    tiny['path'] = {'pretrain_network_g': 'net.pth'}
    path = write_options(tmp_path, tiny)
    for _ in range(2):
        command_here('test', '-opt', path, capsys=capsys)
    printed = command_here('results', 'results', '--csv', 'images.csv', capsys=capsys)
    content = json.loads((tmp_path / 'results/tiny/results.json').read_text())
    found = content['datasets']['Pairs']
    mean, bicubic = (f'{m["psnr"]:.2f} / {m["ssim"]:.4f}' for m in (found['mean'], found['bicubic']['mean']))
    assert f'| tiny | ×2 | Pairs | 6 | {mean} | {bicubic} |' in printed
    assert "### PSNR and SSIM on Y; border the scale; HR cropped to the scale; LR: MATLAB's bicubic" in printed
    assert f'| tiny | EARN | {content["parameters"]:,} | `{content["checkpoint"]["sha256"][:8]}` |' in printed
    lines = list(csv.DictReader((tmp_path / 'images.csv').read_text().splitlines()))
    assert len(lines) == 6 * 2 * 2
    for line in lines:
        images = (found['bicubic'] if line['method'] == 'bicubic' else found)['images']
        assert float(line['value']) == images[line['image']][line['metric']]


def test_the_page_of_the_docs_is_what_the_command_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = Path('docs/results.md')
    (copied := tmp_path / 'results.md').write_text(page.read_text(encoding='utf-8'), encoding='utf-8')
    write_page([Path('docs/results')], copied)
    assert copied.read_text(encoding='utf-8') == page.read_text(encoding='utf-8')
    for path in Path('docs/results').iterdir():
        assert '"/' not in path.read_text(encoding='utf-8'), 'a path of the machine that measured'


def test_usage(tmp_path, capsys):
    assert 'there is no results.json' in command_here('results', tmp_path, capsys=capsys, expect=2)
    absent = tmp_path / 'none.json'
    assert f'{absent} does not exist' in command_here('results', absent, capsys=capsys, expect=2)
    both = command_here('results', tmp_path, '--compare', '-o', 'page.md', capsys=capsys, expect=2)
    assert '-o and --csv are for tables' in both


@pytest.mark.parametrize('outputs', [('--csv', 'r/a.json'), ('-o', 'r/../r/a.json'), ('-o', 'x', '--csv', 'x')])
def test_no_result_and_no_other_output_is_replaced(outputs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = (write(tmp_path / 'r', a=report()) / 'a.json').read_bytes()
    assert 'would be replaced' in command_here('results', 'r', *outputs, capsys=capsys, expect=2)
    assert (tmp_path / 'r/a.json').read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ['r']


def test_names_of_images_that_are_not_utf8(tmp_path):
    content = report()
    for found in (content['datasets']['Set5'], content['datasets']['Set5']['bicubic']):
        found['images']['x\udcff'] = found['images'].pop('b')
    write_page([write(tmp_path / 'r', a=content)], table=tmp_path / 'images.csv')
    assert r'x\udcff' in (tmp_path / 'images.csv').read_text()


def test_replaced_results_are_left_out_below_a_folder_of_any_name(tmp_path):
    archived = write(tmp_path / 'a_archived_1', results=report())
    assert find_results([archived]) == [archived / 'results.json']
    with pytest.raises(UsageError, match='there is no results'):
        find_results([tmp_path])


def test_names_are_no_markup(tmp_path):
    assert r'| \<b>a\|b |' in write_page([write(tmp_path / 'r', a=report(name='<b>a|b'))])

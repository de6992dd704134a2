import json
import re
from functools import partial

import pytest
import torch

from earn_plugin.convert.networks import FoundNetwork, NetworkChoice, find_network
from earn_plugin.errors import UsageError, UserError
from earn_plugin.measure import speed
from earn_plugin.measure.speed import Benchmark, Form, benchmark_network
from tests.helpers.command import command

SMALL = {'num_feat': 4, 'num_block': 1}
LGVAN = NetworkChoice('LGVAN', SMALL)
EAGER = ('trained', 'channels_last', 'bf16', 'fused', 'fused+bf16+channels_last')


def test_each_form_is_what_its_name_says():
    found = find_network(NetworkChoice('LGVAN', SMALL))
    x = torch.rand(2, 3, 6, 5)
    expected = found.network(x)
    for name in EAGER:
        form = Form(found, name, x)
        weight = form.network.conv_first.weight
        half, last = 'bf16' in name, 'channels_last' in name
        assert form.network.fused == ('fused' in name)
        assert weight.dtype == form.x.dtype == (torch.bfloat16 if half else torch.float32)
        for tensor in (weight, form.x):
            assert tensor.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        out = form()
        assert out.dtype == form.x.dtype
        assert torch.allclose(out.float(), expected, rtol=0, atol=0.05 if half else 1e-5)
    assert found.network.conv_first.weight.dtype == torch.float32


def test_table_and_json(capsys, tmp_path):
    benchmark_network(LGVAN, Benchmark((7, 5), 2, 3, 'cpu', EAGER, json=tmp_path / 'x.json'))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == 'LGVAN(num_feat=4, num_block=1), 2×3×7×5'
    assert re.search(rf'., {torch.get_num_threads()} threads?, torch {re.escape(torch.__version__)}$', printed[1])
    assert [line[:24].strip() for line in printed[4:]] == [
        'training form',
        'channels_last',
        'bf16',
        'fused form',
        'fused form, bf16, channels_last'[:24],
    ]
    content = json.loads((tmp_path / 'x.json').read_text())
    assert 'without weights' in content['memory']
    assert (content['input'], content['repeats']) == ([2, 3, 7, 5], 3)
    assert [row['form'] for row in content['forms']] == list(EAGER)
    first = content['forms'][0]
    assert first['ratio'] == 1
    assert first['peak_memory_bytes'] > 4 * 2 * (3 + 4) * 28 * 20  # the output and the features of its size
    for row in content['forms']:
        seconds = row['median_ms'] / 1000
        assert row['megapixels_per_second'] == pytest.approx(2 * 28 * 20 / 1e6 / seconds)
        assert row['ratio'] == pytest.approx(first['median_ms'] / row['median_ms'])
    assert content['forms'][2]['peak_memory_bytes'] < 0.6 * first['peak_memory_bytes']


def test_forms_run_interleaved(monkeypatch):
    order = []

    class Recorded(Form):
        def __call__(self):
            order.append('+'.join(self.parts))
            return super().__call__()

    monkeypatch.setattr(speed, 'Form', Recorded)
    speed.measure_forms(find_network(NetworkChoice('LGVAN', SMALL)), ['trained', 'fused'], torch.rand(1, 3, 4, 4), 2)
    assert order == ['trained'] * 2 + ['fused'] * 2 + ['trained', 'fused'] * 3


def test_a_form_that_cannot_run_is_reported_in_its_row(capsys, monkeypatch, tmp_path):
    class NoCompiler(Exception):
        pass

    def fail(network):
        raise NoCompiler('g++ is not here\nmore')

    monkeypatch.setattr(torch, 'compile', fail)
    choice = NetworkChoice('RNAN', {'upscale': 2, 'num_block': 2, 'num_feat': 8})
    benchmark_network(choice, Benchmark((4, 4), 1, 1, 'cpu', json=tmp_path / 'x.json'))
    printed = capsys.readouterr().out
    assert 'compiled                NoCompiler: g++ is not here\n' in printed
    assert 'fused form              RNAN has no fused form' in printed
    rows = json.loads((tmp_path / 'x.json').read_text())['forms']
    assert [row['form'] for row in rows if 'failure' in row] == ['fused', 'fused+bf16', 'compiled']


def test_a_checkpoint_of_the_fused_form(capsys, tmp_path):
    found = find_network(NetworkChoice('LGVAN', SMALL, fused=True))
    torch.save(
        {'params': found.network.state_dict(), 'arch': 'LGVAN', 'arguments': found.arguments}, tmp_path / 'net.pth'
    )
    benchmark_network(NetworkChoice(str(tmp_path / 'net.pth')), Benchmark((4, 4), 1, 1, 'cpu', ['trained', 'fused']))
    printed = capsys.readouterr().out
    assert 'training form           there is only the fused form' in printed
    assert printed.splitlines()[-1].endswith('1.00')


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'size': (0, 4)}, 'must be at least 1'),
        ({'repeats': 0}, 'must be at least 1'),
        ({'threads': 0}, 'must be at least 1'),
        ({'forms': ['bf61']}, "no form 'bf61'; possible: trained, fused, channels_last, bf16, compiled"),
    ],
)
def test_wrong_arguments(given, message):
    with pytest.raises(UsageError, match=message):
        Benchmark(**given)


def test_nothing_runs():
    with pytest.raises(UserError, match='no form of RNAN runs: RNAN has no fused form'):
        benchmark_network(
            NetworkChoice('RNAN', {'num_block': 2, 'num_feat': 8}), Benchmark((4, 4), 1, 1, 'cpu', ['fused'])
        )


def test_channels_last_with_weights_of_five_dimensions():
    found = find_network(NetworkChoice('HAN', {'num_feat': 16, 'num_group': 1, 'num_block': 1}))
    x = torch.rand(1, 3, 6, 5)
    form = Form(found, 'channels_last', x)
    assert form.network.channel_spatial_attention.conv.weight.dim() == 5
    assert form.network.conv_first.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(form(), found.network(x), rtol=0, atol=1e-5)


def test_an_error_of_the_network():
    class Own(torch.nn.Module):
        def forward(self, x):
            return {}['missing']

    with pytest.raises(UserError, match="no form of Own runs: KeyError: 'missing'"):
        speed.measure_forms(FoundNetwork(Own(), 'Own', {}), ['trained'], torch.rand(1, 3, 4, 4), 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_a_gpu(capsys):
    benchmark_network(LGVAN, Benchmark((16, 16), 1, 2, 'cuda', EAGER))
    assert torch.cuda.get_device_name() in capsys.readouterr().out


def test_the_command(tmp_path):
    flags = ('--set', 'num_feat=4', 'num_block=1', '--size', '8', '6', '--repeats', '1', '--forms', 'trained', 'fused')
    printed = command('benchmark', 'network', 'LGVAN', *flags, '--json', 'x.json', '--threads', '1', cwd=tmp_path)
    assert 'fused form' in printed
    assert len(json.loads((tmp_path / 'x.json').read_text())['forms']) == 2
    assert "no form 'fast'" in command('benchmark', 'network', 'LGVAN', '--forms', 'fast', cwd=tmp_path, expect=2)


def test_interleaved_medians(monkeypatch):
    """By a clock that only the runs move; the first round is not counted."""
    now, order = 0, []
    seconds = {'a': [90, 1, 5, 2], 'b': [90, 4, 3, 7]}

    def run(name):
        nonlocal now
        now += seconds[name][order.count(name)]
        order.append(name)

    monkeypatch.setattr(speed.time, 'perf_counter', lambda: now)
    assert speed.interleaved_medians({name: partial(run, name) for name in seconds}, 3) == {'a': 2, 'b': 4}
    assert ''.join(order) == 'ab' * 4

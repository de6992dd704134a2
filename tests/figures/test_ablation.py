import csv
import json
import re
from statistics import fmean, stdev

import pytest

from earn_plugin.figures.ablation import Run, ablation_table, reason_in, train_runs
from earn_plugin.figures.ablation_file import Variant, read_ablation
from tests.helpers.command import command_here
from tests.helpers.options import write_options

pytest.importorskip('matplotlib')


def test_trainings_that_have_ended_are_kept_and_others_resume_or_begin_again(tiny, tmp_path, monkeypatch, capsys):
    """Of four trainings two have ended, one was interrupted, and one had other options."""
    monkeypatch.chdir(tmp_path)
    write_options(tmp_path, tiny, 'recipe.yml')
    variants = {'EARN': {}, 'no skips': {'network_g': {'use_skip': False}}}
    path = write_options(tmp_path, {'recipe': 'recipe.yml', 'seeds': [0, 1], 'variants': variants}, 'ab.yml')
    for variant, seed in ((0, 0), (0, 1), (1, 0), (1, 1)):
        chosen = read_ablation(str(path)).variants[variant]
        if (variant, seed) == (1, 0):
            chosen.options['train']['total_iter'] = 3
        run = Run(chosen, seed, tmp_path / f'{chosen.name}_seed{seed}.yml')
        run.file.write_bytes(run.options())
        command_here('train', '-opt', run.file, capsys=capsys)
    interrupted = tmp_path / 'experiments/ab_EARN_seed1'
    for name in ('models/net_g_latest.pth', 'training_states/6.state'):
        (interrupted / name).unlink()

    output = command_here('ablate', path, '--processes', '2', capsys=capsys)
    assert '2 of 4 trainings have ended before' in output
    logs = {folder.name: sorted(folder.glob('*.log')) for folder in (tmp_path / 'experiments').iterdir()}
    archived = [name for name in logs if name.startswith('ab_no_skips_seed0_archived')]
    assert {name: len(found) for name, found in logs.items()} == {
        'ab_EARN_seed0': 1,
        'ab_EARN_seed1': 2,
        'ab_no_skips_seed0': 1,
        'ab_no_skips_seed1': 1,
        **dict.fromkeys(archived, 1),
    }
    assert len(archived) == 1
    assert 'training_states/3.state' in logs['ab_EARN_seed1'][1].read_text()

    def psnr(name: str) -> float:
        return float(re.search(r'at iteration 6: psnr (\S+)', logs[name][-1].read_text())[1])

    folder = tmp_path / 'ablations/ab'
    first, second = json.loads((folder / 'results.json').read_text())['variants']
    seeds = [psnr('ab_EARN_seed0'), psnr('ab_EARN_seed1')]
    assert seeds[0] != seeds[1]
    assert first['metrics']['held_out psnr'] == {
        'mean': pytest.approx(fmean(seeds)),
        'standard_deviation': pytest.approx(stdev(seeds)),
        'difference': None,
        'seeds': {'0': seeds[0], '1': seeds[1]},
    }
    others = [psnr('ab_no_skips_seed0'), psnr('ab_no_skips_seed1')]
    assert second['metrics']['held_out psnr']['difference'] == pytest.approx(fmean(others) - fmean(seeds))
    table = list(csv.DictReader((folder / 'results.csv').read_text().splitlines()))
    assert [row['variant'] for row in table] == ['EARN', 'no skips']
    assert [row['seeds'] for row in table] == ['2', '2']
    assert float(table[1]['held_out psnr mean']) == pytest.approx(fmean(others), abs=1e-3)
    assert table[0]['held_out psnr difference'] == ''
    assert (folder / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_a_training_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runs = [Run(Variant('EARN', 'x', {}, 0), seed, tmp_path / f'x{seed}.yml') for seed in (0, 1)]
    reason = 'basicsr: error: unrecognized arguments: --wrong'
    assert train_runs(runs, 2, ['--wrong']) == [f'  EARN, seed 0: {reason}', f'  EARN, seed 1: {reason}']
    assert '2 of 2' in capsys.readouterr().out


def test_the_table():
    psnr = {'mean': 31.82, 'standard_deviation': 0.0123, 'difference': None}
    ssim = {'mean': 0.85123, 'standard_deviation': 0.0004, 'difference': None}
    rows = [
        {'name': 'EARN', 'parameters': 2_181_443, 'metrics': {'Set5 psnr': psnr, 'Set5 ssim': ssim}},
        {
            'name': 'w/o',
            'parameters': 9,
            'metrics': {'Set5 psnr': psnr | {'standard_deviation': None, 'difference': -0.13}},
        },
    ]
    assert ablation_table(rows).splitlines() == [
        '| variant | parameters | Set5 psnr      | difference | Set5 ssim       | difference |',
        '|---------|------------|----------------|------------|-----------------|------------|',
        '| EARN    | 2,181,443  | 31.820 ± 0.012 |            | 0.8512 ± 0.0004 |            |',
        '| w/o     | 9          | 31.820         | -0.130     | –               | –          |',
    ]


@pytest.mark.parametrize(
    ('output', 'reason'),
    [
        ('log\nbasicsr train: x has 1 problem:\n  line 3: a\n', 'x has 1 problem:\n  line 3: a'),
        ('Traceback (most recent call last):\nValueError: x\n', 'ValueError: x'),
        ('', 'it was killed'),
    ],
)
def test_the_reason_of_a_failure(output, reason):
    assert reason_in(output) == reason

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.losses.basic_loss import L1Loss
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY

from earn_plugin.errors import UserError
from earn_plugin.models.cuda_graph import CudaGraph
from earn_plugin.training.profile import GRAPH, Phases, ProfiledTraining, measured_parts, write_trace
from tests.helpers.options import write_options
from tests.helpers.runs import build, step

PHASES = ['waiting for data', 'copy to the device', 'forward of net_g', 'losses', 'backward', 'optimiser']
PHASES += ['moving average', 'rest of the loop', 'total']


def table(printed: str) -> dict[str, tuple[float, float]]:
    """Phase → milliseconds and per cent."""
    lines = printed.partition('ms/iteration')[2].partition('operations by')[0].splitlines()[1:]
    return {name: (float(ms), float(share)) for name, ms, share in (re.split(r'  +', line) for line in lines)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b'' for path in folder.rglob('*')}


def test_a_report_that_leaves_everything_as_it_is(tiny, tmp_path, run_here):
    tiny['logger'] |= {'save_checkpoint_freq': 1, 'use_tb_logger': True}
    options = write_options(tmp_path, tiny)
    run = tmp_path / 'experiments/tiny'
    run.mkdir(parents=True)
    (run / 'models').write_text('an existing run')
    (tmp_path / 'experiments/.tiny.lock').write_text('process 1')
    before = files(tmp_path)
    printed = run_here('train', '-opt', options, '--profile', '4', cwd=tmp_path)
    assert files(tmp_path) == before
    assert 'Validation' not in printed
    head = re.search(r'tiny: 4 iterations of 2 samples after 5 for warming up, (\S+) iterations/s', printed)
    found = table(printed)
    assert [*found] == PHASES
    total, share = found.pop('total')
    assert share == 100
    assert sum(ms for ms, _ in found.values()) == pytest.approx(total, abs=0.05)
    assert float(head[1]) == pytest.approx(1000 / total, rel=0.01, abs=0.006)
    for name in ('forward of net_g', 'losses', 'backward', 'optimiser'):
        assert found[name][0] > 0.1, name
    assert re.search(r'^aten::convolution_backward +\d', printed, re.MULTILINE)


def test_time_counts_where_it_is_spent(tiny, tmp_path, run_here, monkeypatch):
    """Two loss terms, one of BasicSR's models, a slow loss and a slow data set."""

    class SlowLoss(L1Loss):
        def forward(self, *arguments, **settings):
            time.sleep(0.05)
            return super().forward(*arguments, **settings)

    class SlowData(PairedImageDataset):
        def __getitem__(self, index):
            time.sleep(0.05)
            return super().__getitem__(index)

    monkeypatch.setitem(LOSS_REGISTRY._obj_map, 'SlowLoss', SlowLoss)
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, 'SlowData', SlowData)
    tiny['datasets']['train']['type'] = 'SlowData'
    tiny['train']['losses'] = {'a': {'type': 'SlowLoss'}, 'b': {'type': 'SlowLoss'}}
    found = table(printed := run_here('train', '-opt', write_options(tmp_path, tiny), '--profile', '2', cwd=tmp_path))
    for name in ('waiting for data', 'losses'):  # two samples, two terms
        assert found[name][0] >= 100
    assert 'hint: the network waits for data: raise num_worker_per_gpu (0)' in printed
    stock = {'model_type': 'SRModel', 'train': {**tiny['train'], 'pixel_opt': {'type': 'SlowLoss'}, 'ema_decay': 0}}
    del stock['train']['losses']
    printed = run_here('train', '-opt', write_options(tmp_path, tiny | stock), '--profile', '2', cwd=tmp_path)
    assert [*table(printed)] == [name for name in PHASES if name != 'moving average']
    assert table(printed)['losses'][0] >= 50


def test_a_schedule_that_ends_before(tiny, tmp_path, run_here):
    """From the first iteration, and from a state."""
    tiny['train'] |= {'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [4, 2], 'restart_weights': [1, 0.5]}}
    del tiny['val']
    options = write_options(tmp_path, tiny)
    printed = run_here('train', '-opt', options, '--profile', '2', cwd=tmp_path)
    assert 'tiny: 2 iterations of 2 samples' in printed
    run_here('train', '-opt', options, cwd=tmp_path)
    tiny['path']['resume_state'] = str(tmp_path / 'experiments/tiny/training_states/6.state')
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), '--profile', '2', cwd=tmp_path)
    assert 'tiny: 2 iterations of 2 samples' in printed


def test_a_gan(tiny, tmp_path, run_here):
    tiny |= {'model_type': 'EARNGANModel', 'network_d': {'type': 'SRGANDiscriminator', 'num_in_ch': 3, 'num_feat': 4}}
    tiny['train'] |= {
        'optim_d': {'type': 'Adam', 'lr': 1e-4},
        'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 1e-3},
    }
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), '--profile', '2', cwd=tmp_path)
    assert table(printed)['forward of net_d'][0] > 0


def test_measuring_changes_no_result_and_is_undone(opt):
    plain, measured = build(opt), build(opt)
    kinds, backward = [type(measured.net_g), type(measured.cri_pix)], torch.autograd.backward
    with measured_parts(measured, Phases(measured.device)):
        assert isinstance(measured.net_g, kinds[0])
        step(measured)
    step(plain)
    assert all(map(torch.equal, plain.net_g.parameters(), measured.net_g.parameters()))
    assert [type(measured.net_g), type(measured.cri_pix)] == kinds
    assert torch.autograd.backward is backward


def test_the_cuda_graphs_of_both_networks_are_a_phase(opt, monkeypatch):
    monkeypatch.setattr(CudaGraph, '__call__', lambda graph: time.sleep(0.01))
    phases = Phases(torch.device('cpu'))
    with measured_parts(build(opt), phases):
        for graph in (object.__new__(CudaGraph), object.__new__(CudaGraph)):
            graph()
    assert phases.seconds()[GRAPH] >= 0.02


def test_phases_within_phases(monkeypatch):
    """By a clock that is moved by hand: inner phases do not count for the outer ones."""
    now = 0
    monkeypatch.setattr(time, 'perf_counter', lambda: now)
    phases = Phases(torch.device('cpu'))
    now = 1
    with phases('outer'):
        now = 3
        with phases('inner'):
            now = 6
        with pytest.raises(ZeroDivisionError), phases('inner'):
            now = 10
            raise ZeroDivisionError
        now = 15
    now = 21
    assert phases.seconds() == {'rest of the loop': 1 + 6, 'outer': 2 + 5, 'inner': 3 + 4}
    phases.restart()
    now = 22
    assert phases.seconds() == {'rest of the loop': 1}


def test_a_trace(tiny, tmp_path, run_here):
    tiny['datasets']['train']['num_worker_per_gpu'] = 1
    flags = ('--profile', '1', '--trace', 'a/trace.json')
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), *flags, cwd=tmp_path)
    assert 'after 7 for warming up' in printed
    assert '"losses"' in (tmp_path / 'a/trace.json').read_text()
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'cannot write .*file/trace\.json'):
        write_trace(None, tmp_path / 'file/trace.json')


def test_wrong_flags(tiny, tmp_path, run_here):
    options = write_options(tmp_path, tiny)
    assert 'at least 1, got 0' in run_here('train', '-opt', options, '--profile', '0', cwd=tmp_path, expect=2)
    assert 'needs --profile' in run_here('train', '-opt', options, '--trace', 'x', cwd=tmp_path, expect=2)


def test_ctrl_c(tiny, tmp_path, run_here, monkeypatch):
    original = ProfiledTraining.step

    def step_and_signal(self, batch):
        original(self, batch)
        if self.iteration == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ProfiledTraining, 'step', step_and_signal)
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), '--profile', '9', cwd=tmp_path, expect=130)
    assert 'stopped at iteration 3; nothing is saved' in printed
    assert not (tmp_path / 'experiments').exists()

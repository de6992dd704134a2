"""Training in several processes as torchrun starts them: nodes, restarts, failures, other numbers of processes."""

import re
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from earn_plugin.data.stream import Stream
from tests.helpers.command import TORCHRUN, torchrun
from tests.helpers.images import write_pairs
from tests.helpers.options import write_options
from tests.helpers.runs import same, state_of

pytestmark = pytest.mark.slow

PROGRAM = """
import os, signal, sys
from earn_plugin.cli import main
from basicsr.models.sr_model import SRModel
from earn_plugin.data.stream import Stream
from earn_plugin.errors import UserError
from earn_plugin.training.train import Training

rank, attempt = int(os.environ['RANK']), int(os.environ['TORCHELASTIC_RESTART_COUNT'])
read, step, test, finish = Stream.__getitems__, Training.step, SRModel.test, Training.finish
event = os.environ.get('EVENT')

def record(file, *lines):
    with open(file, 'a') as file:
        file.write(''.join(f'{line}\\n' for line in lines))

def recorded_read(self, positions):
    record('positions', *positions)
    return read(self, positions)

def recorded_test(self):
    record('tested', rank)
    test(self)

def step_and_end(self, batch):
    step(self, batch)
    if rank == 1 and event == 'kill' and attempt == 0 and self.iteration == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == 1 and event == 'terminate' and self.iteration == 7:
        os.kill(os.getpid(), signal.SIGTERM)

def end(self):
    if rank == 1 and event == 'kill':
        raise UserError('an error of rank 1')
    finish(self)

Stream.__getitems__, SRModel.test, Training.step, Training.finish = recorded_read, recorded_test, step_and_end, end
sys.exit(main())
"""


@pytest.fixture
def options(tiny, tmp_path):
    """Batches of 1, with a second validation set of two images that have the same name."""
    (tmp_path / 'program.py').write_text(PROGRAM)
    root = write_pairs(tmp_path / 'few', 2)
    for side in ('HR', 'LR'):
        (root / side / 'im01.png').rename(root / side / 'im00.bmp')
    tiny['datasets']['train']['batch_size_per_gpu'] = 1
    del tiny['train']['ema_decay']  # so that the trained network itself is validated
    tiny['train']['optim_g'] = {'type': 'Adam', 'lr': 1e-3, 'eps': 1e-3}  # rounding stays rounding
    tiny['train']['losses'] = {'pix': {'type': 'L1Loss'}}
    few = {'name': 'few', 'dataroot_gt': str(root / 'HR'), 'dataroot_lq': str(root / 'LR')}
    tiny['datasets']['val_2'] = {**tiny['datasets']['val'], **few, 'io_backend': {'type': 'disk'}}
    tiny['val'].update(val_freq=2, save_img=True)
    tiny['logger']['save_checkpoint_freq'] = 2
    return tiny


def two_nodes(folder: Path, *arguments: str, expect: int) -> str:
    """Run the command in two processes on one node and one on another."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    launch = ['--nnodes=2', '--master_addr=127.0.0.1', f'--master_port={port}', '--nproc_per_node']
    second = [*TORCHRUN, *launch, '1', '--node_rank=1', '../program.py', *arguments]
    with subprocess.Popen(second, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as node:
        launch += ['2', '--node_rank=0']
        printed = torchrun(folder, *arguments, program=('../program.py',), launch=launch, expect=expect)
        return printed + node.communicate(timeout=60)[0]


def positions(folder: Path) -> list[int]:
    return sorted(map(int, (folder / 'positions').read_text().split()))


def test_processes_come_and_go_and_the_samples_continue(options, tmp_path, run_here, monkeypatch):
    alone, plain, restarted = tmp_path / 'alone', tmp_path / 'plain', tmp_path / 'restarted'
    for folder in (alone, plain, restarted):
        folder.mkdir()
    train = ('train', '-opt', str(write_options(tmp_path, options)))

    # two of batch size 1 see the samples of one of batch size 2; the weights differ only by the order of sums
    run_here(*train, '--force_yml', 'datasets:train:batch_size_per_gpu=2', cwd=alone)
    printed = torchrun(plain, *train, '--launcher', 'pytorch', program=('../program.py',))
    assert printed.count('end of training') == printed.count('held_out at iteration 6: psnr') == 1
    one, two = state_of(alone, 6), state_of(plain, 6)
    assert one['position'] == two['position'] == 12
    assert len(two['rngs']) == 2
    for key, value in one['networks']['net_g']['params'].items():
        assert torch.allclose(value, two['networks']['net_g']['params'][key], atol=1e-5), key

    # a process is killed in iteration 5, and one raises an error at the end of the second attempt
    monkeypatch.setenv('EVENT', 'kill')
    launch = ('--standalone', '--nproc_per_node=2', '--max-restarts=1')
    printed = torchrun(restarted, *train, program=('../program.py',), launch=launch, expect=1)
    assert printed.count('basicsr train: another process of this run has ended or does not answer') == 2
    assert re.search(r'WARNING: resuming from \S+/4\.state', printed)
    assert printed.count('basicsr train: an error of rank 1') == 1
    assert printed.count('Traceback') == 1  # torchrun's own
    assert re.search(r'Root Cause.*rank +: 1 .*an error of rank 1', printed, re.DOTALL)
    expected, resumed = state_of(plain, 6), state_of(restarted, 6)
    for part in ('networks', 'optimizers', 'schedulers', 'rngs', 'position', 'best_metric_results'):
        assert same(expected[part], resumed[part]), part

    # two, three, one: every position once; SIGTERM for one; more processes than images of a data set
    monkeypatch.setenv('EVENT', 'terminate')
    (plain / 'tested').unlink()
    more = ('--auto_resume', '--force_yml', 'train:total_iter=9')
    printed = two_nodes(plain, *train, *more, expect=1)
    assert re.findall(r'basicsr train: stopped at iteration (\d)', printed) == ['8', '8', '8']
    assert printed.count('few at iteration 8: psnr') == printed.count('Validation few') == 1
    assert sorted((plain / 'tested').read_text().split()) == ['0', '0', '0', '1', '1', '1', '2', '2']
    assert positions(plain) == list(range(6 * 2 + 2 * 3))
    visualization = plain / 'experiments/tiny/visualization'
    pictures = {path: path.read_bytes() for path in visualization.rglob('*_8*.png')}
    assert len(pictures) == 8
    assert {path.name for path in pictures if 'few' in path.parts} == {'im00_8.png', 'im00_8_2.png'}

    # a single process validates the same state and writes the same
    path = plain / 'experiments/tiny/training_states/8.state'
    shared = state_of(plain, 8)
    torch.save({**shared, 'validated_at': -1, 'best_metric_results': {}}, path)
    for picture in pictures:
        picture.unlink()
    read, real = [], Stream.__getitems__
    monkeypatch.setattr(Stream, '__getitems__', lambda self, places: (read.extend(places), real(self, places))[1])
    run_here(*train, *more, cwd=plain)
    assert read == [18]
    again = state_of(plain, 8)['best_metric_results']
    assert again.keys() == shared['best_metric_results'].keys()
    for name, metrics in again.items():
        for metric, best in metrics.items():
            assert best['val'] == pytest.approx(shared['best_metric_results'][name][metric]['val'], rel=1e-14)
    assert {path: path.read_bytes() for path in pictures} == pictures

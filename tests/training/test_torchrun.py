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
from basicsr.utils.registry import METRIC_REGISTRY
from earn_plugin.data.stream import Stream
from earn_plugin.errors import UserError
from earn_plugin.training.train import Training

rank, attempt = int(os.environ['RANK']), int(os.environ['TORCHELASTIC_RESTART_COUNT'])
read, step, test, event = Stream.__getitems__, Training.step, SRModel.test, os.environ.get('EVENT')

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
    if rank == 1 and event == 'error' and self.iteration == 2:
        raise UserError('an error of rank 1')

@METRIC_REGISTRY.register()
def first_process_only(img, img2, **unused):
    if rank:
        raise ValueError('not here')
    return 1.0

Stream.__getitems__, SRModel.test, Training.step = recorded_read, recorded_test, step_and_end
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
    few = {'name': 'few', 'dataroot_gt': str(root / 'HR'), 'dataroot_lq': str(root / 'LR')}
    tiny['datasets']['val_2'] = {**tiny['datasets']['val'], **few, 'io_backend': {'type': 'disk'}}
    tiny['val'].update(val_freq=2, save_img=True)
    tiny['logger']['save_checkpoint_freq'] = 2
    return tiny


def two_nodes(folder: Path, *arguments: str) -> str:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    launch = ['--nnodes=2', '--nproc_per_node=1', '--master_addr=127.0.0.1', f'--master_port={port}', '--node_rank']
    second = subprocess.Popen(
        [*TORCHRUN, *launch, '1', '../program.py', *arguments], cwd=folder, stdout=subprocess.DEVNULL
    )
    try:
        return torchrun(folder, *arguments, program=('../program.py',), launch=(*launch, '0'))
    finally:
        assert second.wait(60) == 0


def positions(folder: Path) -> list[int]:
    return sorted(map(int, (folder / 'positions').read_text().split()))


def test_processes_come_and_go_and_the_samples_continue(options, tmp_path, run_here, monkeypatch):
    plain, restarted = tmp_path / 'plain', tmp_path / 'restarted'
    for folder in (plain, restarted):
        folder.mkdir()
    train = ('train', '-opt', str(write_options(tmp_path, options)))
    printed = two_nodes(plain, *train)
    assert printed.count('end of training') == 1

    # a process is killed in iteration 5
    monkeypatch.setenv('EVENT', 'kill')
    launch = ('--standalone', '--nproc_per_node=2', '--max-restarts=1')
    printed = torchrun(restarted, *train, program=('../program.py',), launch=launch)
    assert 'another process of this run has ended or does not answer' in printed
    assert re.search(r'WARNING: resuming from \S+/4\.state', printed)
    assert 'Traceback' not in printed
    expected, resumed = state_of(plain, 6), state_of(restarted, 6)
    for part in ('networks', 'optimizers', 'schedulers', 'rngs', 'position', 'best_metric_results'):
        assert same(expected[part], resumed[part]), part

    # two, three, one: every position once; SIGTERM for one; more processes than images of a data set
    monkeypatch.setenv('EVENT', 'terminate')
    (plain / 'tested').unlink()
    more = ('--auto_resume', '--force_yml', 'train:total_iter=9')
    launch = ('--standalone', '--nproc_per_node=3')
    printed = torchrun(plain, *train, *more, program=('../program.py',), launch=launch, expect=1)
    assert re.findall(r'stopped at iteration (\d)', printed)[:3] == ['8', '8', '8']
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
    alone = state_of(plain, 8)['best_metric_results']
    assert alone.keys() == shared['best_metric_results'].keys()
    for name, metrics in alone.items():
        for metric, best in metrics.items():
            assert best['val'] == pytest.approx(shared['best_metric_results'][name][metric]['val'], rel=1e-14)
    assert {path: path.read_bytes() for path in pictures} == pictures


def test_the_error_of_one_process_is_the_one_that_is_shown(options, tmp_path, monkeypatch):
    monkeypatch.setenv('EVENT', 'error')
    options['val'].update(val_freq=1, on_error='skip', metrics={'first': {'type': 'first_process_only'}})
    train = ('train', '-opt', str(write_options(tmp_path, options)))
    printed = torchrun(tmp_path, *train, program=('program.py',), expect=1)
    failed = 'validation on held_out failed: image im01, metric first_process_only, not here; continuing'
    assert printed.count(failed) == 1
    assert printed.count('basicsr train: an error of rank 1') == 1
    assert printed.count('basicsr train: another process of this run has ended') == 1
    assert printed.count('Traceback') == 1  # torchrun's own
    assert re.search(r'Root Cause.*rank +: 1 .*an error of rank 1', printed, re.DOTALL)

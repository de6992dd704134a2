"""Training that cannot continue: a clear message, an exit code, and nothing that was saved is lost."""

import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from basicsr.utils.registry import LOSS_REGISTRY

from earn_plugin.errors import UserError
from earn_plugin.options.options_file import find_options_file
from earn_plugin.training.train import Training
from tests.helpers.command import start
from tests.helpers.images import write_pairs
from tests.helpers.options import completed, write_options
from tests.helpers.runs import same, state_of

pytestmark = pytest.mark.slow


def test_an_invalid_latest_state_is_skipped_with_a_warning(tiny, tmp_path, run_here):
    options = write_options(tmp_path, tiny)
    run_here('train', '-opt', options, cwd=tmp_path)
    newest = tmp_path / 'experiments/tiny/training_states/6.state'
    newest.write_bytes(newest.read_bytes()[:1000])
    printed = run_here('train', '-opt', options, '--auto_resume', '--force_yml', 'train:total_iter=7', cwd=tmp_path)
    assert re.search(r'skipped .*/6\.state', printed)
    assert re.search(r'resuming from \S+/3\.state', printed)
    assert state_of(tmp_path, 7)['iter'] == 7


def test_resume_from_an_older_state(tiny, tmp_path, run_here):
    tiny['logger']['save_checkpoint_freq'] = 2
    options = write_options(tmp_path, tiny)
    run_here('train', '-opt', options, cwd=tmp_path)
    older = tmp_path / 'experiments/tiny/training_states/2.state'
    resume = ('--force_yml', f'path:resume_state={older}', 'train:total_iter=3', 'train:optim_g:lr=0.5')
    printed = run_here('train', '-opt', options, *resume, cwd=tmp_path)
    assert re.search(r'iteration 2: renamed \S+/6\.state', printed)
    assert 'train.optim_g.lr: 0.001 → 0.5' in printed
    assert 'lr:(5.000e-01,)' in printed
    printed = run_here('train', '-opt', options, '--auto_resume', '--force_yml', 'train:total_iter=4', cwd=tmp_path)
    assert re.search(r'resuming from \S+/3\.state', printed)


@pytest.mark.parametrize('model_type', ['EARNModel', 'SRModel'])
def test_a_loss_that_is_not_finite_stops_training(tiny, tmp_path, run_here, model_type):
    tiny['model_type'] = model_type
    tiny['train']['pixel_opt'] = tiny['train'].pop('losses')['pix']
    if model_type == 'SRModel':  # which cannot skip
        tiny['train']['on_non_finite'] = 'skip'
    tiny['train']['optim_g']['lr'] = 1e30
    tiny['train']['total_iter'] = 50
    tiny['logger']['save_checkpoint_freq'] = 1
    del tiny['val']
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path, expect=1)
    match = re.search(
        r'l_pix is not finite in iteration (\d+) \(.*?\)\. Images of this batch: im\d\d, im\d\d\.', printed
    )
    assert match, printed
    last = int(match[1]) - 1
    assert f'the latest valid state is {tmp_path}/experiments/tiny/training_states/{last}.state' in printed
    assert not (tmp_path / f'experiments/tiny/models/net_g_{last + 1}.pth').exists()
    assert state_of(tmp_path, last)['iter'] == last


def test_too_many_skipped_iterations_stop_training(tiny, tmp_path, run_here):
    tiny['train'] |= {'on_non_finite': 'skip', 'max_skipped': 2, 'total_iter': 50}
    tiny['train']['optim_g']['lr'] = 1e30
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path, expect=1)
    first, second = map(int, re.findall(r'not finite in iteration (\d+) .*The iteration is skipped', printed))
    assert second == first + 1
    assert 'the gradients of the last 2 iterations are not finite. Training stops' in printed
    assert 'on_non_finite: skip leaves' not in printed


BAD = {
    'batch': ({'datasets:train:batch_size_per_gpu': 50}, 2, 'a batch of 50 is larger than an epoch'),
    'flag': ({'deterministic': 1}, 2, 'deterministic: must be true or false, got 1'),
    'option': ({'train:ema_decayy': 0.9}, 2, 'did you mean ema_decay?'),
    'crop': ({'datasets:train:gt_size': 4000}, 2, 'smaller than gt_size 4000'),
    'border': ({'val:metrics:psnr:crop_border': 99}, 2, 'the metrics and their crop_border need 199 pixels'),
    'scale': ({'scale': '~', 'network_g': '{type: LGVAN}'}, 2, 'scale: is missing: PairedImageDataset needs it'),
    'network': ({'network_g:num_feat': 20}, 2, 'num_feat must be a multiple of 16 (squeeze_factor), got 20'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_gets_a_clear_error_and_writes_nothing(tiny, tmp_path, run_here, case):
    changes, code, message = BAD[case]
    force = [f'{key}={value}' for key, value in changes.items()]
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), '--force_yml', *force, cwd=tmp_path, expect=code)
    assert message in printed
    assert not (tmp_path / 'experiments').exists()


@pytest.mark.parametrize('command', [('train', '-opt'), ('test', '-opt'), ('prepare', 'check')])
def test_a_mistake_in_a_demo_recipe_is_reported_before_its_data_are_made(tmp_path, run_here, command):
    text = find_options_file('demo_EARN_x4').read_text().replace('HR_sub.lmdb', 'HR_subs.lmdb')
    (tmp_path / 'o.yml').write_text(text)
    printed = run_here(*command, 'o.yml', cwd=tmp_path, expect=2)
    assert re.search(r'line \d+: datasets\.train\.dataroot_gt: datasets/demo/train/HR_subs\.lmdb', printed)
    assert not (tmp_path / 'datasets').exists()


@pytest.mark.parametrize('prefetch_mode', [None, 'cpu'])
def test_a_damaged_image_stops_training_and_is_named(tiny, tmp_path, run_here, prefetch_mode):
    """Damage in the middle, which only a worker finds; no worker stays behind, and no iteration is lost."""
    root = write_pairs(tmp_path / 'pairs', 8)
    image = root / 'HR/im02.png'
    content = image.read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 0xFF
    image.write_bytes(damaged)
    dataset = tiny['datasets']['train']
    dataset.update(dataroot_gt=str(root / 'HR'), dataroot_lq=str(root / 'LR'), io_backend={'type': 'disk'})
    dataset.update(num_worker_per_gpu=1, prefetch_mode=prefetch_mode)
    tiny['manual_seed'] = 5  # has the image in the fourth batch
    tiny['logger']['save_checkpoint_freq'] = 100
    options = write_options(tmp_path, tiny)
    printed = run_here('train', '-opt', options, cwd=tmp_path, expect=1)
    assert f'data set train: {image} cannot be decoded: it is damaged' in printed
    assert multiprocessing.active_children() == []
    image.write_bytes(content)
    printed = run_here('train', '-opt', options, '--auto_resume', cwd=tmp_path)
    assert re.search(r'resuming from \S+/3\.state', printed)


@pytest.mark.parametrize('prefetch_mode', [None, 'cpu'])
def test_a_killed_worker_ends_training_with_advice(tiny, tmp_path, prefetch_mode):
    tiny['train']['total_iter'] = 1_000_000
    tiny['datasets']['train'].update(num_worker_per_gpu=1, prefetch_mode=prefetch_mode)
    del tiny['val']
    process = start('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path)
    for line in process.stdout:
        if 'iter:       5' in line:
            break
    (worker,) = map(int, Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split())
    os.kill(worker, signal.SIGKILL)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 1, printed
    assert re.search(r'a process that reads the images has ended \(.+\)\..*--auto_resume', printed)
    assert re.search(r'the checkpoint of iteration \d+ is saved', printed)
    assert 'Traceback' not in printed


TERMINATED_AT_START = """
import os, signal, sys, time
from pathlib import Path
import earn_plugin.training.train
from earn_plugin.cli import main

for delay in (0, 0.002, 0.005, 0.01, 0.02, 0.03):
    child = os.fork()
    if not child:
        os.setsid()
        code = main(['train', '-opt', 'options.yml', '--force_yml', f'name=after_{delay * 1000:.0f}_ms'])
        sys.stdout.flush()
        os._exit(code)
    while not Path(f'/proc/{child}/task/{child}/children').read_text():  # its workers
        time.sleep(0.001)
    time.sleep(delay)
    os.killpg(child, signal.SIGTERM)
    print('ended with', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_sigterm_to_all_processes_just_after_the_workers_start(tiny, tmp_path):
    tiny['train']['total_iter'] = 1_000_000
    tiny['datasets']['train']['num_worker_per_gpu'] = 2
    del tiny['val']
    write_options(tmp_path, tiny)
    done = subprocess.run(
        [sys.executable, '-c', TERMINATED_AT_START], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == 'ended with 143\n' * 6, done.stderr
    assert 'Traceback' not in done.stderr


class Putting(torch.nn.Module):
    def __init__(self, loss_weight=1.0):
        super().__init__()

    def forward(self, x, target):
        kernels.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))
        torch.zeros(2).put_(torch.tensor([1]), torch.ones(1))
        return (x - target).abs().mean()


kernels = []


def test_deterministic_kernels_where_there_are_any(tiny, tmp_path, run_here, monkeypatch):
    monkeypatch.setitem(LOSS_REGISTRY._obj_map, 'Putting', Putting)
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    tiny['train']['losses'] = {'putting': {'type': 'Putting'}}
    options = write_options(tmp_path, tiny | {'deterministic': True})
    printed = run_here('train', '-opt', options, cwd=tmp_path, expect=1)
    assert 'deterministic: true: torch has no deterministic implementation of put_ on this device' in printed
    assert kernels == [(True, False)]
    assert os.environ.pop('CUBLAS_WORKSPACE_CONFIG') == ':4096:8'
    assert not torch.are_deterministic_algorithms_enabled()


def fail_on_a_full_disk(*arguments, cwd: Path, limit: int) -> str:
    """Train with a limit on the size of files, which simulates a full disk; returns what was printed."""
    process = start(
        *('train', *arguments),
        cwd=cwd,
        preexec_fn=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        ),
    )
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 1, printed
    assert 'Traceback' not in printed
    return printed


def test_a_disk_without_space_for_anything_ends_with_one_message(tiny, tmp_path):
    """The log and TensorBoard are reported once each and do not end the run; the state is attempted."""
    tiny['train']['total_iter'] = 60
    tiny['val']['val_freq'] = 20
    tiny['logger'].update(use_tb_logger=True, save_checkpoint_freq=100)
    printed = fail_on_a_full_disk('-opt', write_options(tmp_path, tiny), cwd=tmp_path, limit=4096)
    assert len(re.findall(r'cannot write \S+/train_tiny_\w+\.log: ', printed)) == 1
    assert len(re.findall(r'cannot write \S+/tb_logger/tiny: ', printed)) == 1
    assert 'held_out at iteration 60' in printed
    assert re.search(r'basicsr train: cannot write \S+/training_states/60\.state: ', printed)


def test_a_full_disk_is_reported_and_earlier_checkpoints_stay(tiny, tmp_path, run_here):
    tiny['train']['total_iter'] = 4
    tiny['logger']['save_checkpoint_freq'] = 2
    del tiny['val']
    options = write_options(tmp_path, tiny)
    run_here('train', '-opt', options, '--force_yml', 'train:total_iter=2', cwd=tmp_path)
    before = state_of(tmp_path, 2)
    printed = fail_on_a_full_disk('-opt', options, '--auto_resume', cwd=tmp_path, limit=100_000)
    assert 'cannot write' in printed
    assert '--auto_resume' in printed
    assert same(state_of(tmp_path, 2), before)
    assert not list((tmp_path / 'experiments').rglob('.*'))


def test_losses_are_checked_before_anything_is_saved(tiny, tmp_path, monkeypatch):
    """On a GPU, where reading a loss waits for it, losses are checked rarely, but always before a save."""
    monkeypatch.chdir(tmp_path)
    del tiny['val']
    tiny['logger'].update(print_freq=100, save_checkpoint_freq=4)
    training = Training(completed(tmp_path, tiny), tmp_path / 'options.yml', [])
    monkeypatch.setattr(training.model, 'device', torch.device('meta'))  # not the CPU
    monkeypatch.setattr(
        training.model, 'feed_data', lambda data: vars(training.model).update(lq=data['lq'], gt=data['gt'])
    )
    seen = []
    original = training.step

    def step(batch):
        if training.iteration == 1:
            batch['gt'][0] = float('nan')
        original(batch)
        seen.append(training.iteration)

    monkeypatch.setattr(training, 'step', step)
    with pytest.raises(UserError, match='l_pix is not finite in iteration 2'):
        training.run()
    assert seen == [1, 2, 3, 4]
    assert not list((tmp_path / 'experiments/tiny/training_states').iterdir())

"""Training as a user runs it, on real LMDBs; in separate processes where they are what is tested."""

import itertools
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.helpers.command import command, start, torchrun
from tests.helpers.options import write_options
from tests.helpers.runs import losses, same, state_of, validations

pytestmark = pytest.mark.slow


@pytest.fixture
def folders(tmp_path):
    made = tmp_path / 'one', tmp_path / 'two'
    for folder in made:
        folder.mkdir()
    return made


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tiny, folders, run_here):
    one, two = folders
    tiny['logger'].update(save_checkpoint_freq=15, use_tb_logger=True)
    tiny['val']['val_freq'] = 5
    tiny['train']['total_iter'] = 30
    run_here('train', '-opt', write_options(one, tiny), cwd=one)

    options = write_options(two, tiny)
    run_here('train', '-opt', options, '--force_yml', 'train:total_iter=15', cwd=two)
    tiny['datasets']['train']['num_worker_per_gpu'] = 2
    printed = command('train', '-opt', write_options(two, tiny), '--auto_resume', cwd=two)
    assert re.search(r'resuming from \S+/15\.state', printed)

    expected, resumed = state_of(one, 30), state_of(two, 30)
    for part in ('networks', 'optimizers', 'schedulers', 'rngs', 'position', 'epoch', 'iter', 'best_metric_results'):
        assert same(expected[part], resumed[part]), part
    assert len(losses(one)) == 30
    assert losses(one) == losses(two)
    assert validations(one) == validations(two)
    assert len(validations(one)) == 6
    nets = [torch.load(f / 'experiments/tiny/models/net_g_latest.pth', weights_only=True) for f in (one, two)]
    assert same(*nets)
    assert tensorboard(one) == tensorboard(two)


def tensorboard(folder: Path) -> dict:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / 'tb_logger/tiny'))
    events.Reload()
    tags = events.Tags()['scalars']
    assert {'losses/l_pix', 'losses/l_ssim', 'lr', 'metrics/held_out/psnr'} <= set(tags)
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def wait_for_state(folder: Path, iteration: int) -> None:
    """Of this iteration or a later one, because only the latest are kept."""
    states, end = folder / 'experiments/tiny/training_states', time.monotonic() + 300
    while not any(int(path.stem) >= iteration for path in states.glob('*.state')):
        assert time.monotonic() < end, f'no state of iteration {iteration}'
        time.sleep(0.02)


def test_a_run_killed_at_any_moment_resumes_and_ends_the_same(tiny, folders, run_here):
    """kill -9, twice, while states are written one after the other."""
    one, two = folders
    tiny['logger'].update(save_checkpoint_freq=1, print_freq=100)
    del tiny['val']
    tiny['train']['total_iter'] = 24
    tiny['datasets']['train']['num_worker_per_gpu'] = 1
    run_here('train', '-opt', write_options(one, tiny), cwd=one)
    options = write_options(two, tiny)
    for goal in (4, 12):
        process = start('train', '-opt', options, '--auto_resume', cwd=two)
        wait_for_state(two, goal)
        time.sleep(0.037)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    run_here('train', '-opt', options, '--auto_resume', cwd=two)
    expected, resumed = state_of(one, 24), state_of(two, 24)
    assert all(same(expected[part], resumed[part]) for part in ('networks', 'optimizers', 'schedulers', 'rngs'))
    assert not list((two / 'experiments').rglob('.*'))


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_stops(tiny, tmp_path, number):
    """A terminal's Ctrl-C and a scheduler's SIGTERM also reach the workers."""
    tiny['train']['total_iter'] = 100_000
    tiny['logger'].update(save_checkpoint_freq=50_000, print_freq=1)
    tiny['datasets']['train']['num_worker_per_gpu'] = 2
    del tiny['val']
    process = start('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path, start_new_session=True)
    for line in process.stdout:
        if 'iter:       5' in line:
            break
    os.killpg(process.pid, number)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 128 + number, printed
    assert 'Traceback' not in printed
    match = re.search(r'stopped at iteration (\d+).*--auto_resume', printed)
    assert state_of(tmp_path, int(match[1]))['iter'] == int(match[1])


def test_output_and_files_of_a_run(tiny, tmp_path, run_here):
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path)
    assert re.search(r'held_out at iteration 6: psnr \d+\.\d{4} \(bicubic \d+\.\d{4}, [+-]\d', printed)
    assert 'ssim' in printed
    (log,) = (tmp_path / 'experiments/tiny').glob('*.log')
    for text in (printed, log.read_text()):
        assert text.count('EARN has 44,311 parameters') == 1  # logged before the folder exists
    assert '\r' not in printed  # no progress bar without a terminal
    files = {str(p.relative_to(tmp_path / 'experiments/tiny')) for p in (tmp_path / 'experiments/tiny').rglob('*.*')}
    assert {re.sub(r'\d{8}_\d{6}', 'T', f) for f in files} == {
        'options.yml',
        'train_tiny_T.log',
        'models/net_g_3.pth',
        'models/net_g_6.pth',
        'models/net_g_latest.pth',
        'training_states/3.state',
        'training_states/6.state',
    }


def test_an_earlier_run_is_archived(tiny, tmp_path, run_here, monkeypatch):
    times = itertools.count()  # the runs here take less than a second
    monkeypatch.setattr('basicsr.utils.misc.get_time_str', lambda: str(next(times)))
    options = write_options(tmp_path, tiny)
    tiny_run = ('train', '-opt', options, '--force_yml', 'train:total_iter=2')
    run_here(*tiny_run, cwd=tmp_path)
    run_here(*tiny_run, 'network_g:num_feat=30', cwd=tmp_path, expect=2)  # fails before it renames anything
    assert [p.name for p in (tmp_path / 'experiments').iterdir()] == ['tiny']
    run_here(*tiny_run, cwd=tmp_path)
    assert len(list((tmp_path / 'experiments').glob('tiny_archived_*'))) == 1
    # the copy in the run's folder also works, although it is renamed with it
    copied = tmp_path / 'experiments/tiny/options.yml'
    assert copied.read_bytes() == options.read_bytes()
    run_here('train', '-opt', copied, '--auto_resume', '--force_yml', 'train:total_iter=3', cwd=tmp_path)
    run_here('train', '-opt', copied, '--force_yml', 'train:total_iter=2', cwd=tmp_path)
    assert copied.read_bytes() == options.read_bytes()
    assert len(list((tmp_path / 'experiments').glob('tiny_archived_*'))) == 2


def test_stock_options_run_unchanged_and_stock_basicsr_loads_the_result(pairs, tmp_path, run_here):
    """BasicSR's train_EDSR: folders, SRModel, EDSR, none of our keys."""
    stock = f"""
name: EDSR_Mx2
model_type: SRModel
scale: 2
num_gpu: 1  # set num_gpu: 0 for cpu mode
manual_seed: 10
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: {pairs}/HR
    dataroot_lq: {pairs}/LR
    filename_tmpl: '{{}}'
    io_backend:
      type: disk
    gt_size: 32
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 1
    batch_size_per_gpu: 4
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
  val:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: {pairs}/HR
    dataroot_lq: {pairs}/LR
    io_backend:
      type: disk
network_g:
  type: EDSR
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 8
  num_block: 2
  upscale: 2
  res_scale: 1
  img_range: 255.
  rgb_mean: [0.4488, 0.4371, 0.4040]
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~
train:
  ema_decay: 0.999
  optim_g:
    type: Adam
    lr: !!float 1e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [200000]
    gamma: 0.5
  total_iter: 3
  warmup_iter: -1  # no warm up
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean
val:
  val_freq: !!float 2
  save_img: true
  metrics:
    psnr: # metric name, can be arbitrary
      type: calculate_psnr
      crop_border: 2
      test_y_channel: false
logger:
  print_freq: 1
  save_checkpoint_freq: !!float 2
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~
dist_params:
  backend: nccl
  port: 29500
"""
    path = tmp_path / 'train_EDSR_Mx2.yml'
    path.write_text(stock)
    run_here('train', '-opt', path, cwd=tmp_path)
    run = tmp_path / 'experiments/EDSR_Mx2'
    assert len(list((run / 'visualization').rglob('*.png'))) == 12

    opt = yaml.safe_load(stock)
    opt.update(dist=False, is_train=False, rank=0, world_size=1, num_gpu=0)
    opt['path'].update(pretrain_network_g=str(run / 'models/net_g_latest.pth'), param_key_g='params_ema')
    from basicsr.models import build_model

    network = build_model(opt).net_g
    saved = torch.load(run / 'models/net_g_latest.pth', weights_only=True)
    assert same(dict(network.state_dict()), dict(saved['params_ema']))
    assert saved['arch'] == 'EDSR'

    # a state that holds no more than BasicSR's own is also resumed
    state = state_of(tmp_path, 2, 'EDSR_Mx2')
    torch.save(
        {key: state[key] for key in ('epoch', 'iter', 'optimizers', 'schedulers')}, run / 'training_states/2.state'
    )
    (run / 'training_states/3.state').unlink()
    printed = run_here('train', '-opt', path, '--auto_resume', cwd=tmp_path)
    assert '2.state' in printed


@pytest.mark.parametrize(
    ('model_type', 'more'),
    [('ESRGANModel', {}), ('EARNGANModel', {'grad_clip_g': 0.5, 'grad_clip_d': 0.5, 'net_d_iters': 2})],
)
def test_adversarial_models_are_resumed_bit_for_bit(tiny, folders, run_here, model_type, more):
    one, two = folders
    tiny['model_type'] = model_type
    tiny['train'].update(more)
    tiny['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}
    tiny['train']['pixel_opt'] = tiny['train'].pop('losses')['pix']
    tiny['train']['gan_opt'] = {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1}
    tiny['train']['optim_d'] = {'type': 'Adam', 'lr': 1e-4}
    tiny['train']['total_iter'] = 4
    run_here('train', '-opt', write_options(one, tiny), cwd=one)
    options = write_options(two, tiny)
    run_here('train', '-opt', options, '--force_yml', 'train:total_iter=2', cwd=two)
    run_here('train', '-opt', options, '--auto_resume', cwd=two)
    expected, resumed = state_of(one, 4), state_of(two, 4)
    assert set(expected['networks']) == {'net_g', 'net_d'}
    assert all(same(expected[part], resumed[part]) for part in ('networks', 'optimizers', 'schedulers', 'rngs'))
    assert losses(one) == losses(two)
    assert len(losses(one)) == 4


ONE_BAD = """
import os, sys
from earn_plugin.training.train import Training
from earn_plugin.cli import main
from basicsr.utils.registry import METRIC_REGISTRY

original = Training.step

def step(self, batch):
    if os.environ['RANK'] == '1' and self.iteration == 1:
        batch['gt'][0] = float('nan')
    original(self, batch)

@METRIC_REGISTRY.register()
def first_process_only(img, img2, **unused):
    if os.environ['RANK'] == '1':
        raise ValueError('not here')
    return 1.0

Training.step = step
sys.exit(main())
"""


def test_a_loss_that_is_not_finite_in_one_process_stops_all(tiny, tmp_path):
    """So does a failed validation, which is skipped here."""
    tiny['val'].update(val_freq=1, on_error='skip', metrics={'first': {'type': 'first_process_only'}})
    (tmp_path / 'one_bad.py').write_text(ONE_BAD)
    options = write_options(tmp_path, tiny)
    printed = torchrun(tmp_path, 'train', '-opt', str(options), program=('one_bad.py',), expect=1)
    batch = r'Images of this batch: (im\d\d, ){3}im\d\d\.'
    said = re.findall(rf'l_pix is not finite in iteration 2 \(l_pix nan, .*?\)\. {batch}', printed)
    assert len(said) == 2
    failed = 'validation on held_out failed: image im01, metric first_process_only, not here; continuing'
    assert printed.count(failed) == 1
    assert 'RuntimeError' not in printed

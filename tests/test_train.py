"""Training as a user runs it: the command, in processes of its own, on real LMDBs."""

import copy
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from earn_plugin.train import Training
from tests.conftest import command, start, write_options, write_pairs

pytestmark = pytest.mark.slow


def state_of(folder: Path, iteration: int, name: str = 'tiny') -> dict:
    return torch.load(folder / f'experiments/{name}/training_states/{iteration}.state', weights_only=True)


def same(a, b) -> bool:
    """Equal to the bit, all the way down."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def losses(folder: Path, name: str = 'tiny') -> dict[int, str]:
    """Iteration → learning rate and losses, out of the text logs."""
    found = {}
    for log in sorted((folder / f'experiments/{name}').glob('train_*.log')):
        for line in log.read_text().splitlines():
            match = re.search(r'iter: *([\d,]+), (lr:\(.*?\))\].*?\] (\w+: .*)', line)
            if match:
                found[int(match[1].replace(',', ''))] = f'{match[2]} {match[3]}'
    return found


def validations(folder: Path) -> list[str]:
    lines = [
        line.partition('INFO: ')[2]
        for log in sorted((folder / 'experiments/tiny').glob('train_*.log'))
        for line in log.read_text().splitlines()
        if 'bicubic' in line
    ]
    return sorted(set(lines))


@pytest.fixture
def folders(tmp_path):
    made = tmp_path / 'one', tmp_path / 'two'
    for folder in made:
        folder.mkdir()
    return made


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tiny, folders):
    one, two = folders
    tiny['logger'].update(save_checkpoint_freq=15, use_tb_logger=True)
    tiny['val']['val_freq'] = 5
    tiny['train']['total_iter'] = 30
    command('train', '-opt', write_options(one, tiny), cwd=one)

    options = write_options(two, tiny)
    command('train', '-opt', options, '--force_yml', 'train:total_iter=15', cwd=two)
    tiny['datasets']['train']['num_worker_per_gpu'] = 2
    printed = command('train', '-opt', write_options(two, tiny), '--auto_resume', cwd=two)
    assert 'resuming from' in printed
    assert '15.state' in printed

    whole, resumed = state_of(one, 30), state_of(two, 30)
    for part in ('networks', 'optimizers', 'schedulers', 'rngs', 'position', 'epoch', 'iter', 'best_metric_results'):
        assert same(whole[part], resumed[part]), part
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


def wait_for(folder: Path, what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not list(folder.glob(what)):
        assert time.monotonic() < end, f'no {what}'
        time.sleep(0.02)


def test_killed_at_any_moment_it_goes_on_and_ends_the_same(tiny, folders):
    """kill -9 while states are written one after the other; then --auto_resume, twice."""
    one, two = folders
    tiny['logger'].update(save_checkpoint_freq=1, print_freq=100)
    del tiny['val']
    tiny['train']['total_iter'] = 60
    tiny['datasets']['train']['num_worker_per_gpu'] = 1
    command('train', '-opt', write_options(one, tiny), cwd=one)
    options = write_options(two, tiny)
    for goal in (8, 30):
        process = start('train', '-opt', options, '--auto_resume', cwd=two)
        wait_for(two, f'experiments/tiny/training_states/{goal}.state')
        time.sleep(0.037)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    command('train', '-opt', options, '--auto_resume', cwd=two)
    whole, resumed = state_of(one, 60), state_of(two, 60)
    assert all(same(whole[part], resumed[part]) for part in ('networks', 'optimizers', 'schedulers', 'rngs'))
    assert not list((two / 'experiments').rglob('.*'))


@pytest.mark.parametrize('to_all', [False, True])
@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_saves_and_leaves_cleanly(tiny, tmp_path, number, code, to_all):
    """Also when the workers are asked, too, as terminals and schedulers do."""
    tiny['train']['total_iter'] = 100_000
    tiny['logger'].update(save_checkpoint_freq=50_000, print_freq=1)
    tiny['datasets']['train']['num_worker_per_gpu'] = 2
    del tiny['val']
    process = start('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path, start_new_session=True)
    for line in process.stdout:
        if 'iter:       5' in line:
            break
    (os.killpg if to_all else os.kill)(process.pid, number)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == code, printed
    assert 'Traceback' not in printed
    match = re.search(r'stopped at iteration (\d+); everything is saved, go on with --auto_resume', printed)
    assert state_of(tmp_path, int(match[1]))['iter'] == int(match[1])


def test_nothing_that_was_not_asked_for_is_seen_and_bicubic_stands_beside(tiny, tmp_path):
    printed = command('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path)
    assert re.search(r'held_out at iteration 6: psnr \d+\.\d{4} \(bicubic \d+\.\d{4}, [+-]\d', printed)
    assert 'ssim' in printed
    assert '\r' not in printed  # no bar where there is no terminal
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


def test_a_run_before_is_kept_aside(tiny, tmp_path):
    options = write_options(tmp_path, tiny)
    tiny_run = ('train', '-opt', options, '--force_yml', 'train:total_iter=1')
    command(*tiny_run, cwd=tmp_path)
    command(*tiny_run, 'network_g:num_feat=30', cwd=tmp_path, expect=1)  # fails before it moves anything
    assert [p.name for p in (tmp_path / 'experiments').iterdir()] == ['tiny']
    command(*tiny_run, cwd=tmp_path)
    assert len(list((tmp_path / 'experiments').glob('tiny_archived_*'))) == 1


def test_a_broken_newest_state_is_skipped_and_told(tiny, tmp_path):
    options = write_options(tmp_path, tiny)
    command('train', '-opt', options, cwd=tmp_path)
    newest = tmp_path / 'experiments/tiny/training_states/6.state'
    newest.write_bytes(newest.read_bytes()[:1000])
    printed = command('train', '-opt', options, '--auto_resume', '--force_yml', 'train:total_iter=7', cwd=tmp_path)
    assert 'skipped a broken state' in printed
    assert 'resuming from' in printed
    assert '3.state' in printed
    assert state_of(tmp_path, 7)['iter'] == 7


def test_a_state_of_another_network_is_refused(tiny, tmp_path):
    options = write_options(tmp_path, tiny)
    command('train', '-opt', options, '--force_yml', 'train:total_iter=1', cwd=tmp_path)
    printed = command(
        'train', '-opt', options, '--auto_resume', '--force_yml', 'network_g:num_block=2', cwd=tmp_path, expect=1
    )
    assert 'the state of iteration 1 is of another network (network_g.num_block: 1 → 2)' in printed


@pytest.mark.parametrize('model_type', ['EARNModel', 'SRModel'])
def test_a_loss_that_is_not_finite_stops_with_all_there_is_to_know(tiny, tmp_path, model_type):
    tiny['model_type'] = model_type
    tiny['train']['pixel_opt'] = tiny['train'].pop('losses')['pix']
    tiny['train']['optim_g']['lr'] = 1e30
    tiny['train']['total_iter'] = 50
    tiny['logger']['save_checkpoint_freq'] = 1
    del tiny['val']
    printed = command('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path, expect=1)
    match = re.search(r'l_pix is not finite in iteration (\d+)\. Images of that batch: im\d\d, im\d\d\.', printed)
    assert match, printed
    last = int(match[1]) - 1
    assert f'the last good state is {tmp_path}/experiments/tiny/training_states/{last}.state' in printed
    assert not (tmp_path / f'experiments/tiny/models/net_g_{last + 1}.pth').exists()
    assert state_of(tmp_path, last)['iter'] == last


def test_stock_options_run_unchanged_and_stock_basicsr_loads_what_they_save(pairs, tmp_path):
    """BasicSR's train_EDSR layout: folders, SRModel, EDSR, no key of ours."""
    stock = f"""
# general settings
name: EDSR_Mx2
model_type: SRModel
scale: 2
num_gpu: 1  # set num_gpu: 0 for cpu mode
manual_seed: 10

# dataset and data loader settings
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: {pairs}/HR
    dataroot_lq: {pairs}/LR
    # (for lmdb)
    filename_tmpl: '{{}}'
    io_backend:
      type: disk

    gt_size: 32
    use_hflip: true
    use_rot: true

    # data loader
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

# network structures
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

# path
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

# training settings
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

  # losses
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean

# validation settings
val:
  val_freq: !!float 2
  save_img: true

  metrics:
    psnr: # metric name, can be arbitrary
      type: calculate_psnr
      crop_border: 2
      test_y_channel: false

# logging settings
logger:
  print_freq: 1
  save_checkpoint_freq: !!float 2
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~

# dist training settings
dist_params:
  backend: nccl
  port: 29500
"""
    path = tmp_path / 'train_EDSR_Mx2.yml'
    path.write_text(stock)
    command('train', '-opt', path, cwd=tmp_path)
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

    # and a state that holds no more than BasicSR's own is resumed, too
    state = state_of(tmp_path, 2, 'EDSR_Mx2')
    torch.save(
        {key: state[key] for key in ('epoch', 'iter', 'optimizers', 'schedulers')}, run / 'training_states/2.state'
    )
    (run / 'training_states/3.state').unlink()
    printed = command('train', '-opt', path, '--auto_resume', cwd=tmp_path)
    assert '2.state' in printed


@pytest.mark.parametrize('model_type', ['SRGANModel', 'ESRGANModel'])
def test_other_models_of_basicsr_are_resumed_bit_for_bit(tiny, folders, model_type):
    one, two = folders
    tiny['model_type'] = model_type
    tiny['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}
    tiny['train']['pixel_opt'] = tiny['train'].pop('losses')['pix']
    tiny['train']['gan_opt'] = {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1}
    tiny['train']['optim_d'] = {'type': 'Adam', 'lr': 1e-4}
    tiny['train']['total_iter'] = 4
    command('train', '-opt', write_options(one, tiny), cwd=one)
    options = write_options(two, tiny)
    command('train', '-opt', options, '--force_yml', 'train:total_iter=2', cwd=two)
    command('train', '-opt', options, '--auto_resume', cwd=two)
    whole, resumed = state_of(one, 4), state_of(two, 4)
    assert set(whole['networks']) == {'net_g', 'net_d'}
    assert all(same(whole[part], resumed[part]) for part in ('networks', 'optimizers', 'schedulers', 'rngs'))
    assert losses(one) == losses(two)


BAD = {
    'batch': ({'datasets:train:batch_size_per_gpu': 50}, 1, 'a batch of 50 is larger than an epoch'),
    'option': ({'train:ema_decayy': 0.9}, 2, 'train.ema_decayy: is not known here; did you mean ema_decay?'),
    'folder': ({'datasets:train:dataroot_gt': 'gone'}, 2, 'datasets.train.dataroot_gt: gone does not exist'),
    'network': ({'network_g:num_feat': 20}, 1, 'num_feat must be a multiple of 16 (reduction), got 20'),
    'override': ({'trian:total_iter': 3}, 2, 'has no section trian; did you mean train?'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_gets_a_clear_error_and_writes_nothing(tiny, tmp_path, case):
    changes, code, message = BAD[case]
    force = [f'{key}={value}' for key, value in changes.items()]
    printed = command('train', '-opt', write_options(tmp_path, tiny), '--force_yml', *force, cwd=tmp_path, expect=code)
    assert message in printed
    assert not (tmp_path / 'experiments').exists()


@pytest.mark.parametrize('prefetch_mode', [None, 'cpu'])
def test_a_damaged_image_stops_training_by_its_name(tiny, tmp_path, prefetch_mode):
    """Damage in the middle, which only a worker sees; no worker is left behind."""
    root = write_pairs(tmp_path / 'pairs', 4)
    content = bytearray((root / 'HR/im02.png').read_bytes())
    content[len(content) // 2] ^= 0xFF
    (root / 'HR/im02.png').write_bytes(content)
    dataset = tiny['datasets']['train']
    dataset.update(dataroot_gt=str(root / 'HR'), dataroot_lq=str(root / 'LR'), io_backend={'type': 'disk'})
    dataset.update(num_worker_per_gpu=1, prefetch_mode=prefetch_mode)
    printed = command('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path, expect=1, timeout=60)
    assert f'data set train: {root}/HR/im02.png cannot be decoded: it is damaged' in printed


def test_a_harmful_options_file_is_refused(tmp_path):
    path = tmp_path / 'o.yml'
    path.write_text('name: !!python/object/apply:os.system ["touch pwned"]\n')
    printed = command('train', '-opt', path, cwd=tmp_path, expect=2)
    assert 'line 1' in printed
    assert 'refused' in printed
    assert not (tmp_path / 'pwned').exists()


def test_no_space_left_is_told_and_keeps_what_was_saved(tiny, tmp_path):
    """A limit on the size of files stands for a full disk: writing fails in the middle."""
    tiny['train']['total_iter'] = 4
    tiny['logger']['save_checkpoint_freq'] = 2
    del tiny['val']
    options = write_options(tmp_path, tiny)
    command('train', '-opt', options, '--force_yml', 'train:total_iter=2', cwd=tmp_path)
    before = state_of(tmp_path, 2)
    limit = 100_000
    process = start(
        *('train', '-opt', options, '--auto_resume'),
        cwd=tmp_path,
        preexec_fn=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        ),
    )
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 1, printed
    assert 'Traceback' not in printed
    assert 'cannot write' in printed
    assert '--auto_resume' in printed
    assert same(state_of(tmp_path, 2), before)
    assert not list((tmp_path / 'experiments').rglob('.*'))


def test_two_processes_of_torchrun_train_one_network(tiny, tmp_path):
    """Two of batch 1 see what one of batch 2 sees, and make the same weights but for the order of sums."""
    del tiny['val']
    tiny['train']['total_iter'] = 3
    tiny['train']['optim_g'] = {'type': 'Adam', 'lr': 1e-3, 'eps': 1e-3}  # rounding stays rounding
    tiny['train']['losses'] = {'pix': {'type': 'L1Loss'}}
    alone, both = tmp_path / 'alone', tmp_path / 'both'
    for folder in (alone, both):
        folder.mkdir()
    command('train', '-opt', write_options(alone, tiny), cwd=alone)
    tiny['datasets']['train']['batch_size_per_gpu'] = 1
    options = write_options(both, tiny)
    printed = torchrun(both, 'train', '-opt', str(options), '--launcher', 'pytorch')
    assert printed.count('end of training') == 1
    one, two = state_of(alone, 3), state_of(both, 3)
    assert one['position'] == two['position'] == 6
    assert len(two['rngs']) == 2
    for key, value in one['networks']['net_g']['params'].items():
        assert torch.allclose(value, two['networks']['net_g']['params'][key], atol=1e-5), key
    # and it is resumed by as many, without saying that it is distributed
    torchrun(both, 'train', '-opt', str(options), '--auto_resume', '--force_yml', 'train:total_iter=4')
    assert state_of(both, 4)['position'] == 8


def torchrun(folder: Path, *arguments: str) -> str:
    launch = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', '-m', 'earn_plugin')
    done = subprocess.run(
        [sys.executable, *launch, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_losses_are_looked_at_before_anything_is_saved(tiny, tmp_path, monkeypatch):
    """On a device where looking waits, a loss is looked at only now and then, but always before a save."""
    from earn_plugin.errors import UserError
    from earn_plugin.options.completing import complete
    from earn_plugin.options.reading import read

    monkeypatch.chdir(tmp_path)
    del tiny['val']
    tiny['logger'].update(print_freq=100, save_checkpoint_freq=4)
    path = write_options(tmp_path, copy.deepcopy(tiny))
    training = Training(complete(read(path), True, False, False, 0, 1), path, [])
    monkeypatch.setattr(training.model, 'device', torch.device('meta'))  # as if it were not the CPU
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

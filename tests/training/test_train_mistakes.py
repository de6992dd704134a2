"""Training that cannot go on: a clear message, an exit code, and nothing that was saved is lost."""

import copy
import re
import resource
import signal

import pytest
import torch

from earn_plugin.errors import UserError
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.options_file import read_options
from earn_plugin.training.train import Training
from tests.helpers.command import command, start
from tests.helpers.images import write_pairs
from tests.helpers.options import write_options
from tests.helpers.runs import same, state_of

pytestmark = pytest.mark.slow


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


def test_back_to_an_older_state_and_on_from_there(tiny, tmp_path):
    tiny['logger']['save_checkpoint_freq'] = 2
    options = write_options(tmp_path, tiny)
    command('train', '-opt', options, cwd=tmp_path)
    older = tmp_path / 'experiments/tiny/training_states/2.state'
    resume = ('--force_yml', f'path:resume_state={older}', 'train:total_iter=3', 'train:optim_g:lr=0.5')
    printed = command('train', '-opt', options, *resume, cwd=tmp_path)
    assert re.search(r'going back to iteration 2: \S+/6\.state is renamed', printed)
    assert 'resumed with another train.optim_g.lr: 0.001 → 0.5' in printed
    assert 'lr:(5.000e-01,)' in printed
    printed = command('train', '-opt', options, '--auto_resume', '--force_yml', 'train:total_iter=4', cwd=tmp_path)
    assert re.search(r'resuming from \S+/3\.state', printed)


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


BAD = {
    'batch': ({'datasets:train:batch_size_per_gpu': 50}, 1, 'a batch of 50 is larger than an epoch'),
    'option': ({'train:ema_decayy': 0.9}, 2, 'train.ema_decayy: is not known here; did you mean ema_decay?'),
    'folder': ({'datasets:train:dataroot_gt': 'gone'}, 2, 'datasets.train.dataroot_gt: gone does not exist'),
    'network': ({'network_g:num_feat': 20}, 1, 'num_feat must be a multiple of 16 (squeeze_factor), got 20'),
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
    printed = command('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path, expect=1)
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


def test_losses_are_looked_at_before_anything_is_saved(tiny, tmp_path, monkeypatch):
    """On a device where looking waits, a loss is looked at only now and then, but always before a save."""
    monkeypatch.chdir(tmp_path)
    del tiny['val']
    tiny['logger'].update(print_freq=100, save_checkpoint_freq=4)
    path = write_options(tmp_path, copy.deepcopy(tiny))
    training = Training(fill_defaults(read_options(path), is_train=True), path, [])
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

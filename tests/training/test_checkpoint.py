import copy
import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.models import build_model

from earn_plugin import rng
from earn_plugin.convert import weight_files
from earn_plugin.errors import UserError
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.options_file import read_options
from earn_plugin.training import checkpoint, resume
from tests.helpers.options import write_options
from tests.models.test_earn_model import batch, step


@pytest.fixture
def opt(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return fill_defaults(read_options(write_options(tmp_path, tiny)), is_train=True)


@pytest.fixture
def model(opt):
    torch.manual_seed(0)
    model = build_model(opt)
    for iteration in (1, 2):
        step(model, iteration)
    model.best_metric_results = {'held_out': {'psnr': {'better': 'higher', 'val': np.float64(3.5), 'iter': 1}}}
    return model


def save(model, opt, iteration=2):
    return checkpoint.save_state(
        model, opt, iteration=iteration, epoch=0, position=2 * iteration, rngs=[rng.get_state()]
    )


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_state_holds_everything(model, opt):
    state = weight_files.load_torch_file(save(model, opt))
    assert equal(state['networks']['net_g']['params'], model.net_g.state_dict())
    assert equal(state['networks']['net_g']['params_ema'], model.net_g_ema.state_dict())
    assert (state['iter'], state['position']) == (2, 4)
    assert state['best_metric_results'] == model.best_metric_results
    assert state['options']['network_g'] == opt['network_g']
    torch.manual_seed(1)
    fresh = build_model(opt)
    resume.restore(fresh, state, opt)
    for label in ('net_g', 'net_g_ema'):
        assert equal(getattr(fresh, label).state_dict(), getattr(model, label).state_dict())
    for one in (model, fresh):
        step(one, 3, batch(2))
    assert equal(fresh.net_g.state_dict(), model.net_g.state_dict())
    assert fresh.best_metric_results['held_out']['psnr'] == model.best_metric_results['held_out']['psnr']


def test_every_network_of_any_model_is_found(opt):
    opt = copy.deepcopy(opt)
    opt['model_type'] = 'SRGANModel'
    opt['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}
    opt['train'].update(pixel_opt={'type': 'L1Loss'}, gan_opt={'type': 'GANLoss', 'gan_type': 'vanilla'})
    opt['train']['optim_d'] = {'type': 'Adam', 'lr': 1e-4}
    model = build_model(opt)
    found = checkpoint.networks_of(model)
    assert found['net_g'] == {'params': model.net_g, 'params_ema': model.net_g_ema}
    assert found['net_d'] == {'params': model.net_d}
    assert not (set(vars(model)) & {'save_network', 'save_training_state'})
    state = weight_files.load_torch_file(save(model, opt))
    assert len(state['optimizers']) == 2
    resume.restore(build_model(opt), state, opt)


def test_the_latest_states_are_kept(model, opt):
    folder = Path(opt['path']['training_states'])
    for iteration in (1, 5, 9, 10, 11):
        save(model, opt, iteration)
    (folder / 'notes.state').touch()
    (folder / '7.state.bak').touch()
    assert sorted(p.name for p in folder.iterdir()) == ['10.state', '11.state', '7.state.bak', '9.state', 'notes.state']
    assert [p.name for p in checkpoint.states_in(folder)] == ['11.state', '10.state', '9.state']


@pytest.mark.parametrize('damage', ['cut', 'empty', 'text', 'flipped', 'other'])
def test_the_latest_valid_state_is_loaded_with_warnings_of_those_skipped(model, opt, damage):
    save(model, opt, 1)
    newest = save(model, opt, 2)
    content = bytearray(newest.read_bytes())
    if damage == 'other':
        torch.save([1, 2], newest)
    else:
        content[len(content) // 2] ^= 0xFF
        newest.write_bytes(
            {'cut': content[: len(content) // 2], 'empty': b'', 'text': b'hello', 'flipped': bytes(content)}[damage]
        )
    (newest.parent / 'stray.state').write_text('not a state')
    state, warnings = resume.latest_valid_state(newest.parent)
    assert state['iter'] == 1
    assert '2.state' in warnings[0]
    assert warnings[1] == f'resuming from {newest.parent / "1.state"}'


def test_a_flipped_bit_anywhere_is_detected_or_harmless(model, opt):
    """Most are in the archive's directory at the end, where zipfile fails in many ways."""
    path = save(model, opt)
    intact, content = resume.load_state(path), path.read_bytes()
    random = np.random.default_rng(0)
    for place in [*random.integers(len(content) - 4000, len(content), 150), *random.integers(len(content), size=20)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            state = resume.load_state(path)
        except UserError as error:
            assert str(path) in str(error)
            continue
        assert equal(state['networks']['net_g']['params'], intact['networks']['net_g']['params'])


def test_a_network_file_is_not_a_state(model, opt):
    checkpoint.save_networks(model, opt, '5')
    with pytest.raises(UserError, match=r'net_g_5\.pth is not a training state: it has no iter'):
        resume.load_state(Path(opt['path']['models'], 'net_g_5.pth'))


def test_no_state_and_no_valid_state(model, opt):
    folder = Path(opt['path']['training_states'])
    assert resume.latest_valid_state(folder) == (None, [])
    save(model, opt).write_bytes(b'')
    with pytest.raises(UserError, match='none of the 1 states'):
        resume.latest_valid_state(folder)


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path('pwned'),))


def test_a_pickle_with_code_is_refused_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'iter': 1, 'x': Harmful()}, '1.state')
    with pytest.raises(UserError, match='holds more than'):
        weight_files.load_torch_file(Path('1.state'))
    assert not Path('pwned').exists()


def test_missing_file():
    with pytest.raises(UserError, match='does not exist'):
        weight_files.load_torch_file(Path('nowhere.state'))


def test_a_full_disk_keeps_the_earlier_state(model, opt, monkeypatch):
    path = save(model, opt)
    before = path.read_bytes()

    def full(content, file):
        file.write(b'half of it')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(UserError, match=r'cannot write .*2\.state: no space left \(\d+ MiB free\).*--auto_resume'):
        save(model, opt)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ['2.state']


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs a device that is full')
def test_a_full_device(model, opt, monkeypatch):
    """As torch reports it while it writes its archive."""
    real = Path.open
    monkeypatch.setattr(Path, 'open', lambda path, mode: real(Path('/dev/full'), 'wb'))
    with pytest.raises(UserError, match='no space left'):
        save(model, opt)
    assert list(Path(opt['path']['training_states']).iterdir()) == []


def test_network_files_describe_themselves_and_stock_basicsr_reads_them(model, opt):
    checkpoint.save_networks(model, opt, '5')
    path = Path(opt['path']['models'], 'net_g_5.pth')
    content = torch.load(path, weights_only=True)
    assert content['arch'] == 'EARN'
    assert content['scale'] == 2
    assert content['arguments']['num_feat'] == 16
    assert content['arguments']['squeeze_factor'] == 16  # a default
    network = build_network({'type': content['arch'], **content['arguments']})
    network.load_state_dict(content['params_ema'])
    stock = {**copy.deepcopy(opt), 'model_type': 'SRModel'}
    stock['path'].update(pretrain_network_g=str(path), param_key_g='params_ema', strict_load_g=True)
    stock['train']['pixel_opt'] = {'type': 'L1Loss'}
    assert equal(build_model(stock).net_g.state_dict(), model.net_g_ema.state_dict())


def test_a_description_holds_only_data(opt, tmp_path):
    """SwinIR has a class among its defaults."""
    described = weight_files.describe_network('net_g', {'network_g': {'type': 'SwinIR', 'upscale': 4}, 'scale': 4})
    assert described['arguments']['upscale'] == 4
    assert 'norm_layer' not in described['arguments']
    torch.save(described, tmp_path / 'x')
    assert weight_files.load_torch_file(tmp_path / 'x') == described
    described = weight_files.describe_network('net_d', {'network_d': {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3}})
    assert described['arguments'] == {'num_in_ch': 3, 'num_feat': 64, 'skip_connection': True}


def test_a_state_of_a_different_network_is_refused(model, opt):
    state = weight_files.load_torch_file(save(model, opt))
    other = copy.deepcopy(opt)
    other['network_g']['num_feat'] = 32
    with pytest.raises(UserError, match=r'different network \(network_g\.num_feat: 16 → 32\)'):
        resume.check_resumed_options(state, other)
    with pytest.raises(UserError, match='does not fit this model'):
        resume.restore(build_model(other), state, other)


def test_other_changes_are_warnings(model, opt):
    state = weight_files.load_torch_file(save(model, opt))
    assert resume.check_resumed_options(state, opt) == []
    other = copy.deepcopy(opt)
    other['train']['optim_g']['lr'] = 0.5
    other['train']['total_iter'] = 100
    other['datasets']['train']['num_worker_per_gpu'] = 7
    (warning,) = resume.check_resumed_options(state, other)
    assert 'train.optim_g.lr: 0.001 → 0.5' in warning


def test_a_new_optimiser_and_schedule_hold_from_the_resume_on(model, opt):
    state = weight_files.load_torch_file(save(model, opt))
    other = copy.deepcopy(opt)
    other['train']['optim_g'] = {'type': 'AdamW', 'lr': 0.5, 'weight_decay': 0.25}
    other['train']['scheduler'].update(milestones=[1, 3], gamma=0.1)
    resumed = build_model(other)
    resume.restore(resumed, state, other)
    group = resumed.optimizers[0].param_groups[0]
    assert group['lr'] == pytest.approx(0.05)  # one milestone has passed
    assert group['weight_decay'] == 0.25
    moments = weight_files.load_torch_file(save(model, opt))['optimizers'][0]['state']
    for index, moment in resumed.optimizers[0].state_dict()['state'].items():
        assert equal(moment, moments[index])
    for iteration in (3, 4):
        step(resumed, iteration)
    assert group['lr'] == pytest.approx(0.005)


def test_a_new_metric_starts_without_a_best(model, opt):
    """The best metrics of the model fixture have no SSIM."""
    resumed = build_model(opt)
    resume.restore(resumed, weight_files.load_torch_file(save(model, opt)), opt)
    resumed._update_best_metric_result('held_out', 'ssim', 0.5, 3)
    resumed._update_best_metric_result('held_out', 'psnr', 0.5, 3)
    best = resumed.best_metric_results['held_out']
    assert (best['psnr']['val'], best['psnr']['iter']) == (3.5, 1)
    assert (best['ssim']['val'], best['ssim']['iter']) == (0.5, 3)


def test_newer_states_are_renamed(model, opt):
    folder = Path(opt['path']['training_states'])
    for iteration in (2, 5, 6):
        save(model, opt, iteration)
    warnings = resume.rename_newer_states(folder, 2)
    assert [p.name for p in checkpoint.states_in(folder)] == ['2.state']
    assert len(list(folder.iterdir())) == 3
    assert str(folder / '6.state') in warnings[0]
    assert resume.rename_newer_states(folder, 2) == []

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.models import build_model

from earn_plugin.convert import weight_files
from earn_plugin.devices import to_channels_last
from earn_plugin.errors import UserError
from earn_plugin.models import EARNModel
from earn_plugin.training import checkpoint, resume
from tests.helpers.runs import batch, build, same, save_state, step


@pytest.mark.parametrize('damage', ['cut', 'empty', 'text', 'flipped', 'other'])
def test_the_latest_valid_state_is_loaded_with_warnings_of_those_skipped(model, opt, damage):
    save_state(model, opt, 1)
    newest = save_state(model, opt, 2)
    content = bytearray(newest.read_bytes())
    if damage == 'other':
        torch.save([1, 2], newest)
    else:
        content[len(content) // 2] ^= 0xFF
        newest.write_bytes(
            {'cut': content[: len(content) // 2], 'empty': b'', 'text': b'hello', 'flipped': bytes(content)}[damage]
        )
    (newest.parent / 'stray.state').write_text('not a state')
    state, warnings = resume.find_state(opt | {'auto_resume': True})
    assert state['iter'] == 1
    assert '2.state' in warnings[0]
    assert warnings[1] == f'resuming from {newest.parent / "1.state"}'


def test_a_flipped_bit_anywhere_is_refused(model, opt):
    """Most are in the archive's directory at the end, where zipfile fails in many ways."""
    path = save_state(model, opt)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for place in [*random.integers(len(content) - 4000, len(content), 150), *random.integers(len(content), size=20)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf'{path.name} cannot be loaded: it is damaged'):
            resume.load_state(path)


def test_a_network_file_is_not_a_state(model, opt):
    checkpoint.save_networks(model, opt, '5')
    with pytest.raises(UserError, match=r'net_g_5\.pth is not a training state: it has no iter'):
        resume.load_state(Path(opt['path']['models'], 'net_g_5.pth'))


def test_no_state_and_no_valid_state(model, opt):
    """Without a state of its own, a run starts from ``path: resume_state``."""
    opt['auto_resume'] = True
    assert resume.find_state(opt) == (None, [])
    first = save_state(model, opt)
    opt['path']['resume_state'] = str(first.rename('first.state').resolve())
    assert resume.find_state(opt)[0]['iter'] == 2
    save_state(model, opt).write_bytes(b'')
    with pytest.raises(UserError, match='none of the 1 states'):
        resume.find_state(opt)


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path('pwned'),))


def test_a_pickle_with_code_is_refused_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'iter': 1, 'optimizers': [], 'schedulers': Harmful()}, '1.state')
    with pytest.raises(UserError, match='holds more than'):
        resume.load_state(Path('1.state'))
    assert not Path('pwned').exists()


def test_a_state_of_a_different_network_is_refused(model, opt):
    state = weight_files.load_torch_file(save_state(model, opt))
    other = copy.deepcopy(opt)
    other['network_g']['num_feat'] = 32
    with pytest.raises(UserError, match=r'different network \(network_g\.num_feat: 16 → 32\)'):
        resume.check_resumed_options(state, other)
    with pytest.raises(UserError, match='does not fit this model'):
        resume.restore(build_model(other), state, other)


def test_other_frozen_parameters_are_refused(opt):
    """The optimiser's tensors have no names: those of conv_first would become those of another layer."""
    opt['train']['freeze'] = ['conv_first']
    state = weight_files.load_torch_file(save_state(build(opt), opt))
    for given in (['conv_last'], [], None):
        other = copy.deepcopy(opt)
        other['train']['freeze'] = given
        with pytest.raises(UserError, match=r"\(train\.freeze: \['conv_first'\] → .*pretrain_network_g"):
            resume.check_resumed_options(state, other)
    state['options']['train']['freeze'] = []
    resume.check_resumed_options(state, other)


def test_a_moving_average_that_is_new_starts_from_the_network(opt):
    plain = build(opt, ema_decay=0)
    step(plain)
    state = weight_files.load_torch_file(save_state(plain, opt))
    averaged = build(opt)
    resume.restore(averaged, state, opt)
    assert same(dict(averaged.net_g_ema.state_dict()), dict(plain.net_g.state_dict()))


def test_other_changes_are_warnings(model, opt):
    state = weight_files.load_torch_file(save_state(model, opt))
    assert resume.check_resumed_options(state, opt) == []
    other = copy.deepcopy(opt)
    other['train']['optim_g']['lr'] = 0.5
    other['train']['total_iter'] = 100
    other['datasets']['train']['num_worker_per_gpu'] = 7
    (warning,) = resume.check_resumed_options(state, other)
    assert 'train.optim_g.lr: 0.001 → 0.5' in warning


@pytest.mark.parametrize('is_last', [False, True], ids=['to_contiguous', 'to_channels_last'])
def test_a_state_is_resumed_into_another_memory_layout(opt, is_last):
    """torch's fused Adam reads its tensors and the parameters in the order of memory."""
    opt['train']['optim_g']['fused'] = True
    model, resumed = build(opt), build(opt)
    to_channels_last((resumed if is_last else model).net_g)
    for iteration in (1, 2):
        step(model, iteration)
    state = weight_files.load_torch_file(save_state(model, opt))
    assert checkpoint.save_networks(model, opt, 'x') is None
    saved = torch.load(Path(opt['path']['models'], 'net_g_x.pth'), weights_only=True)['params']
    assert all(value.is_contiguous() for value in saved.values())
    resume.restore(resumed, state, opt)
    for one in (model, resumed):
        step(one, 3, batch(2))
    # convolutions round differently; a state in the wrong order gives a hundred times as much
    for name, value in model.net_g.state_dict().items():
        torch.testing.assert_close(resumed.net_g.state_dict()[name], value, rtol=0, atol=2e-5)


def test_a_model_with_further_state(opt):
    class Scaled(EARNModel):
        scale = torch.tensor(1.0)

        def extra_state(self):
            return {'scale': self.scale}

        def load_extra_state(self, state):
            self.scale = state['scale']

    def build_scaled():
        return Scaled(copy.deepcopy(opt))

    model = build_scaled()
    model.scale = torch.tensor(8.0)
    state = weight_files.load_torch_file(save_state(model, opt))
    model.scale += 1
    resumed = build_scaled()
    resume.restore(resumed, state, opt)
    assert resumed.scale == 8
    resume.restore(build_scaled(), {key: state[key] for key in state.keys() - {'extra_state'}}, opt)  # an old one


def test_a_new_optimiser_and_schedule_hold_from_the_resume_on(model, opt):
    state = weight_files.load_torch_file(save_state(model, opt))
    other = copy.deepcopy(opt)
    other['train']['optim_g'] = {'type': 'AdamW', 'lr': 0.5, 'weight_decay': 0.25}
    other['train']['scheduler'].update(milestones=[1, 3], gamma=0.1)
    resumed = build_model(other)
    resume.restore(resumed, state, other)
    group = resumed.optimizers[0].param_groups[0]
    assert group['lr'] == pytest.approx(0.05)  # one milestone has passed
    assert group['weight_decay'] == 0.25
    moments = weight_files.load_torch_file(save_state(model, opt))['optimizers'][0]['state']
    for index, moment in resumed.optimizers[0].state_dict()['state'].items():
        assert same(moment, moments[index])
    for iteration in (3, 4):
        step(resumed, iteration)
    assert group['lr'] == pytest.approx(0.005)


def test_a_new_metric_starts_without_a_best(model, opt):
    """The best metrics of the model fixture have no SSIM."""
    resumed = build_model(opt)
    resume.restore(resumed, weight_files.load_torch_file(save_state(model, opt)), opt)
    resumed._update_best_metric_result('held_out', 'ssim', 0.5, 3)
    resumed._update_best_metric_result('held_out', 'psnr', 0.5, 3)
    best = resumed.best_metric_results['held_out']
    assert (best['psnr']['val'], best['psnr']['iter']) == (3.5, 1)
    assert (best['ssim']['val'], best['ssim']['iter']) == (0.5, 3)


def test_newer_states_are_renamed(model, opt):
    folder = Path(opt['path']['training_states'])
    for iteration in (2, 5, 6):
        save_state(model, opt, iteration)
    warnings = resume.rename_newer_states(folder, 2)
    assert [p.name for p in checkpoint.states_in(folder)] == ['2.state']
    assert len(list(folder.iterdir())) == 3
    assert str(folder / '6.state') in warnings[0]
    assert resume.rename_newer_states(folder, 2) == []

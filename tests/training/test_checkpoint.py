import copy
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from basicsr.models import build_model

from earn_plugin.convert import weight_files
from earn_plugin.errors import UserError
from earn_plugin.training import checkpoint, resume
from tests.helpers.runs import batch, same, save_state, step


def test_a_state_holds_everything(model, opt):
    state = weight_files.load_torch_file(save_state(model, opt))
    assert same(state['networks']['net_g']['params'], model.net_g.state_dict())
    assert same(state['networks']['net_g']['params_ema'], model.net_g_ema.state_dict())
    assert (state['iter'], state['position']) == (2, 4)
    assert state['best_metric_results'] == model.best_metric_results
    assert state['options']['network_g'] == opt['network_g']
    torch.manual_seed(1)
    fresh = build_model(opt)
    resume.restore(fresh, state, opt)
    for label in ('net_g', 'net_g_ema'):
        assert same(getattr(fresh, label).state_dict(), getattr(model, label).state_dict())
    for one in (model, fresh):
        step(one, 3, batch(2))
    assert same(fresh.net_g.state_dict(), model.net_g.state_dict())
    assert fresh.best_metric_results['held_out']['psnr'] == model.best_metric_results['held_out']['psnr']


def test_the_latest_states_are_kept(model, opt):
    folder = Path(opt['path']['training_states'])
    for iteration in (1, 5, 9, 10, 11):
        save_state(model, opt, iteration)
    (folder / 'notes.state').touch()
    (folder / '7.state.bak').touch()
    assert sorted(p.name for p in folder.iterdir()) == ['10.state', '11.state', '7.state.bak', '9.state', 'notes.state']
    assert [p.name for p in checkpoint.states_in(folder)] == ['11.state', '10.state', '9.state']


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs a device that is full')
def test_a_full_device(model, opt, monkeypatch):
    """As torch reports it while it writes its archive."""
    real = Path.open
    monkeypatch.setattr(Path, 'open', lambda path, mode: real(Path('/dev/full'), 'wb'))
    with pytest.raises(UserError, match='no space left'):
        save_state(model, opt)
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
    assert same(build_model(stock).net_g.state_dict(), model.net_g_ema.state_dict())


def test_a_description_holds_only_data(opt, tmp_path):
    """SwinIR has a class among its defaults."""
    described = weight_files.describe_network('net_g', {'network_g': {'type': 'SwinIR', 'upscale': 4}, 'scale': 4})
    assert described['arguments']['upscale'] == 4
    assert 'norm_layer' not in described['arguments']
    torch.save(described, tmp_path / 'x')
    assert weight_files.load_torch_file(tmp_path / 'x') == described
    described = weight_files.describe_network('net_d', {'network_d': {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3}})
    assert described['arguments'] == {'num_in_ch': 3, 'num_feat': 64, 'skip_connection': True}

import pytest
import torch

from earn_plugin.errors import UserError
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.options_file import read_options
from earn_plugin.training.model import build_checked_model
from tests.helpers.options import write_options


def test_what_a_model_refuses_is_reported(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny['network_g']['num_feat'] = 30
    opt = fill_defaults(read_options(write_options(tmp_path, tiny)), is_train=True)
    with pytest.raises(UserError, match=r'model EARNModel cannot be built: num_feat must be a multiple of 4'):
        build_checked_model(opt)


def test_pretrained_files_are_compared_first(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'params': {}, 'arch': 'A2N', 'arguments': {}, 'scale': 2}, 'net.pth')
    tiny['path']['pretrain_network_g'] = 'net.pth'
    opt = fill_defaults(read_options(write_options(tmp_path, tiny)), is_train=True)
    with pytest.raises(UserError, match=r'net\.pth .* different network_g: the file has A2N, the options EARN'):
        build_checked_model(opt)


def test_safetensors_must_be_converted_first(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'net.safetensors').touch()
    tiny['path']['pretrain_network_g'] = 'net.safetensors'
    opt = fill_defaults(read_options(write_options(tmp_path, tiny)), is_train=True)
    with pytest.raises(UserError, match=r'basicsr convert net\.safetensors X\.pth'):
        build_checked_model(opt)

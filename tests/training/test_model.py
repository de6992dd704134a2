import pytest
import torch

from earn_plugin.errors import UserError
from earn_plugin.training.model import build_checked_model


def test_what_a_model_refuses_is_reported(opt):
    opt['network_g']['num_feat'] = 30
    with pytest.raises(UserError, match=r'model EARNModel cannot be built: num_feat must be a multiple of 4'):
        build_checked_model(opt)


@pytest.mark.parametrize(
    ('described', 'message'),
    [
        ({'arch': 'A2N', 'arguments': {}}, 'the file has A2N, the options EARN'),
        (
            {'arch': 'EARN', 'arguments': {'num_feat': 32}},
            'num_feat: the file has 32, the options 16',
        ),
    ],
)
def test_pretrained_files_are_compared_first(opt, described, message):
    torch.save({'params': {}, 'scale': 2, **described}, 'net.pth')
    opt['path']['pretrain_network_g'] = 'net.pth'
    with pytest.raises(UserError, match=rf'net\.pth belongs to a different network_g: {message}'):
        build_checked_model(opt)


def test_safetensors_must_be_converted_first(opt):
    opt['path']['pretrain_network_g'] = 'net.safetensors'
    with pytest.raises(UserError, match=r'basicsr convert net\.safetensors X\.pth'):
        build_checked_model(opt)

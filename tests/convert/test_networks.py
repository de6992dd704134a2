import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from earn_plugin.convert.networks import NetworkChoice, find_network
from earn_plugin.errors import UsageError, UserError

SMALL = {'num_feat': 4, 'num_block': 1}


def test_a_registered_name():
    found = find_network(NetworkChoice('A2N', {'upscale': 2, 'num_block': 1}))
    assert (found.arch, found.arguments, found.form) == ('A2N', {'upscale': 2, 'num_block': 1}, 'training form')
    assert not found.network.training


def test_a_network_of_basicsr():
    assert find_network(NetworkChoice('SRVGGNetCompact')).arch == 'SRVGGNetCompact'


@pytest.mark.parametrize(
    ('choice', 'message'),
    [
        (NetworkChoice('models/LGVAN'), 'neither a registered network'),
        (NetworkChoice('A2N', {'upscale': 7}), r'A2N cannot be built: .*upscale'),
        (NetworkChoice('A2N', arch='LGVAN'), 'A2N is not a checkpoint'),
    ],
)
def test_a_choice_that_does_not_exist(choice, message):
    with pytest.raises(UsageError, match=message):
        find_network(choice)


def test_an_error_of_the_constructor(monkeypatch):
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Odd', lambda how: {}[how])
    with pytest.raises(UsageError, match="Odd cannot be built: KeyError: 'x'"):
        find_network(NetworkChoice('Odd', {'how': 'x'}))


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r'net\.pth does not exist'):
        find_network(NetworkChoice(str(tmp_path / 'net.pth')))


class LayerCalledFuse(nn.Module):
    def __init__(self):
        super().__init__()
        self.fuse = nn.Conv2d(3, 3, 1)


class OtherFuse(nn.Conv2d):
    def fuse(self):
        return self


def test_an_arch_that_is_not_registered(tmp_path):
    torch.save({'x': torch.zeros(1)}, tmp_path / 'net.pth')
    with pytest.raises(UsageError, match='Nope is not registered'):
        find_network(NetworkChoice(str(tmp_path / 'net.pth'), arch='Nope'))


def test_a_layer_called_fuse_is_not_a_fused_form(monkeypatch, tmp_path):
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Odd', LayerCalledFuse)
    with pytest.raises(UserError, match='Odd has no fused form'):
        find_network(NetworkChoice('Odd', fused=True))
    torch.save({'x': torch.zeros(1)}, tmp_path / 'net.pth')
    with pytest.raises(UserError, match='its weights do not fit'):
        find_network(NetworkChoice(str(tmp_path / 'net.pth'), arch='Odd'))


def test_a_network_without_the_argument_fused(monkeypatch, tmp_path):
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Odd', OtherFuse)
    torch.save({'x': torch.zeros(1)}, tmp_path / 'net.pth')
    arguments = {'in_channels': 3, 'out_channels': 3, 'kernel_size': 1}
    with pytest.raises(UserError, match='its weights do not fit'):
        find_network(NetworkChoice(str(tmp_path / 'net.pth'), arguments, arch='Odd'))


@pytest.mark.parametrize('is_described', [True, False])
def test_a_checkpoint(tmp_path, is_described):
    found = find_network(NetworkChoice('LGVAN', SMALL))
    description = {'arch': found.arch, 'arguments': found.arguments, 'scale': 4} if is_described else {}
    torch.save({'params': found.network.state_dict()} | description, tmp_path / 'net.pth')
    choice = NetworkChoice(str(tmp_path / 'net.pth'), {} if is_described else SMALL, arch='LGVAN')
    x = torch.rand(1, 3, 5, 7)
    assert torch.equal(find_network(choice).network(x), found.network(x))
    if is_described:
        with pytest.raises(UserError, match='is a checkpoint of LGVAN, not of A2N'):
            find_network(NetworkChoice(choice.model, arch='A2N'))


def test_the_fused_form():
    found = find_network(NetworkChoice('LGVAN', SMALL, fused=True))
    assert found.form == 'fused form'
    assert found.network.fused and not found.network.training
    assert found.arguments == {**SMALL, 'fused': True}
    again = find_network(NetworkChoice('LGVAN', found.arguments, fused=True))
    assert again.network.state_dict().keys() == found.network.state_dict().keys()

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY

from earn_plugin.convert.networks import NetworkChoice, find_network
from earn_plugin.errors import UsageError, UserError


def test_a_registered_name():
    found = find_network(NetworkChoice('A2N', {'upscale': 2, 'num_block': 1}))
    assert (found.arch, found.arguments, found.form) == ('A2N', {'upscale': 2, 'num_block': 1}, 'training form')
    assert not found.network.training


def test_a_network_of_basicsr():
    assert find_network(NetworkChoice('SRVGGNetCompact')).arch == 'SRVGGNetCompact'


@pytest.mark.parametrize('what', ['LGVAM', 'models/LGVAN'])
def test_what_is_not_known_is_told(what):
    with pytest.raises(UsageError, match='neither a registered network'):
        find_network(NetworkChoice(what))


def test_arguments_that_do_not_fit():
    with pytest.raises(UsageError, match=r'A2N cannot be built: .*upscale'):
        find_network(NetworkChoice('A2N', {'upscale': 7}))


def test_a_network_that_cannot_be_built_in_its_own_way(monkeypatch):
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Odd', lambda how: {}[how])
    with pytest.raises(UsageError, match="Odd cannot be built: KeyError: 'x'"):
        find_network(NetworkChoice('Odd', {'how': 'x'}))


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r'net\.pth'):
        find_network(NetworkChoice(str(tmp_path / 'net.pth')))


@pytest.mark.parametrize('arch', ['A2N', 'RK4RDN'])  # a layer of the latter is called fuse
def test_no_inference_form(arch):
    with pytest.raises(UserError, match=f'{arch} has no fused form'):
        find_network(NetworkChoice(arch, {'upscale': 2, 'num_block': 1}, fused=True))


def test_a_checkpoint(tmp_path):
    found = find_network(NetworkChoice('LGVAN', {'num_feat': 4, 'num_block': 1}))
    description = {'arch': found.arch, 'arguments': found.arguments, 'scale': 4}
    torch.save({'params': found.network.state_dict()} | description, tmp_path / 'net.pth')
    read = find_network(NetworkChoice(str(tmp_path / 'net.pth')))
    x = torch.rand(1, 3, 5, 7)
    assert torch.equal(read.network(x), found.network(x))


def test_the_inference_form():
    found = find_network(NetworkChoice('LGVAN', {'num_feat': 4, 'num_block': 1}, fused=True))
    assert found.form == 'fused form'
    assert found.network.fused and not found.network.training
    assert found.arguments == {'num_feat': 4, 'num_block': 1, 'fused': True}
    again = find_network(NetworkChoice('LGVAN', found.arguments, fused=True))
    assert again.network.state_dict().keys() == found.network.state_dict().keys()

import pytest
import torch
from basicsr.archs import build_network
from basicsr.archs.srvgg_arch import SRVGGNetCompact
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

import earn_plugin
from earn_plugin.convert import convert
from earn_plugin.convert.networks import NetworkChoice, find_network, output_of, read_network
from earn_plugin.errors import UsageError, UserError
from tests.helpers.command import command_here

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


PLAIN = {  # arguments of networks, and which of them cannot be inferred from the weights
    'EARN': [
        ({'num_feat': 16, 'num_block': 2, 'upscale': 3}, ()),
        ({'num_feat': 16, 'num_block': 1, 'groups': 2, 'squeeze_factor': 4, 'window_size': 5}, ()),
        ({'num_feat': 16, 'num_block': 1, 'use_asca': False, 'squeeze_factor': 8}, ()),
        ({'num_feat': 16, 'num_block': 1, 'use_local_attention': False, 'use_skip': False}, ('use_skip',)),
        ({'num_feat': 16, 'num_block': 1, 'variant': 'released', 'img_range': 1.0}, ('img_range',)),
        ({'num_feat': 16, 'num_block': 1, 'variant': 'released', 'use_asca': False}, ()),
        ({'num_feat': 16, 'variant': 'released', 'use_asca': False, 'squeeze_factor': 4}, ('squeeze_factor',)),
        ({'num_feat': 16, 'use_local_attention': False, 'window_size': 5}, ('window_size',)),
        ({'num_feat': 16, 'num_in_ch': 1, 'num_out_ch': 1, 'rgb_mean': [0.4]}, ('rgb_mean',)),
    ],
    'A2N': [
        ({'num_feat': 16, 'num_upfeat': 12, 'num_block': 2, 'variant': 'A2N-M'}, ()),
        ({'num_block': 1, 'upscale': 3}, ('upscale',)),
        ({'num_block': 1, 'branch_weights': 'equal'}, ('branch_weights',)),
        ({'num_block': 1, 'branch_weights': 'attention', 'upscale': 2}, ('branch_weights', 'upscale')),
        *(({'num_feat': 8, 'num_upfeat': 4, 'num_block': 2, 'upscale': s, 'fused': True}, ()) for s in (2, 3, 4)),
        ({'num_block': 1, 'variant': 'A2N-M', 'branch_weights': 'equal', 'fused': True}, ('branch_weights',)),
    ],
    'LGVAN': [
        ({'num_feat': 4, 'num_block': 2, 'upscale': s, 'fused': f}, ()) for s in (2, 3, 4) for f in (False, True)
    ],
    'HAN': [({'num_feat': 8, 'num_group': 3, 'num_block': 2, 'squeeze_factor': 4, 'upscale': 8}, ())],
    'RNAN': [({'num_feat': 4, 'num_block': 2, 'upscale': 3}, ()), ({'num_feat': 4, 'num_block': 4}, ())],
    'RK4RDN': [
        ({'num_feat': 8, 'num_block': 1, 'num_layer': 2, 'order': o, 'attention': a, **m}, ())
        for o in (1, 2, 4)
        for a, m in (
            ('none', {}),
            ('channel', {'squeeze_factor': 4}),
            ('spatial', {'non_local_mode': 'embedded'}),
            ('dual', {'non_local_mode': 'gaussian'}),
        )
    ],
    'DualAttentionRCAN': [
        ({'num_feat': 8, 'num_group': 2, 'num_block': 3, 'squeeze_factor': 4, 'upscale': 2, 'non_local_mode': m}, ())
        for m in ('gaussian', 'embedded')
    ],
    'RCAN': [
        ({'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_group': 2, 'num_block': 1, 'squeeze_factor': 4}, ())
    ],
}


@pytest.mark.parametrize(('arch', 'case'), [(arch, case) for arch, cases in PLAIN.items() for case in cases])
def test_weights_of_our_networks_without_metadata(tmp_path, arch, case):
    """As stock BasicSR writes them: the sizes are read from the shapes."""
    arguments, needed = case
    network = build_network({'type': arch, **arguments}).eval()
    torch.save({'params': network.state_dict()}, path := tmp_path / 'net_g_latest.pth')
    given = {name: arguments[name] for name in needed}
    found = read_network(path, given).found
    assert arguments.items() <= found.arguments.items()
    convert(path, tmp_path / 'ours.pth', given, arch=arch)
    x = torch.rand(1, arguments.get('num_in_ch', 3), 6, 7)
    with torch.no_grad():
        for loaded in (earn_plugin.load(path, arch=arch, **given), earn_plugin.load(tmp_path / 'ours.pth')):
            assert type(loaded) is type(network)
            assert torch.equal(loaded(x), network(x))


def test_what_the_weights_do_not_show_is_asked_for_or_reported(tmp_path, capsys, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    torch.save({'params': build_network({'type': 'A2N', 'num_block': 1, 'upscale': 3}).state_dict()}, 'a2n.pth')
    with pytest.raises(
        UsageError, match='upscale cannot be inferred from the weights; pass --upscale 2 or --upscale 3'
    ):
        earn_plugin.load('a2n.pth')
    printed = command_here('convert', 'a2n.pth', 'out.pth', '--arch', 'A2N', '--set', 'upscale=3', capsys=capsys)
    assert 'A2N has its defaults for what cannot be inferred from the weights: img_range=255.0; set' in printed
    command_here('convert', 'a2n.pth', 'o.pth', '--upscale', 3, '--set', 'img_range=1', capsys=capsys)
    assert earn_plugin.load('o.pth').img_range == 1
    with pytest.raises(UsageError, match=r'a2n\.pth is a checkpoint of A2N with num_feat=40, not 16'):
        earn_plugin.load('a2n.pth', arch='A2N', num_feat=16, upscale=3)
    torch.save(build_network({'type': 'EARN', 'num_feat': 16, 'num_block': 1}).state_dict(), 'earn.pth')
    find_network(NetworkChoice('earn.pth'))
    assert 'earn.pth: without architecture metadata, EARN has its defaults' in caplog.text
    assert 'use_skip=True, img_range=255.0, rgb_mean=' in caplog.text
    with pytest.raises(UserError, match='looks like HAN, but its weights do not fit'):
        earn_plugin.load('earn.pth', arch='HAN')


@pytest.fixture
def clash(monkeypatch):
    """The registry of a project that has a HAN of its own; ours has a suffix then."""

    class HAN(nn.Conv2d):
        def __init__(self, size: int = 3):
            super().__init__(size, 3, 1)

    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'HAN_basicsr', ARCH_REGISTRY._obj_map['HAN'])
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'HAN', HAN)
    return HAN


def test_a_project_with_a_network_of_the_same_name(golden, tmp_path, clash, monkeypatch):
    """Official checkpoints give ours; a file that records the name gives whichever its weights fit."""
    ours = ARCH_REGISTRY.get('HAN_basicsr')
    torch.save(golden('han_x2_f16b2').weights, tmp_path / 'official.pth')
    assert type(earn_plugin.load(tmp_path / 'official.pth')) is ours
    convert(tmp_path / 'official.pth', tmp_path / 'ours.pth')
    assert type(earn_plugin.load(tmp_path / 'ours.pth')) is ours
    torch.save(ours(num_feat=16, num_group=1, num_block=1).state_dict(), tmp_path / 'plain.pth')
    assert type(earn_plugin.load(tmp_path / 'plain.pth')) is ours
    assert type(earn_plugin.load(tmp_path / 'plain.pth', arch='HAN_basicsr')) is ours
    torch.save({'params': clash(1).state_dict(), 'arch': 'HAN', 'arguments': {'size': 1}}, tmp_path / 'theirs.pth')
    assert type(earn_plugin.load(tmp_path / 'theirs.pth')) is clash
    torch.save(clash(1).state_dict(), tmp_path / 'bare.pth')
    assert type(earn_plugin.load(tmp_path / 'bare.pth', arch='HAN', size=1)) is clash
    convert(tmp_path / 'ours.pth', tmp_path / 'back.pth', to_authors=True)
    with pytest.raises(UserError, match='no authors published checkpoints of HAN'):
        convert(tmp_path / 'theirs.pth', tmp_path / 'x.pth', to_authors=True)
    monkeypatch.undo()
    assert type(earn_plugin.load(tmp_path / 'ours.pth')) is ours


def test_the_fused_form():
    found = find_network(NetworkChoice('LGVAN', SMALL, fused=True))
    assert found.form == 'fused form'
    assert found.network.fused and not found.network.training
    assert found.arguments == {**SMALL, 'fused': True}
    again = find_network(NetworkChoice('LGVAN', found.arguments, fused=True))
    assert again.network.state_dict().keys() == found.network.state_dict().keys()


class CallsCuda(nn.Module):
    """As SPAN, in its constructor or in its forward."""

    def __init__(self, when_built: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        if when_built:
            self.cuda()(torch.rand(1, 3, 8, 8).cuda())

    def forward(self, x):
        return self.conv(x.cuda())


@pytest.fixture
def calls_cuda(monkeypatch, tmp_path):
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'CallsCuda', CallsCuda)
    torch.save(nn.Sequential(nn.Conv2d(3, 3, 1)).state_dict(), tmp_path / 'net.pth')
    return str(tmp_path / 'net.pth')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is CUDA here')
def test_without_cuda_a_network_that_calls_it(calls_cuda):
    reason = r'its code uses CUDA, which is not available here \(.*test_networks\.py, line \d+: self\.cuda\(\)'
    with pytest.raises(UserError, match=rf'CallsCuda cannot be built: {reason}') as error:
        find_network(NetworkChoice('CallsCuda'))
    assert '--set' not in str(error.value)
    with pytest.raises(UserError, match=reason):
        find_network(NetworkChoice(calls_cuda, arch='CallsCuda'))
    network = find_network(NetworkChoice('CallsCuda', {'when_built': False})).network
    with pytest.raises(UserError, match=r'uses CUDA, .*line \d+: return self\.conv\(x\.cuda\(\)\)'):
        output_of(network, torch.rand(1, 3, 8, 8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA here')
def test_with_cuda_it_is_found_on_the_cpu(calls_cuda):
    assert find_network(NetworkChoice('CallsCuda')).network.conv.weight.device.type == 'cpu'


class Undefined(nn.Module):
    def __init__(self, when_built: bool):
        super().__init__()
        if when_built:
            self.norm = LayerNorm2d(3)  # noqa: F821

    def forward(self, x):
        return missing(x)  # noqa: F821


def test_a_name_that_is_not_defined_has_its_line(monkeypatch):
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Undefined', Undefined)
    with pytest.raises(
        UsageError, match=r"'LayerNorm2d' is not defined \(.*test_networks\.py, line \d+: .*define or im"
    ):
        find_network(NetworkChoice('Undefined', {'when_built': True}))
    network = find_network(NetworkChoice('Undefined', {'when_built': False})).network
    with pytest.raises(
        UserError, match=r"name 'missing' is not defined \(.*test_networks\.py, line \d+: return missing"
    ):
        output_of(network, torch.rand(1))


@pytest.mark.parametrize(('given', 'near'), [('LGVN', 'LGVAN'), ('rnan', 'RNAN'), ('SRVGGNet', 'SRVGGNetCompact')])
def test_near_names(tmp_path, given, near):
    torch.save({'x': torch.zeros(1)}, tmp_path / 'net.pth')
    with pytest.raises(UsageError, match=rf'--arch {given} is not registered \(did you mean {near}.*--set NAME=VALUE'):
        find_network(NetworkChoice(str(tmp_path / 'net.pth'), arch=given))
    with pytest.raises(UsageError, match=rf'did you mean {near}'):
        find_network(NetworkChoice(given))


def test_an_arch_whose_arguments_are_missing(tmp_path):
    torch.save(SRVGGNetCompact(num_feat=8).state_dict(), tmp_path / 'net.pth')
    with pytest.raises(
        UserError, match=r'shape .*the defaults of SRVGGNetCompact with --set NAME=VALUE, or try another --arch'
    ):
        find_network(NetworkChoice(str(tmp_path / 'net.pth'), arch='SRVGGNetCompact'))

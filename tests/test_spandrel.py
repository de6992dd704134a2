"""spandrel itself loads every network from our files and from the authors', and its own networks as before."""

import logging
import sys
from importlib import import_module

import pytest
import torch
from basicsr.archs import build_network

import earn_plugin
from earn_plugin.convert.conversion import authors_weights
from earn_plugin.convert.networks import FoundNetwork
from earn_plugin.convert.weight_files import describe_network, write_weights
from tests.helpers.places import SHARED

spandrel = pytest.importorskip('spandrel', reason='spandrel, an extra, is not installed')
install = earn_plugin.spandrel.install

RK4RDN = {'type': 'RK4RDN', 'num_feat': 8, 'num_grow_ch': 4, 'num_block': 2, 'num_layer': 2, 'upscale': 2}
HAN = {'type': 'HAN', 'num_feat': 8, 'num_group': 10, 'num_block': 1, 'squeeze_factor': 2, 'upscale': 2}
NETWORKS = [
    {'type': 'A2N', 'num_feat': 8, 'num_upfeat': 4, 'num_block': 2, 'upscale': 2},
    {'type': 'A2N', 'num_feat': 8, 'num_upfeat': 4, 'num_block': 2, 'upscale': 4, 'variant': 'A2N-M'},
    {'type': 'LGVAN', 'num_feat': 8, 'num_block': 2, 'upscale': 3},
    {'type': 'LGVAN', 'num_feat': 8, 'num_block': 2, 'upscale': 4, 'fused': True},
    {'type': 'EARN', 'num_feat': 16, 'num_block': 2, 'upscale': 3},
    {'type': 'EARN', 'num_feat': 16, 'num_block': 2, 'upscale': 2, 'variant': 'released'},
    HAN,
    {'type': 'RNAN', 'num_feat': 8, 'num_block': 3, 'upscale': 4},
    RK4RDN,
    {**RK4RDN, 'order': 2},
    {**RK4RDN, 'order': 1, 'attention': 'none'},
    {
        'type': 'DualAttentionRCAN',
        'num_feat': 8,
        'num_group': 2,
        'num_block': 1,
        'squeeze_factor': 2,
        'upscale': 2,
    },
]


@pytest.fixture
def loader():
    """spandrel with its own networks and ours."""
    registry = spandrel.MAIN_REGISTRY.copy()
    install(registry)
    return spandrel.ModelLoader(registry=registry)


def network_of(arguments: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network(dict(arguments)).eval().requires_grad_(False)
    for weight in network.parameters():
        if not weight.any():  # at zero a branch would not show
            weight.normal_(0, 0.1)
    return network


def assert_same(model, network: torch.nn.Module, arch: str) -> None:
    x = torch.rand(1, 3, 9, 14)
    with torch.no_grad():
        expected = network(x)
    assert model.architecture.id == arch
    assert model.scale == expected.shape[2] // 9
    assert (model.input_channels, model.output_channels) == (3, 3)
    assert torch.equal(model(x), expected.clamp(0, 1))


@pytest.mark.parametrize('arguments', NETWORKS, ids=lambda value: '-'.join(map(str, value.values())))
def test_a_network_is_loaded_from_our_files_and_from_the_authors(tmp_path, loader, arguments):
    network, arch = network_of(arguments), arguments['type']
    description = describe_network('net_g', {'network_g': arguments, 'scale': arguments['upscale']})
    for name, nested in (('x.pth', ('params',)), ('x.safetensors', ())):
        write_weights(tmp_path / name, network.state_dict(), description, nested)
        model = loader.load_from_file(tmp_path / name)
        assert_same(model, network, arch)
        assert ('fused' in model.tags) == arguments.get('fused', False)
        is_local = arch == 'LGVAN'
        tiling = spandrel.ModelTiling.SUPPORTED if is_local else spandrel.ModelTiling.DISCOURAGED
        assert (model.tiling, model.supports_half) == (tiling, is_local)
    no_authors_form = (
        arch == 'DualAttentionRCAN'
        or arguments.get('fused')
        or (arch == 'EARN' and 'variant' not in arguments)
        or arguments is RK4RDN
    )
    if not no_authors_form:
        weights, nested = authors_weights(FoundNetwork(network, arch, description['arguments']))
        write_weights(tmp_path / 'authors.pth', weights, {}, nested)
        assert_same(loader.load_from_file(tmp_path / 'authors.pth'), network, arch)


@pytest.mark.filterwarnings('ignore:.*torch.jit.load:DeprecationWarning')  # with which spandrel reads .pt files
@pytest.mark.skipif(not (SHARED / 'weights').is_dir(), reason="the authors' checkpoints are not on this machine")
@pytest.mark.parametrize(('name', 'arguments'), [('lgvan_x4_official.pth', {}), ('a2n_x2_official.pt', {'upscale': 2})])
def test_official_files_are_loaded(loader, name, arguments):
    path = SHARED / 'weights' / name
    assert_same(loader.load_from_file(path), earn_plugin.load(path, **arguments), name.partition('_')[0].upper())


def test_the_scale_of_a2n_is_reported_and_can_be_chosen(tmp_path, loader, caplog):
    network = network_of({**NETWORKS[0], 'upscale': 3})
    write_weights(tmp_path / 'x.pth', network.state_dict(), {}, ('params',))
    with caplog.at_level(logging.WARNING, 'earn_plugin'):
        assert loader.load_from_file(tmp_path / 'x.pth').scale == 2
    assert 'A2N is loaded with upscale=2' in caplog.text
    before = len(loader.registry)
    install(loader.registry, a2n_scale=3)  # a second time
    assert len(loader.registry) == before
    assert_same(loader.load_from_file(tmp_path / 'x.pth'), network, 'A2N')


def test_networks_of_spandrel_are_loaded_as_before(loader):
    theirs = spandrel.architectures
    rcan = theirs.RCAN.RCAN(n_resgroups=2, n_resblocks=2, n_feats=16, reduction=4)
    esrgan = theirs.ESRGAN.ESRGAN(num_blocks=2, num_filters=16)
    for arch, network in (('RCAN', rcan), ('ESRGAN', esrgan)):
        model = loader.load_from_state_dict(network.state_dict())
        assert (model.architecture.id, type(model.model)) == (arch, type(network))
    with pytest.raises(spandrel.UnsupportedModelError):
        loader.load_from_state_dict({'head.0.weight': torch.zeros(1), 'epoch': 3})


def test_without_spandrel_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'spandrel', None)
    monkeypatch.delitem(sys.modules, 'earn_plugin.spandrel')
    with pytest.raises(ImportError, match='pip install spandrel'):
        import_module('earn_plugin.spandrel')

"""Checkpoints of a network in its fused form."""

import pytest
import torch

import earn_plugin
from earn_plugin.archs import LGVAN
from earn_plugin.convert import convert
from earn_plugin.errors import UserError
from tests.benchmarks.lgvan_as_published import as_published, fill

ARGUMENTS = {'num_feat': 4, 'num_block': 1, 'upscale': 3}


@pytest.fixture
def trained(tmp_path):
    torch.manual_seed(0)
    network = fill(LGVAN(**ARGUMENTS))
    write(tmp_path / 'net.pth', network, ARGUMENTS)
    return network


def write(path, network, arguments):
    torch.save({'params': network.state_dict(), 'arch': 'LGVAN', 'arguments': arguments, 'scale': 3}, path)


@pytest.mark.parametrize('name', ['fused.pth', 'fused.safetensors'])
def test_a_fused_checkpoint_describes_itself(tmp_path, trained, name):
    report = convert(tmp_path / 'net.pth', tmp_path / name, {}, fused=True)
    for network, title in (
        (trained, 'LGVAN checkpoint (weights from params)'),
        (trained.fuse(), 'converted to the fused form'),
    ):
        assert f'{title}, {sum(parameter.numel() for parameter in network.parameters()):,} parameters' in report
    assert 'fused=True' in report
    fused = earn_plugin.load(tmp_path / name)
    assert fused.fused and not fused.training
    x = torch.rand(1, 3, 6, 5)
    with torch.no_grad():
        assert torch.equal(fused(x), trained.fuse()(x))
        assert torch.allclose(fused(x), as_published(trained, x), rtol=0, atol=1e-5)
    assert 'fused=True' in convert(tmp_path / name, tmp_path / 'again.pth', {}, fused=True)


def test_official_weights_in_one_step(golden, tmp_path):
    case = golden('lgvan_x2_f16b3')
    torch.save({'params_ema': {name: tensor.float() for name, tensor in case.weights.items()}}, tmp_path / 'x.pth')
    convert(tmp_path / 'x.pth', tmp_path / 'fused.pth', {}, fused=True)
    with torch.no_grad():
        assert case.error(earn_plugin.load(tmp_path / 'fused.pth')(case.input.float()).double()) < 1e-5


@pytest.mark.parametrize(('fused', 'forms'), [(False, ('fused', 'training')), (True, ('training', 'fused'))])
def test_weights_of_the_other_form(tmp_path, trained, fused, forms):
    write(tmp_path / 'a.pth', trained if fused else trained.fuse(), {**ARGUMENTS, 'fused': fused})
    with pytest.raises(UserError, match=rf'a\.pth holds the weights of the {forms[0]} form, .* the {forms[1]} form'):
        earn_plugin.load(tmp_path / 'a.pth')


@pytest.mark.parametrize('name', ['net.pth', 'official.pth', 'a2n.pth', 'plain.pth', 'fused.pth'])
def test_the_fused_form_of_any_checkpoint(golden, tmp_path, trained, name):
    torch.save(golden('lgvan_x2_f16b3').weights, tmp_path / 'official.pth')
    torch.save(golden('a2n_x4').weights, tmp_path / 'a2n.pth')
    torch.save(trained.state_dict(), tmp_path / 'plain.pth')
    torch.save(trained.fuse().state_dict(), tmp_path / 'fused.pth')
    path, x = tmp_path / name, torch.rand(1, 3, 6, 5)
    network = earn_plugin.load(path, fused=True)
    assert network.fused and not network.training
    with torch.no_grad():
        expected = trained.fuse() if name == 'fused.pth' else earn_plugin.load(path).fuse()
        assert torch.equal(network(x), expected(x))
    assert 'fused=True' in convert(path, tmp_path / 'set.pth', {'fused': True})
    assert earn_plugin.load(tmp_path / 'set.pth').fused


def test_a_file_from_before_the_fused_form_has_the_training_form(tmp_path, trained):
    write(tmp_path / 'a.pth', trained, {name: value for name, value in ARGUMENTS.items() if name != 'fused'})
    assert not earn_plugin.load(tmp_path / 'a.pth', fused=False).fused


def test_the_fused_form_has_no_authors_form(tmp_path, trained):
    convert(tmp_path / 'net.pth', tmp_path / 'fused.pth', {}, fused=True)
    with pytest.raises(UserError, match="authors' code of LGVAN supports only fused=False"):
        convert(tmp_path / 'fused.pth', tmp_path / 'x.pth', {}, to_authors=True)
    with pytest.raises(UserError, match=r'fused\.pth has fused=True'):
        earn_plugin.load(tmp_path / 'fused.pth', fused=False)


def test_a_network_without_a_fused_form(golden, tmp_path):
    torch.save(golden('rnan_x2_f16g3').weights, tmp_path / 'rnan.pth')
    for call in (
        lambda: convert(tmp_path / 'rnan.pth', tmp_path / 'x.pth', {}, fused=True),
        lambda: earn_plugin.load(tmp_path / 'rnan.pth', fused=True),
    ):
        with pytest.raises(UserError, match=r'RNAN has no fused form; networks with one: A2N, LGVAN'):
            call()
    assert not (tmp_path / 'x.pth').exists()

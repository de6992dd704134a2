"""Weights are found in any form in which they are stored, and nothing else is read."""

import os
from pathlib import Path

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from safetensors.torch import save_file

from earn_plugin.convert import convert, load
from earn_plugin.convert.seals import digest_of
from earn_plugin.convert.weight_files import read_weights, write_weights
from earn_plugin.errors import UserError
from tests.helpers.weights import message_of, write


@pytest.mark.parametrize(
    ('nested', 'prefix'),
    [
        (('params',), ''),
        (('state_dict',), 'module.'),
        (('model', 'state_dict'), 'module.module.'),
        ((), 'module.'),
        ((), '_orig_mod.'),
        (('params',), 'module._orig_mod.'),
        (('weights_of_generator',), '_orig_mod.module.'),
        (('run', 'checkpoint', 'weights'), ''),
        (('net_g', 'params'), ''),
        (('state_dict',), 'model.'),
        (('state_dict',), 'model._orig_mod.module.'),
        (('state_dict',), '_orig_mod.generator.'),
    ],
)
def test_nested_and_prefixed_weights_are_found(tmp_path, lgvan, nested, prefix):
    content = {prefix + name: tensor for name, tensor in lgvan.items()}
    content['n_averaged'] = torch.tensor(3)  # of torch.optim.swa_utils.AveragedModel
    for key in reversed(nested):
        content = {key: content, 'epoch': 3}
    torch.save(content, tmp_path / 'x.pth')
    network = load(tmp_path / 'x.pth')
    assert torch.equal(network.conv_first.weight, lgvan['conv_first.weight'])
    assert not network.training


def test_a_generator_next_to_other_networks_and_weights_next_to_other_data_are_found(tmp_path, lgvan):
    other = {'net_d.fc.weight': torch.zeros(2)}
    torch.save({'state_dict': {f'net_g.{name}': tensor for name, tensor in lgvan.items()} | other}, tmp_path / 'a.pth')
    torch.save({'net_g': lgvan, 'net_d': other}, tmp_path / 'b.pth')
    torch.save({**lgvan, 'epoch': 3, 'optimizer': {'state': {}, 'param_groups': []}}, tmp_path / 'c.pth')
    for name in ('a.pth', 'b.pth', 'c.pth'):
        assert torch.equal(load(tmp_path / name).conv_first.weight, lgvan['conv_first.weight'])


@pytest.mark.parametrize('attribute', ['module', 'net'])
def test_a_network_whose_names_all_begin_alike(tmp_path, monkeypatch, attribute):
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, attribute, torch.nn.Conv2d(3, 3, 1))

    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Whole', Whole)
    weights = Whole().state_dict()
    described = {'params': weights, 'arch': 'Whole', 'arguments': {}}
    for content in (described, weights):
        torch.save(content, tmp_path / 'x.pth')
        assert torch.equal(
            load(tmp_path / 'x.pth', arch='Whole').state_dict()[f'{attribute}.bias'], weights[f'{attribute}.bias']
        )


def test_several_unusual_keys_are_reported(tmp_path, lgvan):
    message = message_of(tmp_path, {'g': lgvan, 'd': lgvan, 'epoch': 3})
    assert 'holds weights under g, d; save the weights alone' in message


def test_compiled_layers_are_found(tmp_path, lgvan):
    """As torch.compile names them if it compiles a part of the network in place."""
    compiled = {name.replace('layers.0.', 'layers.0._orig_mod.'): tensor for name, tensor in lgvan.items()}
    assert torch.equal(load(write(tmp_path / 'x.pth', compiled)).conv_first.weight, lgvan['conv_first.weight'])


@pytest.mark.parametrize(('key', 'averages'), [('params', 'params_ema'), ('model', 'model_ema'), ('state_dict', 'ema')])
def test_the_moving_average_is_preferred_and_reported(tmp_path, lgvan, key, averages):
    average = {name: tensor + 1 for name, tensor in lgvan.items()}
    torch.save({key: lgvan, averages: average}, tmp_path / 'x.pth')
    assert f'weights from {averages}' in convert(tmp_path / 'x.pth', tmp_path / 'y.pth', {})
    assert torch.equal(load(tmp_path / 'y.pth').conv_last.bias, average['conv_last.bias'])


def test_safetensors_are_read_and_written(tmp_path, lgvan):
    save_file(lgvan, tmp_path / 'official.safetensors')
    convert(tmp_path / 'official.safetensors', tmp_path / 'ours.safetensors', {})
    convert(tmp_path / 'ours.safetensors', tmp_path / 'ours.pth', {})
    content = torch.load(tmp_path / 'ours.pth', weights_only=True)
    assert (content['arch'], content['scale'], content['arguments']['num_feat']) == ('LGVAN', 2, 16)
    for name in ('ours.safetensors', 'ours.pth'):
        assert torch.equal(load(tmp_path / name).conv_first.weight, lgvan['conv_first.weight'])
    (tmp_path / 'cut.safetensors').write_bytes((tmp_path / 'ours.safetensors').read_bytes()[:500])
    with pytest.raises(UserError, match=r'cut\.safetensors cannot be loaded: it is damaged'):
        load(tmp_path / 'cut.safetensors')
    with pytest.raises(UserError, match='does not exist'):
        load(tmp_path / 'none.safetensors')


def test_files_without_known_weights(tmp_path):
    assert 'is not recognised: its names begin with fc.weight' in message_of(tmp_path, {'fc.weight': torch.zeros(2)})
    for content in ({}, {'epoch': 3}, {'params': {}}, {'params': {'a': [1]}}, {3: torch.zeros(1)}):
        assert 'holds no weights' in message_of(tmp_path, content)


@pytest.mark.parametrize('more', [{'arch': 'HAN'}, {'arch': ['x']}, {'arch': 'x', 'arguments': None}])
def test_a_foreign_description_is_ignored(tmp_path, lgvan, more):
    torch.save({'state_dict': lgvan, 'epoch': 3, **more}, tmp_path / 'x.pth')
    assert type(load(tmp_path / 'x.pth')).__name__ == 'LGVAN'


def test_prefixes_in_safetensors_and_their_metadata(tmp_path, lgvan):
    prefixed = {f'module.{name}': tensor for name, tensor in lgvan.items()}
    for text in ('null', '[]', '{"arch": 3}'):
        metadata = {'earn_plugin': text}
        save_file(prefixed, tmp_path / 'x.safetensors', metadata | {'sha256': digest_of(prefixed, metadata)})
        assert torch.equal(load(tmp_path / 'x.safetensors').conv_last.bias, lgvan['conv_last.bias'])
    save_file({}, tmp_path / 'x.safetensors')
    with pytest.raises(UserError, match='holds no weights'):
        load(tmp_path / 'x.safetensors')


def test_weights_that_share_memory(tmp_path):
    base = torch.zeros(10_000)
    weights = {'a': base[:3], 'b': base[:3]}
    for name in ('x.pth', 'x.safetensors'):
        write_weights(tmp_path / name, weights, {})
        assert read_weights(tmp_path / name)[0]['b'].tolist() == [0, 0, 0]
        assert (tmp_path / name).stat().st_size < 4000


def test_a_path_that_cannot_be_written(tmp_path, lgvan):
    path = write(tmp_path / 'x.pth', lgvan)
    for target in (path / 'y.pth', tmp_path / ('y' * 300)):
        with pytest.raises(UserError, match='cannot write'):
            convert(path, target, {})


class Harmful:
    def __init__(self, function=Path.touch, argument=Path('pwned')):
        self.called = function, (argument,)

    def __reduce__(self):
        return self.called


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch, lgvan):
    monkeypatch.chdir(tmp_path)
    message = message_of(tmp_path, {**lgvan, 'extra': Harmful()})
    assert 'is refused: it holds more than tensors and plain data (getattr)' in message
    message = message_of(tmp_path, {**lgvan, 'extra': Harmful(os.system, 'touch pwned')})
    assert 'is refused: it holds more than tensors and plain data (posix.system)' in message
    assert not Path('pwned').exists()


@pytest.mark.parametrize('content', [b'', b'hello', b'PK\x03\x04' + b'\0' * 100])
def test_a_damaged_file(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(UserError, match=r'x\.pth cannot be loaded: it is damaged, or not a checkpoint'):
        load(tmp_path / 'x.pth')

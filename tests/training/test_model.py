import re
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from basicsr.models.base_model import BaseModel
from safetensors.torch import save_file

from earn_plugin.convert.conversion import convert
from earn_plugin.convert.networks import load
from earn_plugin.convert.weight_files import describe_network, write_weights
from earn_plugin.errors import UserError
from earn_plugin.training.model import build_checked_model
from tests.archs.test_any_arch import SMALL, UPSCALES
from tests.helpers.golden import Golden
from tests.helpers.runs import same


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


WRAPPED = {  # how others save weights → what is logged of it
    'params': (lambda w: {'params': w}, r' \(params\)'),
    'average': (lambda w: {'params_ema': w}, r' \(params_ema\)'),
    'bare': (lambda w: w, ''),
    'lightning': (lambda w: {'state_dict': w, 'epoch': 3, 'optimizer_states': [{}]}, r' \(state_dict\)'),
    'nested': (lambda w: {'model': {'state_dict': w}}, r' \(model\.state_dict\)'),
    'unusual': (lambda w: {'generator': w, 'epoch': 3}, r' \(generator\)'),
    'compiled': (lambda w: {'params': renamed(w, '_orig_mod.')}, r' \(params\)'),
    'parts': (lambda w: {n.replace('body.0.', 'body.0._orig_mod.'): v for n, v in w.items()}, ''),
    'both': (lambda w: renamed(w, 'module._orig_mod.'), ''),
    'attribute': (lambda w: {'state_dict': {**renamed(w, 'net_g.'), 'net_d.bias': torch.zeros(1)}}, r' \(state_dict\)'),
    'data': (lambda w: {**w, 'epoch': 3}, ''),
    'swa': (lambda w: {**renamed(w, 'module.'), 'n_averaged': torch.tensor(3)}, ''),
}


def renamed(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


@pytest.fixture
def weights(opt):
    torch.manual_seed(9)
    return build_network(opt['network_g']).state_dict()


@pytest.mark.parametrize('model_type', ['EARNModel', 'SRModel', 'ESRGANModel'])
@pytest.mark.parametrize('form', WRAPPED)
def test_pretrained_files_of_every_form(opt, weights, caplog, form, model_type):
    """Into the network and its moving average, whatever the model."""
    wrap, logged = WRAPPED[form]
    torch.save(wrap(weights), 'net.pth')
    opt['path']['pretrain_network_g'] = 'net.pth'
    opt['model_type'] = model_type
    if model_type != 'EARNModel':
        opt['train']['pixel_opt'] = {'type': 'L1Loss'}
    if model_type == 'ESRGANModel':
        opt['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}
        opt['train'] |= {'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 1}}
        opt['train'] |= {'optim_d': {**opt['train']['optim_g']}}
        discriminator = build_network(opt['network_d']).state_dict()
        torch.save(wrap(discriminator), 'd.pth')
        opt['path']['pretrain_network_d'] = 'd.pth'
    with caplog.at_level('INFO', 'basicsr'):
        model = build_checked_model(opt)
    assert same(model.net_g.state_dict(), weights)
    assert same(model.net_g_ema.state_dict(), weights)
    assert model_type != 'ESRGANModel' or same(model.net_d.state_dict(), discriminator)
    assert re.search(rf'loading EARN from net\.pth{logged}$', caplog.text, re.MULTILINE)
    assert BaseModel.load_network.__module__ == 'basicsr.models.base_model'


def test_pretrained_safetensors(opt, weights):
    save_file(weights, 'net.safetensors')
    opt['path']['pretrain_network_g'] = 'net.safetensors'
    assert same(build_checked_model(opt).net_g.state_dict(), weights)
    write_weights(Path('ours.safetensors'), weights, {'arch': 'EARN', 'arguments': {'num_feat': 32}, 'scale': 2})
    opt['path']['pretrain_network_g'] = 'ours.safetensors'
    with pytest.raises(UserError, match='belongs to a different network_g: num_feat: the file has 32'):
        build_checked_model(opt)


def test_the_key_of_the_options_is_used(opt, weights):
    other = {name: value + 1 for name, value in weights.items()}
    torch.save({'params': weights, 'params_ema': other, 'third': weights}, 'net.pth')
    opt['path']['pretrain_network_g'] = 'net.pth'
    for key, expected in ((None, weights), ('params', weights), ('params_ema', other), ('third', weights)):
        opt['path'] |= {'param_key_g': key} if key else {}
        model = build_checked_model(opt)
        assert same(model.net_g.state_dict(), expected)
        assert same(model.net_g_ema.state_dict(), other)
    torch.save({'g': weights, 'd': other}, 'net.pth')
    opt['path']['param_key_g'] = 'd'
    model = build_checked_model(opt)
    assert same(model.net_g.state_dict(), other)
    assert same(model.net_g_ema.state_dict(), other)


@pytest.mark.parametrize(
    ('content', 'key', 'message'),
    [
        (lambda w: {'g': w, 'd': w}, {}, r'net\.pth holds weights under g, d; set path: param_key_g: KEY'),
        (lambda w: {'g': w}, {'param_key_g': 'd'}, r'param_key_g asks for \(d\); it has g: set path: param_key_g: KEY'),
        (lambda w: {'params': w}, {'param_key_g': 'parms'}, r'asks for \(parms\); it has params: set path'),
        (lambda w: w, {'param_key_g': 'd'}, r'its weights have none: set path: param_key_g: ~'),
        (lambda w: {'params': w}, {'param_key_g': None}, r'\(weights without a key\); it has params'),
        (lambda w: {'epoch': 3}, {}, r'net\.pth holds no weights, neither itself nor in params_ema'),
        (lambda w: {'params': {**w, 'odd': w['conv_last.bias']}}, {}, r'net\.pth looks like EARN, .* unexpected odd'),
        (lambda w: Golden('han_x2_f16b2').weights, {}, r'an official checkpoint of HAN; first run basicsr convert'),
        (lambda w: Golden('a2n_x2').weights, {'strict_load_g': False}, r'an official checkpoint of A2N; first run'),
    ],
)
def test_what_to_do_with_a_file_that_cannot_be_used(opt, weights, content, key, message):
    torch.save(content(weights), 'net.pth')
    opt['path'] |= {'pretrain_network_g': 'net.pth', **key}
    with pytest.raises(UserError, match=message):
        build_checked_model(opt)


SCALES = {  # networks whose scale changes other weights than those of the sub-pixel convs upsample.0, .2, .4
    'A2N': {(2, 4): 'upsample.1', (2, 3): '', (4, 2): ''},
}
NEW = {(2, 4): 'upsample.2', (2, 3): 'upsample.0', (4, 2): '', (2, 8): 'upsample.2 upsample.4'}


@pytest.mark.parametrize('scales', NEW, ids=str)
@pytest.mark.parametrize('name', SMALL)
def test_a_network_starts_from_another_scale(opt, caplog, name, scales):
    """What fits is loaded, also into the moving average, whose other weights are those of the network."""
    if 8 in scales and 8 not in UPSCALES[name]:
        return
    new = SCALES.get(name, NEW)[scales].split()
    first, opt['network_g'] = ({'type': name, **SMALL[name], 'upscale': scale} for scale in scales)
    weights = build_network(first).state_dict()
    write_weights(Path('net.pth'), weights, describe_network('net_g', {'network_g': first}), ('params', 'params_ema'))
    opt['path']['pretrain_network_g'] = 'net.pth'
    model = build_checked_model(opt)
    loaded = model.net_g.state_dict()
    kept = {key for key in loaded if not key.startswith(tuple(f'{part}.' for part in new))}
    assert same({key: loaded[key] for key in kept}, {key: weights[key] for key in kept})
    assert same(model.net_g_ema.state_dict(), loaded)
    assert f'{len(kept)} of the {len(loaded)} weights of {name} fit and are loaded: ' in caplog.text
    own = [key for key in loaded if key.startswith('upsample')]
    left = f'upsample {len(loaded) - len(kept)}' + f' of {len(own)}' * (len(kept & set(own)) > 0)
    assert f'; initial values: {left if new else "none"}; unused: ' in caplog.text


def test_only_another_scale_is_loaded_in_part(opt, weights):
    """A different network, an incomplete file, a test, and a file without description are errors as before."""
    opt['path']['pretrain_network_g'] = 'net.pth'
    opt['network_g']['upscale'] = 4

    def error_of(described: dict, weights=weights, **options) -> str:
        torch.save({'params': weights, **described}, 'net.pth')
        with pytest.raises(UserError) as error:
            build_checked_model({**opt, **options})
        return str(error.value)

    described = describe_network('net_g', {'network_g': {**opt['network_g'], 'upscale': 2}})
    other = describe_network('net_g', {'network_g': {**opt['network_g'], 'upscale': 2, 'num_block': 2}})
    assert 'num_block: the file has 2, the options 1; upscale: the file has 2, the options 4' in error_of(other)
    part = {name: value for name, value in weights.items() if name != 'conv_last.bias'}
    assert 'its weights do not fit: missing conv_last.bias' in error_of(described, part)
    assert 'network_g: upscale: the file has 2, the options 4' in error_of(described, is_train=False)
    assert 'missing upsample.2.weight, upsample.2.bias; to start with all that fit, set path: strict_load_g: false' in (
        error_of({})
    )


def test_an_official_checkpoint_of_another_scale(opt):
    golden = Golden('han_x2_f16b2')
    torch.save(golden.weights, 'authors.pt')
    convert(Path('authors.pt'), Path('net.pth'))
    opt['network_g'] = {'type': 'HAN', **torch.load('net.pth')['arguments'], 'upscale': 4}
    opt['path']['pretrain_network_g'] = 'net.pth'
    own, taken = build_checked_model(opt).net_g.state_dict(), torch.load('net.pth')['params']
    assert {name for name in own if name not in taken or not torch.equal(own[name], taken[name])} == {
        'upsample.2.weight',
        'upsample.2.bias',
    }


def test_how_much_fits_without_strict_loading(opt, weights, caplog):
    opt['path'] |= {'pretrain_network_g': 'net.pth', 'strict_load_g': False}
    fitting = {name: value for name, value in weights.items() if not name.startswith('conv_last')}
    torch.save({'params': {**fitting, 'conv_last.bias': torch.zeros(5), 'odd': torch.zeros(1)}}, 'net.pth')
    model = build_checked_model(opt)
    assert f'{len(fitting)} of the {len(weights)} weights of EARN fit and are loaded' in caplog.text
    loaded = model.net_g.state_dict()
    assert same({name: loaded[name] for name in fitting}, fitting)
    assert same(model.net_g_ema.state_dict(), loaded)
    torch.save({'params': {'x.weight': torch.zeros(1), 'conv_last.bias': torch.zeros(5)}}, 'net.pth')
    with pytest.raises(
        UserError, match=r'net\.pth has no weight whose name and shape fit EARN: its names begin with x'
    ):
        build_checked_model(opt)


def test_a_damaged_file_is_not_loaded(opt, weights):
    torch.save({'params': weights}, 'net.pth')
    content = bytearray(Path('net.pth').read_bytes())
    content[len(content) // 2] ^= 1
    Path('net.pth').write_bytes(content)
    opt['path']['pretrain_network_g'] = 'net.pth'
    with pytest.raises(UserError, match=r'net\.pth cannot be loaded: it is damaged'):
        build_checked_model(opt)


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_training_starts_from_an_included_network_of_any_scale(opt, scale):
    opt['scale'] = scale
    opt['network_g'] = {'type': 'A2N', 'num_feat': 32, 'num_upfeat': 16, 'num_block': 8, 'upscale': scale}
    opt['path']['pretrain_network_g'] = 'A2N-S_x4'
    model, weights = build_checked_model(opt), load('A2N-S_x4').state_dict()
    own = model.net_g.state_dict()
    fitting = [name for name in own if own[name].shape == weights[name].shape]
    assert {name for name in own if not name.startswith('upsample')} <= set(fitting)
    assert all(torch.equal(own[name], weights[name]) for name in fitting)
    assert same(own, model.net_g_ema.state_dict())

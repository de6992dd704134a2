"""The authors' checkpoints become ours, with their outputs, and go back unchanged."""

import os
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from safetensors.torch import save_file

import earn_plugin
from earn_plugin.convert import convert, load
from earn_plugin.errors import UsageError, UserError
from tests.helpers.command import command, command_here
from tests.helpers.places import GOLDEN, SHARED

CASES = sorted(path.stem for path in GOLDEN.glob('*.json') if not path.stem.startswith('block_'))
UNTOLD = {  # what no shape tells
    'a2n_x2': {'upscale': 2},
    'a2n_x3': {'upscale': 3},
    'earn_code_x2_f32g2': {'use_skip': True},
    'earn_code_x4_f32g2': {'use_skip': True},
    'earn_code_nola_x4_f32g1': {'use_skip': True},
    'rkrdn_rk2_dual_x2': {'non_local_mode': 'gaussian'},
    'rkrdn_rk4_dual_x4': {'non_local_mode': 'gaussian'},
}


def write(path: Path, weights: dict) -> Path:
    torch.save({name: tensor.float() for name, tensor in weights.items()}, path)
    return path


def error_of(case, network) -> float:
    with torch.no_grad():
        return case.error(network.double()(case.input / case.input_range) * case.input_range)


@pytest.mark.parametrize('name', CASES)
def test_outputs_are_the_authors(golden, tmp_path, name):
    case = golden(name)
    official = write(tmp_path / 'official.pth', case.weights)
    convert(official, tmp_path / 'ours.pth', UNTOLD.get(name, {}))
    assert error_of(case, load(tmp_path / 'ours.pth')) < 1e-9
    assert error_of(case, earn_plugin.load(official, **UNTOLD.get(name, {}))) < 1e-9


@pytest.mark.parametrize('name', CASES)
def test_the_way_back_gives_the_same_file(golden, tmp_path, name):
    """But for θ and φ of the Gaussian mode, which the authors save and never use."""
    case = golden(name)
    convert(write(tmp_path / 'official.pth', case.weights), tmp_path / 'ours.pth', UNTOLD.get(name, {}))
    convert(tmp_path / 'ours.pth', tmp_path / 'back.pth', {}, to_authors=True)
    back = torch.load(tmp_path / 'back.pth', weights_only=True)
    back = back.get('params_ema', back)
    for key, value in case.weights.items():
        assert back[key].shape == value.shape, key
        assert torch.equal(back[key].double(), value) or '.theta.' in key or '.phi.' in key
    assert all(key in case.weights or key.startswith(('sub_mean.', 'add_mean.')) for key in back)


NETWORKS = {
    'A2N': [{'num_block': 1, 'upscale': s, 'variant': v} for s in (2, 3, 4) for v in ('A2N', 'A2N-M')],
    'LGVAN': [{'num_feat': 4, 'num_block': 2, 'upscale': s} for s in (2, 3, 4)],
    'HAN': [{'num_feat': 8, 'num_group': 10, 'num_block': b, 'squeeze_factor': 4, 'upscale': 8} for b in (1, 3)],
    'RCAN': [
        {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_group': 2, 'num_block': b, 'squeeze_factor': 4}
        for b in (1, 2)
    ],
    'RNAN': [{'num_feat': 4, 'num_block': n, 'upscale': 3} for n in (2, 3, 5)],
    'EARN': [
        {'num_feat': 8, 'num_block': 2, 'groups': 2, 'squeeze_factor': 4, 'variant': 'released', 'use_skip': False},
        {'num_feat': 16, 'num_block': 1, 'variant': 'released', 'use_asca': False, 'window_size': 5},
        {'num_feat': 16, 'num_block': 1, 'variant': 'released', 'use_local_attention': False},
    ],
    'RK4RDN': [
        {'num_feat': 8, 'num_block': 2, 'num_layer': 2, 'order': o, 'attention': a, 'non_local_mode': m}
        for o in (1, 2, 4)
        for a in ('none', 'spatial', 'channel', 'dual')
        for m in ('gaussian', 'embedded')
    ],
}


@pytest.mark.parametrize(('arch', 'arguments'), [(arch, a) for arch, cases in NETWORKS.items() for a in cases])
def test_every_form_of_every_network_goes_there_and_back(tmp_path, arch, arguments):
    network = build_network({'type': arch, **arguments})
    torch.save({'params': network.state_dict(), 'arch': arch, 'arguments': arguments}, tmp_path / 'ours.pth')
    convert(tmp_path / 'ours.pth', tmp_path / 'official.pth', {}, to_authors=True)
    untold = {k: arguments[k] for k in ('upscale', 'use_skip', 'non_local_mode') if k in arguments}
    untold |= {'use_skip': arguments.get('use_skip', True)} if arch == 'EARN' else {}
    back = load(tmp_path / 'official.pth', **untold)
    assert type(back) is type(network)
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in network.state_dict().items())
    x = torch.rand(1, 3, 6, 5)
    with torch.no_grad():
        assert torch.equal(back(x), network.eval()(x))


def test_rcan_has_the_authors_names(tmp_path):
    arguments = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_group': 1, 'num_block': 1, 'squeeze_factor': 4}
    state = build_network({'type': 'RCAN', **arguments}).state_dict()
    torch.save({'params': state, 'arch': 'RCAN', 'arguments': arguments}, tmp_path / 'ours.pth')
    convert(tmp_path / 'ours.pth', tmp_path / 'official.pth', {}, to_authors=True)
    unit = 'body.0.body.0.body.'
    layers = ('sub_mean', 'add_mean', 'head.0', f'{unit}0', f'{unit}2', f'{unit}3.conv_du.0', f'{unit}3.conv_du.2')
    layers += ('body.0.body.1', 'body.1', 'tail.0.0', 'tail.0.2', 'tail.1')
    expected = {f'{layer}.{end}' for layer in layers for end in ('weight', 'bias')}
    assert set(torch.load(tmp_path / 'official.pth', weights_only=True)) == expected


@pytest.fixture
def lgvan(golden):
    return {name: tensor.float() for name, tensor in golden('lgvan_x2_f16b3').weights.items()}


@pytest.mark.parametrize('nested', [('params',), ('state_dict',), ('model',), ('model', 'state_dict')])
@pytest.mark.parametrize('prefix', ['', 'module.', 'module.module.'])
def test_nested_and_prefixed_weights_are_found(tmp_path, lgvan, nested, prefix):
    content = {prefix + name: tensor for name, tensor in lgvan.items()}
    for key in reversed(nested):
        content = {key: content, 'epoch': 3}
    torch.save(content, tmp_path / 'x.pth')
    network = load(tmp_path / 'x.pth')
    assert torch.equal(network.conv_first.weight, lgvan['conv_first.weight'])
    assert not network.training


def test_the_count_of_torchs_own_average_is_no_weight(tmp_path, lgvan):
    """As torch.optim.swa_utils.AveragedModel saves itself."""
    content = {f'module.{name}': tensor for name, tensor in lgvan.items()}
    torch.save({'n_averaged': torch.tensor(3), **content}, tmp_path / 'x.pth')
    assert torch.equal(load(tmp_path / 'x.pth').conv_first.weight, lgvan['conv_first.weight'])


def test_the_average_is_taken_before_what_it_is_of_and_told(tmp_path, lgvan):
    average = {name: tensor + 1 for name, tensor in lgvan.items()}
    torch.save({'params': lgvan, 'params_ema': average}, tmp_path / 'x.pth')
    told = convert(tmp_path / 'x.pth', tmp_path / 'y.pth', {})
    assert 'taken from params_ema' in told
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


def told(tmp_path, weights, **arguments) -> str:
    torch.save(weights, tmp_path / 'x.pth')
    with pytest.raises(UserError) as error:
        load(tmp_path / 'x.pth', **arguments)
    assert str(error.value).startswith(str(tmp_path / 'x.pth')) or arguments
    return str(error.value)


def test_what_no_shape_tells_must_be_given(golden, tmp_path):
    message = told(tmp_path, golden('a2n_x3').weights)
    assert 'does not tell upscale: give upscale=2 or upscale=3 (for example --upscale 2)' in message
    message = told(tmp_path, golden('rkrdn_rk2_dual_x2').weights)
    assert 'give non_local_mode=gaussian or non_local_mode=embedded (for example --set non_local_mode' in message
    assert 'give use_skip=True or use_skip=False' in told(tmp_path, golden('earn_code_x2_f32g2').weights)
    assert 'upscale of A2N can be 2 or 3 here, got 4' in told(tmp_path, golden('a2n_x3').weights, upscale=4)


def test_what_the_shapes_tell_cannot_be_told_otherwise(tmp_path, lgvan):
    assert 'is of LGVAN with upscale=2, not 4' in told(tmp_path, lgvan, upscale=4)
    assert 'LGVAN has no argument scale; possible: num_in_ch' in told(tmp_path, lgvan, scale=2)
    torch.save(lgvan, tmp_path / 'x.pth')
    convert(tmp_path / 'x.pth', tmp_path / 'y.pth', {})
    with pytest.raises(UserError, match='has upscale=2'):
        load(tmp_path / 'y.pth', upscale=4)


def test_the_first_names_that_do_not_fit_are_told(tmp_path, lgvan):
    without = {name: tensor for name, tensor in lgvan.items() if name != 'layers.1.MLP.fc1.bias'}
    assert 'looks like LGVAN, but it has no layers.1.MLP.fc1.bias' in told(tmp_path, without)
    assert 'but nothing takes a.weight, b.weight' in told(
        tmp_path, {**lgvan, 'a.weight': torch.zeros(1), 'b.weight': torch.zeros(1)}
    )
    odd = {**lgvan, 'layers.1.MLP.fc2.weight': torch.zeros(16, 31, 1, 1)}
    assert 'but body.1.1.reduce.weight is (16, 31, 1, 1), where (16, 32, 1, 1) fits' in told(tmp_path, odd)
    assert "looks like LGVAN, but has no 'conv_first.weight'" in told(
        tmp_path, {name: tensor for name, tensor in lgvan.items() if name != 'conv_first.weight'}
    )
    assert 'is not recognised: its names begin with fc.weight' in told(tmp_path, {'fc.weight': torch.zeros(2)})
    assert 'cannot be built' in told(tmp_path, {**lgvan, 'conv_last.weight': torch.zeros(4, 16, 3, 3)})
    assert 'the shapes of its weights are of no such network' in told(
        tmp_path, {**lgvan, 'conv_first.weight': torch.zeros(3)}
    )
    for content in ({}, {'epoch': 3}, {'params': {}}, {'params': {'a': [1]}}):
        assert 'holds no weights by name' in told(tmp_path, content)


@pytest.mark.parametrize('more', [{'arch': 'HAN'}, {'arch': ['x']}, {'arch': 'x', 'arguments': None}])
def test_what_others_write_beside_the_weights_is_no_description(tmp_path, lgvan, more):
    torch.save({'state_dict': lgvan, 'epoch': 3, **more}, tmp_path / 'x.pth')
    assert type(load(tmp_path / 'x.pth')).__name__ == 'LGVAN'


def test_prefixes_in_safetensors_and_their_metadata(tmp_path, lgvan):
    prefixed = {f'module.{name}': tensor for name, tensor in lgvan.items()}
    for text in ('null', '[]', '{"arch": 3}'):
        save_file(prefixed, tmp_path / 'x.safetensors', {'earn_plugin': text})
        assert torch.equal(load(tmp_path / 'x.safetensors').conv_last.bias, lgvan['conv_last.bias'])
    save_file({}, tmp_path / 'x.safetensors')
    with pytest.raises(UserError, match='holds no weights by name'):
        load(tmp_path / 'x.safetensors')


def test_where_nothing_can_be_written_is_told(tmp_path, lgvan):
    path = write(tmp_path / 'x.pth', lgvan)
    for target in (path / 'y.pth', tmp_path / ('y' * 300)):
        with pytest.raises(UserError, match='cannot write'):
            convert(path, target, {})


def test_the_way_back_may_be_safetensors(golden, tmp_path):
    convert(write(tmp_path / 'x.pth', golden('han_x2_f16b2').weights), tmp_path / 'y.pth', {})
    convert(tmp_path / 'y.pth', tmp_path / 'z.safetensors', {}, to_authors=True)
    assert error_of(golden('han_x2_f16b2'), load(tmp_path / 'z.safetensors')) < 1e-9


class Harmful:
    def __init__(self, function=Path.touch, argument=Path('pwned')):
        self.called = function, (argument,)

    def __reduce__(self):
        return self.called


def test_a_pickle_with_code_is_refused_not_run(tmp_path, monkeypatch, lgvan):
    monkeypatch.chdir(tmp_path)
    message = told(tmp_path, {**lgvan, 'extra': Harmful()})
    assert 'is refused: it holds more than tensors and plain data (getattr), and loading that' in message
    message = told(tmp_path, {**lgvan, 'extra': Harmful(os.system, 'touch pwned')})
    assert 'is refused: it holds more than tensors and plain data (posix.system), and loading that' in message
    assert not Path('pwned').exists()


@pytest.mark.parametrize('content', [b'', b'hello', b'PK\x03\x04' + b'\0' * 100])
def test_what_is_no_checkpoint_is_told(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(UserError, match=r'x\.pth cannot be loaded: it is damaged, or no checkpoint'):
        load(tmp_path / 'x.pth')


def test_a_trained_mean_shift_is_noticed(golden, tmp_path):
    weights = golden('rnan_x2_f16g3').weights
    mean = 255 * torch.tensor([0.4488, 0.4371, 0.4040])
    fixed = {'sub_mean.weight': torch.eye(3)[:, :, None, None], 'sub_mean.bias': -mean}
    assert 'differs' not in convert(write(tmp_path / 'x.pth', weights | fixed), tmp_path / 'y.pth', {})
    half = {name: tensor.half() for name, tensor in (weights | fixed).items()}
    torch.save(half, tmp_path / 'x.pth')
    assert 'differs' not in convert(tmp_path / 'x.pth', tmp_path / 'y.pth', {})
    assert 'sub_mean.bias differs' in convert(tmp_path / 'x.pth', tmp_path / 'y.pth', {'img_range': 1.0})
    trained = weights | fixed | {'sub_mean.bias': -mean + 0.5}
    assert 'sub_mean.bias differs from the fixed mean shift' in convert(
        write(tmp_path / 'x.pth', trained), tmp_path / 'y.pth', {}
    )


def test_nothing_is_overwritten_by_mistake(tmp_path, lgvan):
    path = write(tmp_path / 'x.pth', lgvan)
    with pytest.raises(UsageError, match='is the input itself'):
        convert(path, path, {})
    with pytest.raises(UsageError, match='is a folder'):
        convert(path, tmp_path, {})


def test_the_authors_have_no_such_network(tmp_path):
    network = build_network({'type': 'EARN', 'num_feat': 16, 'num_block': 1})
    arguments = {'num_feat': 16, 'num_block': 1}
    torch.save({'params': network.state_dict(), 'arch': 'EARN', 'arguments': arguments}, tmp_path / 'x.pth')
    with pytest.raises(UserError, match='has no network with variant paper'):
        convert(tmp_path / 'x.pth', tmp_path / 'y.pth', {}, to_authors=True)
    network = build_network({'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1})
    arguments = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1}
    torch.save({'params': network.state_dict(), 'arch': 'EDSR', 'arguments': arguments}, tmp_path / 'x.pth')
    with pytest.raises(UserError, match='no authors published checkpoints of EDSR; possible: A2N'):
        convert(tmp_path / 'x.pth', tmp_path / 'y.pth', {}, to_authors=True)
    arguments = {'num_feat': 4, 'num_group': 3, 'num_block': 1, 'squeeze_factor': 2}
    network = build_network({'type': 'HAN', **arguments})
    torch.save({'params': network.state_dict(), 'arch': 'HAN', 'arguments': arguments}, tmp_path / 'x.pth')
    with pytest.raises(UserError, match='has no network with num_group 3, only with 10'):
        convert(tmp_path / 'x.pth', tmp_path / 'y.pth', {}, to_authors=True)


@pytest.mark.slow
def test_the_command(golden, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    official = write(tmp_path / 'official.pth', golden('a2n_x3').weights)
    printed = command_here('convert', official, tmp_path / 'ours.safetensors', capsys=capsys, expect=2)
    assert 'give upscale=2 or upscale=3' in printed
    printed = command('convert', official, 'ours.safetensors', '--upscale', 3, cwd=tmp_path)
    assert f'{official}: an official checkpoint of A2N, 1,036,443 parameters' in printed
    assert 'A2N(num_in_ch=3, num_out_ch=3, num_feat=40' in printed
    command_here('convert', 'ours.safetensors', 'back.pth', '--to', 'authors', capsys=capsys)
    assert error_of(golden('a2n_x3'), load(tmp_path / 'back.pth', upscale=3)) < 1e-9
    gaussian = write(tmp_path / 'rk.pth', golden('rkrdn_rk2_dual_x2').weights)
    printed = command_here('convert', gaussian, 'o.pth', '--set', 'non_local_mode=gaussian', 'order=2', capsys=capsys)
    assert 'order=2, attention=dual, non_local_mode=gaussian' in printed
    split = ('--set', 'non_local_mode=gaussian', '--set', 'attention=dual')
    assert 'order=2, attention=dual' in command_here('convert', gaussian, 'o.pth', *split, capsys=capsys)
    assert 'write NAME=VALUE' in command_here('convert', gaussian, 'o.pth', '--set', 'order', capsys=capsys, expect=2)
    twice = ('--upscale', '2', '--set', 'upscale=3')
    assert 'upscale is given twice' in command_here('convert', gaussian, 'o.pth', *twice, capsys=capsys, expect=2)


OFFICIAL = [
    ('a2n_x2_official.pt', {'upscale': 2}, 'Set5', 2, 38.060, 0.9607),
    ('lgvan_x4_official.pth', {}, 'Set5', 4, 32.198, 0.8951),
]


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'arguments', 'dataset', 'scale', 'psnr', 'ssim'), OFFICIAL)
def test_official_weights_reach_the_papers_figures(shared_data, name, arguments, dataset, scale, psnr, ssim):
    import cv2
    from basicsr.metrics import calculate_psnr, calculate_ssim
    from basicsr.utils import img2tensor, tensor2img

    network = load(SHARED / 'weights' / name, **arguments)
    found = []
    for path in sorted((shared_data / dataset / 'HR').iterdir()):
        hr = cv2.imread(str(path))
        lr = cv2.imread(str(shared_data / dataset / f'LR_bicubic/X{scale}/{path.stem}x{scale}.png'))
        with torch.no_grad():
            sr = tensor2img(network(img2tensor(lr.astype('float32') / 255)[None]))
        hr = hr[: sr.shape[0], : sr.shape[1]]
        found.append([m(sr, hr, scale, test_y_channel=True) for m in (calculate_psnr, calculate_ssim)])
    means = torch.tensor(found).mean(0).tolist()
    assert means[0] == pytest.approx(psnr, abs=0.002)
    assert means[1] == pytest.approx(ssim, abs=0.0002)

"""The authors' checkpoints are converted to ours with the same outputs, and back unchanged."""

import pytest
import torch
from basicsr.archs import build_network

import earn_plugin
from earn_plugin.convert import convert, load
from earn_plugin.errors import UsageError, UserError
from tests.helpers.command import command, command_here
from tests.helpers.places import GOLDEN, SHARED
from tests.helpers.weights import message_of, write

CASES = sorted(path.stem for path in GOLDEN.glob('*.json') if not path.stem.startswith('block_'))
UNDETECTABLE = {  # arguments that cannot be inferred from the weights
    'a2n_x2': {'upscale': 2},
    'a2n_x3': {'upscale': 3},
    'earn_code_x2_f32g2': {'use_skip': True},
    'earn_code_x4_f32g2': {'use_skip': True},
    'earn_code_nola_x4_f32g1': {'use_skip': True},
    'rkrdn_rk2_dual_x2': {'non_local_mode': 'gaussian'},
    'rkrdn_rk4_dual_x4': {'non_local_mode': 'gaussian'},
}


def error_of(case, network) -> float:
    with torch.no_grad():
        return case.error(network.double()(case.input / case.input_range) * case.input_range)


@pytest.mark.parametrize('name', CASES)
def test_outputs_are_the_authors_and_the_way_back_gives_the_same_file(golden, tmp_path, name):
    """Except what ODE-RDN's code saves and never uses: θ and φ in Gaussian mode, the coefficient of Euler steps.

    It has no steps of order 4.
    """
    case = golden(name)
    official = write(tmp_path / 'official.pth', case.weights)
    convert(official, tmp_path / 'ours.pth', UNDETECTABLE.get(name, {}))
    assert error_of(case, load(tmp_path / 'ours.pth')) < 1e-9
    assert error_of(case, earn_plugin.load(official, **UNDETECTABLE.get(name, {}))) < 1e-9
    if name == 'rkrdn_rk4_dual_x4':
        return
    convert(tmp_path / 'ours.pth', tmp_path / 'back.pth', {}, to_authors=True)
    back = torch.load(tmp_path / 'back.pth', weights_only=True)
    back = back.get('params_ema', back)
    for key, value in case.weights.items():
        assert back[key].shape == value.shape, key
        assert torch.equal(back[key].double(), value) or '.theta.' in key or '.phi.' in key
    added = [key for key in back if key not in case.weights and not key.startswith(('sub_mean.', 'add_mean.'))]
    assert added == ([f'rdbs.{block}.one_half' for block in range(3)] if name == 'rkrdn_euler_none_x3' else [])


NETWORKS = {
    'A2N': [{'num_block': 1, 'upscale': s, 'variant': v} for s in (2, 3, 4) for v in ('A2N', 'A2N-M')],
    'LGVAN': [{'num_feat': 4, 'num_block': 2, 'upscale': s} for s in (2, 3, 4)],
    'HAN': [{'num_feat': 8, 'num_group': 10, 'num_block': 1, 'squeeze_factor': 4, 'upscale': 8}],
    'RCAN': [
        {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_group': 2, 'num_block': b, 'squeeze_factor': 4}
        for b in (1, 2)
    ],
    'RNAN': [{'num_feat': 4, 'num_block': n, 'upscale': 3} for n in (2, 3, 5)],
    'EARN': [
        {'num_feat': 8, 'num_block': 2, 'groups': 8, 'squeeze_factor': 4, 'variant': 'released', 'use_skip': False},
        {'num_feat': 16, 'num_block': 1, 'variant': 'released', 'use_asca': False, 'window_size': 5},
        {'num_feat': 16, 'num_block': 1, 'variant': 'released', 'use_local_attention': False},
    ],
    'RK4RDN': [
        {'num_feat': 8, 'num_block': 2, 'num_layer': 2, 'order': order, 'attention': attention}
        for order, attention in ((1, 'none'), (2, 'dual'))
    ],
}


@pytest.mark.parametrize(('arch', 'arguments'), [(arch, a) for arch, cases in NETWORKS.items() for a in cases])
def test_every_variant_is_converted_to_the_authors_form_and_back(tmp_path, arch, arguments):
    network = build_network({'type': arch, **arguments})
    torch.save({'params': network.state_dict(), 'arch': arch, 'arguments': arguments}, tmp_path / 'ours.pth')
    convert(tmp_path / 'ours.pth', tmp_path / 'official.pth', {}, to_authors=True)
    undetectable = {k: arguments[k] for k in ('upscale', 'use_skip') if k in arguments}
    undetectable |= {'use_skip': arguments.get('use_skip', True)} if arch == 'EARN' else {}
    undetectable |= {'non_local_mode': 'gaussian'} if arguments.get('attention') == 'dual' else {}
    back = load(tmp_path / 'official.pth', **undetectable)
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


def test_what_cannot_be_inferred_must_be_given(golden, tmp_path):
    message = message_of(tmp_path, golden('a2n_x3').weights)
    assert 'upscale cannot be inferred from the weights; pass --upscale 2 or --upscale 3' in message
    message = message_of(tmp_path, golden('rkrdn_rk2_dual_x2').weights)
    assert 'pass --set non_local_mode=gaussian or --set non_local_mode=embedded' in message
    assert '--set use_skip=True or --set use_skip=False' in message_of(tmp_path, golden('earn_code_x2_f32g2').weights)
    assert 'upscale must be 2 or 3 here, got 4' in message_of(tmp_path, golden('a2n_x3').weights, upscale=4)


def test_the_authors_network_without_attention_is_an_euler_step(golden, tmp_path):
    """Their code saves a coefficient and does not use it."""
    case = golden('rkrdn_euler_none_x3')
    coefficients = {f'rdbs.{block}.one_half': torch.tensor([0.4]) for block in range(3)}
    assert error_of(case, load(write(tmp_path / 'x.pth', case.weights | coefficients))) < 1e-9


def test_a_coefficient_that_the_authors_network_may_not_use(golden, tmp_path):
    weights = {name: tensor for name, tensor in golden('rkrdn_rk2_dual_x2').weights.items() if 'spatial' not in name}
    assert '--set order=1 or --set order=2' in message_of(tmp_path, weights)
    outputs = [load(tmp_path / 'x.pth', order=order)(torch.ones(1, 3, 4, 4)) for order in (1, 2)]
    assert not torch.allclose(*outputs)


def test_given_arguments_must_agree_with_the_weights(tmp_path, lgvan):
    assert 'LGVAN with upscale=2, not 4' in message_of(tmp_path, lgvan, upscale=4)
    assert 'LGVAN has no argument scale; possible: num_in_ch' in message_of(tmp_path, lgvan, scale=2)
    torch.save(lgvan, tmp_path / 'x.pth')
    convert(tmp_path / 'x.pth', tmp_path / 'y.pth', {})
    with pytest.raises(UserError, match='has upscale=2'):
        load(tmp_path / 'y.pth', upscale=4)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'layers.1.MLP.fc1.bias': None},
            'looks like LGVAN, but its weights do not fit: missing layers.1.MLP.fc1.bias',
        ),
        ({'a.weight': (1,), 'b.weight': (1,)}, 'unexpected a.weight, b.weight'),
        ({'layers.1.MLP.fc2.weight': (16, 31, 1, 1)}, 'has shape (16, 31, 1, 1), expected (16, 32, 1, 1)'),
        ({'conv_first.weight': None}, "its weights do not fit: KeyError: 'conv_first.weight'"),
        ({'conv_first.weight': (3,)}, 'looks like LGVAN, but its weights do not fit'),
        ({'conv_last.weight': (4, 16, 3, 3)}, 'LGVAN cannot be built: num_in_ch and num_out_ch must be equal'),
    ],
)
def test_the_first_names_that_do_not_fit_are_reported(tmp_path, lgvan, changes, message):
    weights = {**lgvan, **{name: torch.zeros(shape) for name, shape in changes.items() if shape}}
    assert message in message_of(tmp_path, {n: t for n, t in weights.items() if changes.get(n, True)})


def test_the_authors_form_may_be_safetensors(golden, tmp_path):
    convert(write(tmp_path / 'x.pth', golden('han_x2_f16b2').weights), tmp_path / 'y.pth', {})
    convert(tmp_path / 'y.pth', tmp_path / 'z.safetensors', {}, to_authors=True)
    assert error_of(golden('han_x2_f16b2'), load(tmp_path / 'z.safetensors')) < 1e-9


def test_a_trained_mean_shift_is_a_warning(golden, tmp_path):
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
    with pytest.raises(UsageError, match='is the input file'):
        convert(path, path, {})
    with pytest.raises(UsageError, match='is a folder'):
        convert(path, tmp_path, {})


@pytest.mark.parametrize(
    ('arch', 'arguments', 'message'),
    [
        ('EARN', {'num_feat': 16, 'num_block': 1}, 'supports only variant=released, not paper'),
        ('EARN', {'num_feat': 16, 'num_block': 1, 'variant': 'released', 'groups': 4}, 'only groups=16, not 4'),
        (
            'RNAN',
            {'num_feat': 4, 'num_block': 2, 'num_in_ch': 1, 'num_out_ch': 1, 'rgb_mean': [0.4]},
            'num_in_ch=3, not 1',
        ),
        (
            'RCAN',
            {'num_in_ch': 3, 'num_out_ch': 3, 'num_group': 1, 'num_block': 1, 'res_scale': 0.1},
            'only res_scale=1',
        ),
        ('A2N', {'num_block': 1, 'branch_weights': 'equal'}, 'only branch_weights=dynamic, not equal'),
        ('A2N', {'num_block': 1, 'img_range': 1.0}, 'only img_range=255, not 1.0'),
        *[
            ('RK4RDN', {'num_feat': 8, 'num_block': 1, 'order': o, 'attention': a, 'non_local_mode': m}, message)
            for o, a, m, message in (
                (1, 'dual', 'gaussian', 'only order=2, not 1'),
                (4, 'dual', 'gaussian', 'only order=2, not 4'),
                (2, 'dual', 'embedded', 'only non_local_mode=gaussian, not embedded'),
                (2, 'none', 'gaussian', r'only order=1, not 2 \(with attention=none\)'),
                (4, 'none', 'gaussian', 'only order=1, not 4'),
                (2, 'spatial', 'gaussian', 'only attention=dual, not spatial'),
                (1, 'channel', 'gaussian', 'only attention=dual, not channel'),
            )
        ],
        ('HAN', {'num_feat': 4, 'num_group': 3, 'num_block': 1, 'squeeze_factor': 2}, 'only num_group=10, not 3'),
        ('EDSR', {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1}, 'EDSR; possible: A2N'),
    ],
)
def test_networks_that_the_authors_code_does_not_support(tmp_path, arch, arguments, message):
    network = build_network({'type': arch, **arguments})
    torch.save({'params': network.state_dict(), 'arch': arch, 'arguments': arguments}, tmp_path / 'x.pth')
    with pytest.raises(UserError, match=message):
        convert(tmp_path / 'x.pth', tmp_path / 'y.pth', {}, to_authors=True)


@pytest.mark.slow
def test_the_command(golden, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    official = write(tmp_path / 'official.pth', golden('a2n_x3').weights)
    printed = command_here('convert', official, tmp_path / 'ours.safetensors', capsys=capsys, expect=2)
    assert 'pass --upscale 2 or --upscale 3' in printed
    printed = command('convert', official, 'ours.safetensors', '--upscale', 3, cwd=tmp_path)
    assert f'{official}: official A2N checkpoint, 1,036,443 parameters' in printed
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

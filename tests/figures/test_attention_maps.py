"""What the hooks read, against plain computations that use neither hooks nor the code of the readings."""

from collections import defaultdict

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from torch.nn import functional as F

import earn_plugin
from earn_plugin.errors import UsageError
from earn_plugin.figures.attention_maps import NETWORKS, recorded_attention
from tests.helpers.places import SHARED

HEIGHT, WIDTH, PIXEL = 7, 10, (6, 2)


def gate(layer, x):
    """What a layer multiplies its input with, C×H×W."""
    return (layer(x) / x)[0]


def non_local(layer, x):
    """The full HW×HW matrix, normalised, of which one row or column is read."""
    query, key = layer.query(x)[0].flatten(1), layer.key(x)[0].flatten(1)
    over = 1 if layer.softmax_over == 'keys' else 0
    matrix = torch.einsum('cq,ck->qk', query, key).exp()
    matrix = matrix / matrix.sum(over, keepdim=True)
    at = PIXEL[1] * WIDTH + PIXEL[0]
    return (matrix[at] if over else matrix[:, at]).view(HEIGHT, WIDTH)


def windows(layer, x):
    """The weights of every 3×3 window, from an unfolded tensor."""
    c, k = x.shape[1], 3
    key = F.unfold(layer.key(F.pad(x, (1, 1, 1, 1))), k).view(c, k, k, HEIGHT, WIDTH)
    key[: c // 2] += layer.rel_h[:, :, None, None, None]
    key[c // 2 :] += layer.rel_w[:, None, :, None, None]
    weights = torch.einsum('chw,cijhw->ijhw', layer.query(x)[0], key).flatten(0, 1).exp()
    return weights / weights.sum(0)


def earn(network, x, found):
    features = network.shallow(x)
    for block in network.body:
        asca, pixel = block.attention
        found['channel_attention'].append(gate(asca, features).mean((1, 2)))
        found['pixel_attention'].append(gate(pixel, asca(features)).mean(0))
        r = block.head(pixel(asca(features)))
        found['local_attention'].append(windows(block.mask.attention, block.mask.erb1(r)))
        found['mask'].append(block.mask(r)[0].mean(0))
        features = block(features)


def a2n(network, x, found):
    found['branch_weights'] = [*network.weights_per_block(x)[0]]
    features = shallow = network.shallow(x)
    for block in network.body:
        branch = block.attention
        mask = F.conv2d(block.enter(features), branch.conv_mask1.weight, padding=1)
        mask = F.conv2d(F.leaky_relu(mask, 0.2), branch.conv_mask2.weight, branch.conv_mask2.bias)
        found['pixel_attention'].append((1 / (1 + (-mask[0]).exp())).mean(0))
        features = block(features)
    up = network.conv_after_body(features) + shallow
    for block in network.upsample:
        large = block.conv1(up.repeat_interleave(2, 2).repeat_interleave(2, 3))
        found['upsampling_attention'].append((1 / (1 + (-block.attention(large)[0]).exp())).mean(0))
        up = block(up)


def units(group, deep, found):
    """The channel attentions of a residual group, and in DualAttentionRCAN its spatial ones."""
    for unit in group.blocks:
        u = unit.convs(deep)
        *spatial, channel = unit.attention if isinstance(unit.attention, torch.nn.Sequential) else [unit.attention]
        for layer in spatial:
            found['non_local_attention'].append(non_local(layer, u))
            u = layer(u)
        found['channel_attention'].append(gate(channel, u).mean((1, 2)))
        deep = unit(deep)


def han(network, x, found):
    deep = network.shallow(x)
    outputs = []
    for group in network.groups:
        units(group, deep, found)
        deep = group(deep)
        outputs.append(deep)
    outputs.append(network.conv_after_groups(deep))
    energy = torch.stack([torch.stack([(a * b).sum() for b in outputs]) for a in outputs])
    weights = (energy.amax(1, keepdim=True) - energy).exp()
    found['layer_attention'].append(weights / weights.sum(1, keepdim=True))
    csam = network.channel_spatial_attention
    found['channel_spatial_attention'].append(((gate(csam, outputs[-1]) - 1) / csam.gamma).mean(0))


def dual_attention_rcan(network, x, found):
    deep = network.shallow(x)
    for group in network.body:
        units(group, deep, found)
        deep = group(deep)


def rcan(network, x, found):
    deep = network.conv_first((x - network.mean) * network.img_range)
    for group in network.body:
        inner = deep
        for block in group.residual_group:
            found['channel_attention'].append(gate(block.rcab[3], block.rcab[:3](inner)).mean((1, 2)))
            inner = block(inner)
        deep = group(deep)


def rnan(network, x, found):
    features = network.shallow(x)
    for block in (network.block_first, *network.body, network.conv_after_body, network.block_last):
        if hasattr(block, 'mask'):
            r = block.head(features)
            attention = block.mask.attention
            if not isinstance(attention, torch.nn.Identity):
                found['non_local_attention'].append(non_local(attention, r))
            found['mask'].append(block.mask(attention(r))[0].mean(0))
        features = block(features)


def rk4rdn(network, x, found):
    def f(y):
        dense, spatial, channel = block.function
        found['non_local_attention'].append(non_local(spatial, dense(y)))
        found['channel_attention'].append(gate(channel, spatial(dense(y))).mean((1, 2)))
        return block.function(y)

    y = network.conv_second(network.conv_first(x))
    for block in network.body:
        half, third, sixth = block.one_half, block.one_third, block.one_sixth
        k1 = f(y)
        k2 = f(y + half * k1)
        k3 = f(y + half * k2)
        y = y + sixth * k1 + third * k2 + third * k3 + sixth * f(y + k3)
        found['coefficients'].append(torch.cat([half, third, sixth]))


def lgvan(network, x, found):
    features = network.conv_first(x)
    for block in network.body:
        attention = block[0]
        u = F.gelu(attention.proj_in(attention.norm(features)))
        found['gate'].append(gate(attention.gate, u).mean(0))
        features = block(features)


CASES = {
    'EARN': (earn, {'img_range': 1.0, 'num_feat': 16, 'num_block': 2, 'squeeze_factor': 2}),
    'A2N': (a2n, {'num_feat': 16, 'num_block': 3}),
    'HAN': (han, {'img_range': 1.0, 'num_feat': 16, 'num_group': 2, 'num_block': 2}),
    'DualAttentionRCAN': (dual_attention_rcan, {'num_feat': 16, 'num_group': 2, 'num_block': 2}),
    'RCAN': (rcan, {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_group': 2, 'num_block': 2}),
    'RNAN': (rnan, {'img_range': 1.0, 'num_feat': 8, 'num_block': 3}),
    'RK4RDN': (rk4rdn, {'num_feat': 8, 'num_grow_ch': 4, 'num_block': 2, 'num_layer': 2}),
    'LGVAN': (lgvan, {'num_feat': 8, 'num_block': 2}),
}


def small_network(arch, dtype=torch.float64, **arguments):
    """With random values where a network starts with zeros."""
    torch.manual_seed(0)
    network = build_network({'type': arch, **CASES[arch][1], **arguments}).to(dtype).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.3)
    return network


def picture(dtype=torch.float64):
    return torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0), dtype=dtype)


def hooks(network):
    return sum(len(module._forward_hooks) for module in network.modules())


def test_every_listed_network_is_a_case():
    assert sorted(CASES) == sorted(NETWORKS)


@pytest.mark.parametrize('arch', CASES)
def test_readings_equal_a_plain_computation(arch):
    network, expected = small_network(arch), defaultdict(list)
    with torch.no_grad():
        CASES[arch][0](network, picture(), expected)
        with recorded_attention(network, PIXEL) as readings:
            network(picture())
    found = defaultdict(list)
    for reading in sorted(readings, key=lambda reading: (reading.block, reading.call)):
        found[reading.kind].append(reading.values)
    assert found.keys() == expected.keys()
    for kind, arrays in found.items():
        for array, plain in zip(arrays, expected[kind], strict=True):
            np.testing.assert_allclose(array, plain.numpy(), rtol=1e-7, atol=1e-12, err_msg=kind)
            assert np.ptp(array) > 1e-6, f'{kind} shows nothing'


@pytest.mark.parametrize('arch', CASES)
def test_the_output_is_unchanged_and_no_hook_is_left(arch):
    network, x = small_network(arch, torch.float32), picture(torch.float32)
    with torch.inference_mode():
        plain = network(x)
        with recorded_attention(network) as readings:
            assert torch.equal(network(x), plain)
            assert hooks(network)
    assert readings
    assert not hooks(network)


def test_no_hook_is_left_after_an_error():
    network = small_network('EARN')
    with pytest.raises(RuntimeError), recorded_attention(network):
        network(picture()[:, :2])
    assert not hooks(network)


def test_readings_are_numbered_by_block_and_by_evaluation():
    network = small_network('RK4RDN', torch.float32)
    with torch.no_grad(), recorded_attention(network) as readings:
        network(picture(torch.float32))
    numbers = [(reading.block, reading.call) for reading in readings if reading.kind == 'channel_attention']
    assert numbers == [(block, call) for block in (1, 2) for call in (1, 2, 3, 4)]


def test_without_a_pixel_the_middle_is_read():
    network = small_network('RK4RDN')
    readings = []
    for pixel in (None, (WIDTH // 2, HEIGHT // 2)):
        with torch.no_grad(), recorded_attention(network, pixel) as found:
            network(picture())
        readings.append([reading.values for reading in found if reading.kind == 'non_local_attention'])
    np.testing.assert_array_equal(*readings)


@pytest.mark.parametrize('arch', ['A2N', 'LGVAN'])
def test_a_fused_form_is_refused(arch):
    network = small_network(arch).fuse()
    with pytest.raises(UsageError, match=f'{arch} is in its fused form.* training form'), recorded_attention(network):
        pass


@pytest.mark.parametrize(
    ('arch', 'arguments'),
    [
        ('SRVGGNetCompact', {'num_in_ch': 3, 'num_out_ch': 3}),
        ('RK4RDN', {'order': 1, 'attention': 'none'}),
    ],
)
def test_networks_without_attention_are_refused(arch, arguments):
    network = build_network({'type': arch, **arguments})
    with pytest.raises(UsageError) as raised, recorded_attention(network):
        pass
    assert arch in str(raised.value)
    assert all(name in str(raised.value) for name in NETWORKS)


def test_branch_weights_of_the_official_a2n():
    weights, image = SHARED / 'weights/a2n_x2_official.pt', SHARED / 'data/Set14/LR_bicubic/X2/foremanx2.png'
    if not (weights.exists() and image.exists()):
        pytest.skip('needs the official A2N ×2 and Set14')
    pixels = cv2.imread(str(image))[..., ::-1].copy()
    network = earn_plugin.load(weights, upscale=2)
    with torch.inference_mode(), recorded_attention(network) as readings:
        network(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    found = ' '.join(f'{reading.values[0]:.2f}' for reading in readings if reading.kind == 'branch_weights')
    assert found == '0.51 0.51 0.50 0.34 0.21 0.40 0.39 0.45 0.45 0.58 0.51 0.45 0.55 0.45 0.58 0.47'

import copy
import pickle

import pytest
import torch
from basicsr.archs import build_network
from torch import nn

from earn_plugin.archs.srgan_discriminator_arch import SRGANDiscriminator


def small(**arguments):
    torch.manual_seed(0)
    return build_network({'type': 'SRGANDiscriminator', 'num_feat': 4, **arguments})


@pytest.mark.parametrize(('num_in_ch', 'num_feat'), [(3, 64), (1, 5)])
def test_has_the_original_parameter_count(num_in_ch, num_feat):
    """Convs with biases, and two values per channel for each batch norm."""
    c, f = num_in_ch, num_feat
    doublings = sum(9 * w * w + w + 2 * w + 9 * w * 2 * w + 2 * w + 4 * w for w in (f, 2 * f, 4 * f))
    last = 9 * (8 * f) ** 2 + 8 * f + 2 * 8 * f
    head = 8 * f * 16 * f + 16 * f + 16 * f + 1
    expected = 9 * c * f + f + doublings + last + head
    assert sum(p.numel() for p in SRGANDiscriminator(c, f).parameters()) == expected
    assert (c, f) != (3, 64) or expected == 5_215_425


def test_equals_the_layers_written_out():
    """Each image alone, through the functions of torch, with the names of the authors' parameters."""
    network = small().double().eval()
    for index, buffer in enumerate(network.buffers()):
        if buffer.is_floating_point():  # running statistics other than the initial ones
            nn.init.uniform_(buffer, 0.5, 1.5, generator=torch.Generator().manual_seed(index))
    state = network.state_dict()
    images = torch.rand(3, 3, 19, 26, dtype=torch.float64)

    def conv(x, index, stride=1, padding=1):
        return nn.functional.conv2d(x, state[f'net.{index}.weight'], state[f'net.{index}.bias'], stride, padding)

    def normalise(x, index):
        mean, var, weight, bias = (
            state[f'net.{index}.{name}'].view(-1, 1, 1) for name in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def leaky(x):
        return torch.maximum(x, 0.2 * x)

    expected = []
    for image in images.split(1):
        x = leaky(conv(image, 0))
        for number, index in enumerate(range(2, 23, 3)):  # strides 2, 1, 2, 1, 2, 1, 2
            x = leaky(normalise(conv(x, index, stride=2 - number % 2), index + 1))
        assert x.shape[1:] == (32, 2, 2)
        x = leaky(conv(x.mean((2, 3), keepdim=True), 24, padding=0))
        expected.append(conv(x, 26, padding=0).flatten(1))
    with torch.no_grad():
        assert torch.allclose(network(images), torch.cat(expected), atol=1e-12)


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (2, 3), (17, 5), (33, 31), (48, 64)])
def test_any_size_gives_one_logit_per_image(size):
    network = small()
    out = network(torch.rand(3, 3, *size))
    assert out.shape == (3, 1)
    out.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_state_dict_deepcopy_and_pickle_give_the_same_output():
    network = small()
    network(torch.rand(4, 3, 9, 9))  # changes the running statistics, which are part of the state
    network.eval()
    x = torch.rand(2, 3, 12, 7)
    with torch.no_grad():
        expected = network(x)
        other = SRGANDiscriminator(num_feat=4).eval()
        assert not torch.equal(other(x), expected)
        other.load_state_dict(network.state_dict())
        for twin in (other, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(twin(x), expected)

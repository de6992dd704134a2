"""Networks that take multiples of a size only."""

import pytest
import torch
from torch import nn

from earn_plugin.inference.padding import PaddedNetwork, for_any_size
from earn_plugin.inference.tiles import TiledNetwork


class Unshuffled(nn.Sequential):
    """×1 by way of a quarter of the pixels."""

    def __init__(self):
        super().__init__(nn.PixelUnshuffle(4), nn.Conv2d(48, 48, 3, padding=1), nn.PixelShuffle(4))


@pytest.mark.parametrize('size', [(8, 12), (9, 15), (1, 1)])
def test_the_last_pixels_are_repeated_up_to_the_multiple(size):
    network = Unshuffled().eval()
    padded = for_any_size(network, 3, 1)
    assert isinstance(padded, PaddedNetwork) and padded.multiple == 4
    x = torch.rand(2, 3, *size)
    rows, columns = (torch.arange(-(-side // 4) * 4).clamp(max=side - 1) for side in size)
    with torch.no_grad():
        assert torch.equal(padded(x), network(x[:, :, rows][..., columns])[..., : size[0], : size[1]])


def test_tiles_of_a_padded_network_equal_the_whole_image():
    network = for_any_size(Unshuffled().eval().double(), 3, 1)
    image = torch.rand(1, 3, 170, 190, dtype=torch.float64)
    tiled = TiledNetwork(network, 1, tile=50, dtype=torch.float64)
    assert tiled.describe(image).startswith('exact')
    with torch.inference_mode():
        assert (tiled(image) - network(image)).abs().max() < 1e-12


def test_a_network_for_any_size_is_not_padded():
    network = nn.Conv2d(3, 3, 3, padding=1)
    assert for_any_size(network, 3, 1) is network
    fails = nn.Conv2d(5, 3, 3, padding=1)
    assert for_any_size(fails, 3, 1) is fails

"""The benchmark's tiles with a fixed overlap: equal to the complete image where they overlap enough, else not."""

import torch
from torch import nn

from tests.benchmarks.against_spandrel import fixed_tiles


def test_tiles_that_see_enough_equal_the_complete_image():
    network = nn.Sequential(*[nn.Conv2d(3, 3, 3, 1, 1) for _ in range(4)], nn.Upsample(scale_factor=2)).double()
    image = torch.rand(1, 3, 21, 34, dtype=torch.float64)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(fixed_tiles(network, image, 2, 8, overlap=4), expected)
        assert not torch.allclose(fixed_tiles(network, image, 2, 8, overlap=2), expected)

"""Tiles against the whole image."""

import pytest
import torch
from torch import Tensor, nn

from earn_plugin.errors import UserError
from earn_plugin.inference.parts import PartRunner, ranges
from earn_plugin.inference.tiles import Plan, TiledNetwork
from tests.archs.test_any_arch import EVERY, small

CPU = torch.device('cpu')


def whole(network: nn.Module, image: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(image)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def put_together(parts, like: Tensor) -> Tensor:
    out = torch.full_like(like, torch.nan)
    for top, left, part in parts:
        place = out[:, :, top : top + part.shape[2], left : left + part.shape[3]]
        assert place.isnan().all()  # each value once
        place.copy_(part)
    return out


@pytest.mark.parametrize(('name', 'arguments'), EVERY)
def test_tiles_of_every_network_equal_the_whole_image(name, arguments):
    """Sums of float64 in another order; the windows are as small as the tiles allow."""
    for upscale, size in ((2, (37, 50)), (3, (50, 23))):
        network = small(name, upscale=upscale, **arguments).double()
        image = torch.rand(1, 3, *size, dtype=torch.float64)
        expected = whole(network, image)
        runner = PartRunner(CPU, upscale, tile=12, rows=6, smallest=1)
        with torch.inference_mode():
            if hasattr(network, 'by_parts'):
                parts = network.by_parts(image, runner)
            else:
                parts = runner.output(network, image, reach=network.reach)
            out = put_together(parts, expected)
        assert (out - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [('LGVAN', {}), ('LGVAN', {'fused': True}), ('A2N', {}), ('A2N', {'fused': True}), ('EARN', {}), ('HAN', {})],
)
def test_float32_tiles_are_equal_bit_for_bit(name, arguments, one_thread):
    """Threads share an image, and the last values of each share are rounded differently by sigmoid and GELU."""
    network = small(name, upscale=3, **arguments)
    image = torch.rand(1, 3, 200, 260)
    assert torch.equal(TiledNetwork(network, 3, tile=64)(image), whole(network, image))


def test_what_is_done_is_described():
    image = torch.rand(1, 3, 90, 70)
    lgvan, a2n = small('LGVAN'), small('A2N')
    assert TiledNetwork(lgvan, 4).describe(image) == 'whole image'
    assert TiledNetwork(lgvan, 4, tile=0).describe(image) == 'whole image'
    assert TiledNetwork(lgvan, 4, tile=90).describe(image) == 'whole image'
    assert TiledNetwork(lgvan, 4, tile=64).describe(image) == 'exact (overlap 21)'
    assert TiledNetwork(a2n, 4, tile=64).describe(image) == 'exact (global statistics first)'


def test_approximate_tiles_say_how_far_they_are_off():
    class Mean(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) - x.mean((2, 3), keepdim=True)

    image = torch.zeros(1, 3, 64, 400)
    image[..., 200:] = 1
    tiled = TiledNetwork(Mean(3, 3, 1), 1, tile=64)
    assert tiled.plan(64, 400) == Plan('approximate', 64, 32, 16)
    text = tiled.describe(image)
    assert text.startswith('approximate (overlap 32): largest difference ')
    assert 1 < float(text.split()[-4].removesuffix('/255')) < 255


def test_small_tiles_are_compared_with_more_than_they_see():
    network = nn.Conv2d(3, 3, (1, 99), padding=(0, 49))
    text = TiledNetwork(network, 1, tile=16, approximate=True).describe(torch.rand(1, 3, 150, 150))
    assert float(text.split()[-4].removesuffix('/255')) > 0.1


def test_the_reach_of_other_networks_is_measured():
    torch.manual_seed(0)
    network = nn.Sequential(*[nn.Conv2d(3, 3, 5, padding=2) for _ in range(5)]).eval()
    image = torch.rand(1, 3, 200, 180)
    tiled = TiledNetwork(network, 1, tile=50)
    assert tiled.describe(image) == 'exact (overlap 10)'
    assert torch.equal(tiled(image), whole(network, image))


def test_the_tile_follows_from_the_memory(monkeypatch):
    network = small('LGVAN')
    tiled = TiledNetwork(network, 4)
    monkeypatch.setattr('earn_plugin.inference.tiles.WORKING_MEMORY', 2**26)
    plan = tiled.plan(3000, 4000)
    assert plan.way == 'exact'
    taken = (plan.tile + 2 * plan.overlap) ** 2 * tiled._pixel_bytes(192)
    assert 0.9 * 2**26 < taken <= 2**26
    assert tiled.plan(129, 129).way == 'whole'


def test_features_that_do_not_fit_make_tiles_approximate(monkeypatch):
    monkeypatch.setattr('earn_plugin.inference.tiles.available_bytes', lambda device: 2**24)
    assert TiledNetwork(small('EARN'), 4).plan(3000, 4000).way == 'approximate'


class OutOfMemoryAbove(nn.Module):
    """Raises as torch does for windows of more than ``pixels``."""

    reach = alignment = 2

    def __init__(self, pixels: int):
        super().__init__()
        self.pixels, self.sizes = pixels, []
        self.conv = nn.Conv2d(1, 1, 5, padding=2).double()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(x.shape[2:].numel())
        if self.sizes[-1] > self.pixels:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return self.conv(x)


def test_tiles_are_halved_where_memory_runs_out():
    network = OutOfMemoryAbove(600)
    image = torch.rand(1, 1, 50, 80, dtype=torch.float64)
    tiled = TiledNetwork(network, 1, channels=1, tile=40, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(tiled(image), network.conv(image), rtol=0, atol=1e-15)
    runner = PartRunner(CPU, 1, rows=40, smallest=1)
    with torch.inference_mode():
        out = runner.update(network, image.clone(), reach=2, alignment=2)
        assert torch.allclose(out, network.conv(image), rtol=0, atol=1e-15)
    assert min(network.sizes) > 100


def test_a_whole_image_for_which_memory_runs_out_is_done_in_exact_tiles(caplog):
    for name in ('LGVAN', 'A2N'):
        network = small(name).double()
        image = torch.rand(1, 3, 90, 70, dtype=torch.float64)
        expected = whole(network, image)
        limit = OutOfMemoryAbove(6000)
        network.register_forward_hook(lambda _, inputs, out, limit=limit: out.add(0 * limit(inputs[0][:, :1]).sum()))
        tiled = TiledNetwork(network, 4, dtype=torch.float64)
        assert tiled.plan(90, 70).way == 'whole'
        assert (tiled(image) - expected).abs().max() < 1e-12
        assert 'too little memory for the whole image: exact' in caplog.text
        assert tiled.plan(90, 70).way == {'LGVAN': 'exact', 'A2N': 'parts'}[name]


def test_a_map_that_is_given_twice_is_updated_as_one():
    def part(x: Tensor, again: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 3, 1, 1) + nn.functional.max_pool2d(again, 3, 1, 1)

    x = torch.rand(1, 2, 20, 9, dtype=torch.float64)
    expected = part(x, x)
    assert torch.equal(PartRunner(CPU, 1, rows=4, smallest=1).update(part, x, x, reach=1), expected)


def test_too_little_memory_for_a_pixel_is_an_error():
    image = torch.rand(1, 1, 50, 80, dtype=torch.float64)
    with pytest.raises(UserError, match='not enough memory'):
        TiledNetwork(OutOfMemoryAbove(5), 1, channels=1, tile=40, dtype=torch.float64)(image)


def test_other_errors_are_not_swallowed():
    class Broken(nn.Module):
        reach = alignment = 1

        def forward(self, x):
            raise RuntimeError('broken')

    with pytest.raises(RuntimeError, match='broken'):
        TiledNetwork(Broken(), 1, tile=8)(torch.rand(1, 3, 20, 20))


def test_ranges_cover_a_length_in_equal_parts():
    assert ranges(10, 4) == [(0, 3), (3, 7), (7, 10)]
    assert ranges(11, 4, 2) == [(0, 4), (4, 8), (8, 11)]
    assert ranges(3, 8) == [(0, 3)]
    for length in range(1, 40):
        for most in range(1, 12):
            for alignment in (1, 2, 4):
                found = ranges(length, most, alignment)
                assert [stop for _, stop in found] == [*[start for start, _ in found[1:]], length]
                assert found[0][0] == 0
                assert all(start < stop and start % alignment == 0 for start, stop in found)


def test_the_whole_image_that_is_asked_for_is_not_replaced_by_tiles():
    image = torch.rand(1, 1, 50, 80, dtype=torch.float64)
    with pytest.raises(UserError, match='leave out --tile 0'):
        TiledNetwork(OutOfMemoryAbove(600), 1, channels=1, tile=0, dtype=torch.float64)(image)

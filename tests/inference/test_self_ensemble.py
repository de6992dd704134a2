import errno
import resource

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from torch import nn

from earn_plugin.inference import self_ensemble
from earn_plugin.inference.self_ensemble import TRANSFORMS, EnsembledNetwork, SelfEnsemble, transform, transform_back
from earn_plugin.inference.tiles import TiledNetwork


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return build_network({'type': 'EARN', 'num_feat': 16, 'num_block': 1, 'upscale': 2}).eval()


def expected_mean(network: nn.Module, image: np.ndarray) -> np.ndarray:
    """Of rotations by 0, 90, 180 and 270 degrees, each with and without mirroring, in float64."""
    results = []
    for mirrors in (False, True):
        for quarters in range(4):
            turned = np.rot90(image[..., ::-1] if mirrors else image, quarters, (-2, -1))
            with torch.no_grad():
                result = network.double()(torch.tensor(turned.copy())).numpy()
            result = np.rot90(result, -quarters, (-2, -1))
            results.append(result[..., ::-1] if mirrors else result)
    assert len({result.tobytes() for result in results}) == 8
    return np.mean(results, axis=0)


@pytest.mark.parametrize('shape', [(2, 3, 12, 17), (1, 3, 1, 2)])
def test_the_mean_of_eight_rotations_and_reflections(shape):
    image = np.random.default_rng(0).random(shape)
    expected = expected_mean(small_network(), image)
    with torch.no_grad():
        found = SelfEnsemble(small_network().double())(torch.tensor(image))
    assert np.abs(found.numpy() - expected).max() < 1e-12
    assert found.dtype == torch.float64


def test_halves_are_added_up_in_float32():
    identity = SelfEnsemble(nn.Identity())
    x = torch.rand(1, 3, 5, 6).half()
    assert torch.equal(identity(x), x.float())


def test_there_are_eight_and_each_is_turned_back():
    x = torch.rand(1, 3, 4, 5)
    turned = [transform(x, *change) for change in TRANSFORMS]
    assert len({(tuple(t.shape), t.contiguous().numpy().tobytes()) for t in turned}) == 8
    for change, image in zip(TRANSFORMS, turned, strict=True):
        assert torch.equal(transform_back(image, *change), x)
        assert np.array_equal(transform(x.numpy(), *change), image.numpy())


class Tiles(TiledNetwork):
    """Cuts the result into tiles that do not divide it evenly."""

    def parts(self, image):
        for _, _, whole in super().parts(image):
            for top in range(0, whole.shape[2], 7):
                for left in range(0, whole.shape[3], 10):
                    yield top, left, whole[:, :, top : top + 7, left : left + 10]


@pytest.mark.parametrize('limit', [self_ensemble.IN_MEMORY, 0], ids=['memory', 'file'])
def test_parts_equal_the_whole_image(limit, monkeypatch):
    monkeypatch.setattr(self_ensemble, 'IN_MEMORY', limit)
    monkeypatch.setattr(self_ensemble, 'BAND', 9)
    image, network = torch.rand(1, 3, 11, 14), small_network()
    ensembled = EnsembledNetwork(Tiles(network, 2))
    with torch.no_grad():
        expected = SelfEnsemble(network)(image)
    covered = torch.full_like(expected, torch.nan)
    for top, left, part in ensembled.parts(image):
        place = covered[:, :, top : top + part.shape[2], left : left + part.shape[3]]
        assert place.isnan().all()
        assert part.dtype == torch.float32
        place.copy_(part)
    assert torch.equal(covered, expected)
    assert ensembled.scale == 2
    assert ensembled.describe(image) == 'whole image, self-ensemble'


def test_a_full_temporary_folder_is_an_error_before_the_first_result():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(OSError) as raised:
            self_ensemble.zeros((1, 3, 10_000, 10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.errno == errno.EFBIG

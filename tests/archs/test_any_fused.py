"""Properties of every network's fused form."""

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from earn_plugin.archs import blocks
from earn_plugin.protocols import Fusible
from tests.archs import test_a2n_fused, test_lgvan_fused
from tests.archs.test_any_arch import SMALL

TRAINED = {'A2N': test_a2n_fused.trained, 'LGVAN': test_lgvan_fused.trained}
every = pytest.mark.parametrize('name', TRAINED)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def test_the_table_has_every_fused_form():
    assert set(TRAINED) == {name for name in SMALL if isinstance(ARCH_REGISTRY.get(name), Fusible)}


@every
@pytest.mark.parametrize('upscale', [3, 4])
def test_an_export_has_no_bands_and_works_for_other_sizes(monkeypatch, name, upscale):
    monkeypatch.setattr(blocks, 'BAND_BYTES', 1)
    fused, any_size = TRAINED[name](upscale=upscale).double().fuse(), torch.export.Dim.DYNAMIC
    x = torch.rand(2, 3, 90, 7, dtype=torch.float64)
    exported = torch.export.export(fused, (x,), dynamic_shapes=({0: any_size, 2: any_size, 3: any_size},)).module()
    for size in [(1, 1), (2, 2), (5, 3), (1, 4), (99, 20)]:
        x = torch.rand(1, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(exported(x), fused(x), rtol=0, atol=1e-12)


@every
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_weights_are_rounded_once(dtype, name):
    """Sums and products of weights are computed in float64, then rounded once."""
    network = TRAINED[name]().to(dtype)
    expected = network.double().fuse().state_dict()
    for key, value in network.to(dtype).fuse().state_dict().items():
        assert value.dtype == dtype
        assert torch.equal(value, expected[key].to(dtype)), key


@every
def test_fuse_does_not_change_the_network(name):
    network: nn.Module = TRAINED[name]().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fused = network.fuse()
    assert fused.training and not fused.eval().training and network.training
    for parameter in fused.parameters():
        parameter.fill_(1)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert fused.fuse() is fused

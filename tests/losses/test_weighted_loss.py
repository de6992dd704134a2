import pytest
import torch

from earn_plugin import losses
from earn_plugin.losses.weighted_loss import WeightedLoss

PRED, TARGET = torch.rand(2, 2, 3, 32, 40, generator=torch.Generator().manual_seed(1))
NAMES = [name for name in losses.__all__ if issubclass(getattr(losses, name), WeightedLoss)]
OF_VGG = ['VGGPerceptualLoss', 'TextureLoss']


def create(name, **options):
    return getattr(losses, name)(**options, **({'weights': 'random'} if name in OF_VGG else {}))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', [name for name in NAMES if name not in OF_VGG])
def test_half_precision_and_autocast_are_computed_in_float32(name, dtype):
    loss = create(name)
    pred = PRED.to(dtype).requires_grad_()
    exact = PRED.to(dtype).float().requires_grad_()
    expected = loss(exact, TARGET)
    with torch.autocast('cpu', torch.bfloat16):
        value = loss(pred, TARGET)
        of_float = loss(exact.detach(), TARGET)
    assert value.dtype == torch.float32
    assert value == expected == of_float
    value.backward()
    expected.backward()
    assert torch.equal(pred.grad, exact.grad.to(dtype))


@pytest.mark.parametrize('name', OF_VGG)
def test_autocast_applies_to_the_vgg_network_alone(name):
    loss, pred = create(name), PRED.clone().requires_grad_()
    expected = loss(pred, TARGET)
    with torch.autocast('cpu', torch.bfloat16):
        value = loss(pred, TARGET)
    assert value.dtype == torch.float32
    assert value != expected
    assert value.item() == pytest.approx(expected.item(), rel=0.03)


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
@pytest.mark.parametrize('name', NAMES)
def test_weight_and_reduction_can_be_read_as_in_basicsr(name, reduction):
    """Accumulated batches divide a mean, and not a sum."""
    loss = create(name, loss_weight=0.5, reduction=reduction)
    assert (loss.loss_weight, loss.reduction) == (0.5, reduction)

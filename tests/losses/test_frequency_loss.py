import numpy as np
import torch

from earn_plugin.losses import FrequencyLoss


def test_is_the_mean_over_real_and_imaginary_parts():
    pred, target = torch.rand(2, 2, 3, 5, 7, dtype=torch.float64)
    spectra = [np.fft.fft2(x.numpy()) for x in (pred, target)]
    parts = [np.stack([s.real, s.imag]) for s in spectra]
    expected = np.abs(parts[0] - parts[1])
    assert np.isclose(FrequencyLoss()(pred, target), expected.mean())
    assert np.isclose(FrequencyLoss(loss_weight=0.5, reduction='sum')(pred, target), 0.5 * expected.sum())
    full = FrequencyLoss(reduction='none')(pred, target)
    assert np.allclose(full.numpy(), np.moveaxis(expected, 0, -1))


def test_gradient_and_half_precision():
    target = torch.rand(1, 1, 4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: FrequencyLoss()(p, target), torch.rand_like(target).requires_grad_())
    pred = torch.rand(1, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    FrequencyLoss()(pred, torch.rand_like(pred)).backward()
    assert torch.isfinite(pred.grad).all()

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_ssim
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from earn_plugin.losses import SSIMLoss
from tests.helpers.images import photograph


def tensors(height, width, seed, dtype=torch.float64):
    clean = photograph(height, width, seed).astype(np.float64) / 255
    noisy = clean + np.random.default_rng(seed).normal(0, 0.05, clean.shape)
    return [torch.from_numpy(image).permute(2, 0, 1)[None].to(dtype) for image in (noisy, clean)]


def basicsr(pred, target):
    """BasicSR's metric on float images."""
    images = [x[0].permute(1, 2, 0).double().numpy() * 255 for x in (pred, target)]
    return calculate_ssim(*images, crop_border=0)


@settings(max_examples=15, deadline=None)
@given(height=st.integers(11, 40), width=st.integers(11, 40), seed=st.integers(0, 99))
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_is_one_minus_basicsrs_metric(dtype, height, width, seed):
    pred, target = tensors(height, width, seed, dtype)
    assert abs(1 - SSIMLoss()(pred, target).item() - basicsr(pred, target)) < 1e-6


def test_smooth_float32_images_keep_their_digits():
    y = torch.linspace(0.9, 1, 64).expand(1, 3, 64, 64).contiguous()
    pred = y + 1e-3 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert abs(1 - SSIMLoss()(pred, y).item() - basicsr(pred, y)) < 1e-6


@pytest.mark.parametrize(('window_size', 'sigma'), [(9, 1.0), (11, 1.5), (15, 2.0)])
def test_other_windows_equal_skimages(window_size, sigma):
    """skimage's window reaches to 3.5 σ."""
    pred, target = tensors(30, 40, 1)
    images = [x[0].permute(1, 2, 0).numpy() for x in (pred, target)]
    settings = {'data_range': 1, 'channel_axis': 2, 'gaussian_weights': True, 'use_sample_covariance': False}
    full = structural_similarity(*images, sigma=sigma, full=True, **settings)[1]
    loss = SSIMLoss(window_size=window_size, sigma=sigma, reduction='none')(pred, target)
    border = window_size // 2
    np.testing.assert_allclose(1 - loss[0].permute(1, 2, 0).numpy(), full[border:-border, border:-border], atol=1e-12)


def test_weight_and_reductions():
    pred, target = tensors(15, 20, 2)
    full = SSIMLoss(reduction='none')(pred, target)
    assert full.shape == (1, 3, 5, 10)
    assert torch.isclose(SSIMLoss(loss_weight=2.0)(pred, target), 2 * full.mean())
    assert torch.isclose(SSIMLoss(reduction='sum')(pred, target), full.sum())


def test_data_range():
    pred, target = tensors(15, 15, 3)
    assert torch.isclose(SSIMLoss(data_range=255.0)(pred * 255, target * 255), SSIMLoss()(pred, target))


@pytest.mark.parametrize('num_scale', [1, 2])
@pytest.mark.parametrize('value', [0.0, 0.5, 1.0])
def test_gradients_on_constant_images_are_finite(num_scale, value):
    pred = torch.full((1, 3, 24, 24), value, requires_grad=True)
    SSIMLoss(num_scale=num_scale)(pred, torch.rand(1, 3, 24, 24)).backward()
    assert torch.isfinite(pred.grad).all()


def test_gradient_is_correct():
    pred, target = tensors(12, 13, 4)
    assert torch.autograd.gradcheck(lambda p: SSIMLoss()(p, target), pred[:, :1].requires_grad_())


def slow_multi_scale(pred, target, weights, size=11, sigma=1.5):
    """Equation 7 of the multi-scale paper, for one channel."""
    offset = np.arange(size) - size // 2
    window = np.exp(-(offset**2) / (2 * sigma**2))
    window = np.outer(window, window) / window.sum() ** 2

    def local(x):
        views = np.lib.stride_tricks.sliding_window_view(x, (size, size))
        return (views * window).sum((2, 3))

    result = 1.0
    for scale, weight in enumerate(weights):
        mp, mt = local(pred), local(target)
        vp, vt, c = local(pred**2) - mp**2, local(target**2) - mt**2, local(pred * target) - mp * mt
        contrast = (2 * c + 0.03**2) / (vp + vt + 0.03**2)
        luminance = (2 * mp * mt + 0.01**2) / (mp**2 + mt**2 + 0.01**2)
        last = scale == len(weights) - 1
        result *= ((luminance * contrast if last else contrast).mean()) ** weight
        shape = (pred.shape[0] // 2, 2, pred.shape[1] // 2, 2)
        pred, target = (x[: shape[0] * 2, : shape[2] * 2].reshape(shape).mean((1, 3)) for x in (pred, target))
    return result


def test_window_of_earns_authors():
    pred, target = tensors(20, 25, 6)
    loss = SSIMLoss(window_size=7, sigma=1.0)(pred[:, :1], target[:, :1])
    assert np.isclose(1 - loss.item(), slow_multi_scale(pred[0, 0].numpy(), target[0, 0].numpy(), [1.0], 7, 1.0))


@pytest.mark.parametrize('num_scale', [2, 3, 5])
def test_multi_scale_equals_the_papers_formula(num_scale):
    pred, target = tensors(200, 181, 5)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:num_scale])
    weights /= weights.sum()
    expected = [slow_multi_scale(p.numpy(), t.numpy(), weights) for p, t in zip(pred[0], target[0], strict=True)]
    loss = SSIMLoss(num_scale=num_scale, reduction='none')(pred, target)
    np.testing.assert_allclose(1 - loss[0].numpy(), expected, rtol=1e-6)


def test_an_image_that_is_too_small():
    with pytest.raises(ValueError, match='10×30 is too small for an SSIM window of 11 at 1 scale'):
        SSIMLoss()(torch.rand(1, 3, 10, 30), torch.rand(1, 3, 10, 30))
    with pytest.raises(ValueError, match='needs at least 22×22'):
        SSIMLoss(num_scale=2)(torch.rand(1, 3, 21, 30), torch.rand(1, 3, 21, 30))


@pytest.mark.parametrize(
    'wrong',
    [{'window_size': 4}, {'sigma': 0.0}, {'data_range': 0}, {'num_scale': 6}, {'num_scale': 0}, {'reduction': 'max'}],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match='got'):
        SSIMLoss(**wrong)

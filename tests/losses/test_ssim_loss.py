import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_ssim
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


def textbook(pred, target, size, sigma, data_range, num_scale):
    """The loss in float64 by E[x²] − E[x]²."""
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    window = torch.exp(-(offset**2) / (2 * sigma**2))
    window = (torch.outer(window, window) / window.sum() ** 2).expand(3, 1, size, size)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    weights = torch.tensor([0.0448, 0.2856, 0.3001, 0.2363, 0.1333], dtype=torch.float64)[:num_scale]
    result = 1.0
    for scale, weight in enumerate(weights / weights.sum()):
        mp, mt, pp, tt, pt = (F.conv2d(x, window, groups=3) for x in (pred, target, pred**2, target**2, pred * target))
        contrast = (2 * (pt - mp * mt) + c2) / (pp - mp**2 + tt - mt**2 + c2)
        similarity = (2 * mp * mt + c1) / (mp**2 + mt**2 + c1) * contrast
        factor = similarity if scale == num_scale - 1 else contrast
        result = result * factor.mean((2, 3)).clamp(min=1e-6) ** weight
        pred, target = F.avg_pool2d(pred, 2), F.avg_pool2d(target, 2)
    return 1 - (similarity if num_scale == 1 else result).mean()


def awkward_images():
    """Pairs of which E[x²] − E[x]² in float32 loses the variance, or the gradient vanishes in places."""
    _, photo = tensors(47, 38, 7, torch.float32)
    generator = torch.Generator().manual_seed(0)

    def noise(deviation):
        return deviation * torch.randn(photo.shape, generator=generator)

    yield 'equal', photo.clone(), photo
    yield 'bright', 0.7 * photo + 0.3, 0.7 * photo
    yield 'saturated', (3 * photo - 1 + noise(0.02)).clamp(0, 1), (3 * photo - 1).clamp(0, 1)
    yield 'far out of range', 10 + noise(5), photo
    for value in (0.0, 0.5, 1.0):
        flat = torch.full_like(photo, value)
        yield f'flat {value}', flat.clone(), flat
        yield f'flat {value} for a photograph', flat.clone(), photo
        yield f'photograph for flat {value}', photo.clone(), flat
        for deviation in (1e-3, 1e-6):
            yield f'flat {value} with noise {deviation}', flat + noise(deviation), flat + noise(deviation)
        for offset in (0.01, 0.3, -1.0):
            yield f'flat {value} with offset {offset}', flat + offset + noise(1e-6), flat
    half = photo.clone()
    half[..., 19:] = 1
    yield 'half flat', half + noise(0.01), half
    opposite = torch.where(half == 1, 0.9, 0.1)
    yield 'offsets of both signs', opposite + torch.where(half == 1, -0.3, 0.3), opposite


@pytest.mark.parametrize('data_range', [1.0, 255.0])
@pytest.mark.parametrize(
    ('window_size', 'sigma', 'num_scale'), [(1, 1.0, 1), (7, 1.0, 1), (11, 1.5, 1), (11, 1.5, 2), (3, 1.0, 4)]
)
def test_float32_has_the_gradient_of_float64(window_size, sigma, num_scale, data_range):
    for name, pred, target in awkward_images():
        pred, target = (pred * data_range).requires_grad_(), target * data_range
        exact = pred.detach().double().requires_grad_()
        expected = textbook(exact, target.double(), window_size, sigma, data_range, num_scale)
        loss = SSIMLoss(1.0, 'mean', window_size, sigma, data_range, num_scale)(pred, target)
        loss.backward()
        expected.backward()
        assert abs(loss.item() - expected.item()) < 1e-6, name
        error = (pred.grad - exact.grad).abs().max()
        # below 1e-9 of the gradient of an L1 loss, the textbook's own rounding is larger
        assert error <= 1e-4 * exact.grad.abs().max() + 1e-9 / (pred.numel() * data_range), name


class Dtypes(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        self.seen |= {x.dtype for x in tree_leaves(result) if isinstance(x, torch.Tensor)}
        return result


@pytest.mark.parametrize('num_scale', [1, 2])
def test_float32_images_are_not_computed_in_float64(num_scale):
    """Which many GPUs do at a 64th of the speed, and Apple's not at all."""
    pred, target = tensors(24, 24, 8, torch.float32)
    loss = SSIMLoss(num_scale=num_scale)
    with Dtypes() as dtypes:
        loss(pred.requires_grad_(), target).backward()
    assert torch.float32 in dtypes.seen
    assert torch.float64 not in dtypes.seen


@pytest.mark.parametrize('num_scale', [1, 2])
def test_a_batch_is_the_mean_of_its_images(num_scale):
    pairs = [tensors(24, 27, seed) for seed in range(3)]
    loss = SSIMLoss(num_scale=num_scale)
    batch = loss(*(torch.cat(images) for images in zip(*pairs, strict=True)))
    assert torch.isclose(batch, torch.stack([loss(*pair) for pair in pairs]).mean(), rtol=1e-12)


def test_gradient_is_correct():
    pred, target = tensors(12, 13, 4)
    assert torch.autograd.gradcheck(lambda p: SSIMLoss()(p, target), pred[:, :1].requires_grad_())
    pred, target = tensors(6, 7, 4)
    multi_scale = SSIMLoss(window_size=3, num_scale=2, reduction='none')
    assert torch.autograd.gradcheck(lambda p: multi_scale(p, target), pred.requires_grad_())


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

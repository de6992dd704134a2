from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earn_plugin.data import bicubic
from earn_plugin.data.bicubic_torch import imresize_tensor
from tests.data.test_bicubic import SCALES, benchmark_images, every_border
from tests.helpers.images import photograph


def batch(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())


@every_border
def test_benchmark_lr_files_are_byte_exact(shared_data, border, folder):
    for hr, scale, lr in benchmark_images(shared_data / folder):
        assert torch.equal(imresize_tensor(batch(hr), Fraction(1, scale), border), batch(lr))


@settings(deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    scale=st.sampled_from(SCALES),
    border=st.sampled_from(bicubic.BORDERS),
    dtype=st.sampled_from([np.uint8, np.float64, np.float32, np.float16]),
)
def test_equals_numpy(height, width, scale, border, dtype):
    images = [photograph(height, width, seed) for seed in (height, width)]
    if dtype != np.uint8:
        images = [(image / 255).astype(dtype) for image in images]
    resized = imresize_tensor(batch(*images), scale, border)
    expected = batch(*[bicubic.imresize(image, scale, border) for image in images])
    assert resized.dtype == expected.dtype
    if dtype in (np.uint8, np.float64):  # summed in the same order
        assert torch.equal(resized, expected)
    else:
        torch.testing.assert_close(resized, expected, rtol=0, atol={np.float32: 1e-6, np.float16: 1e-3}[dtype])


@pytest.mark.parametrize('scale', [Fraction(1, 2), Fraction(1, 3), 2])
@pytest.mark.parametrize('border', bicubic.BORDERS)
def test_gradient(scale, border):
    images = torch.rand(2, 1, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize_tensor(x, scale, border), images)


@pytest.mark.parametrize(
    ('images', 'scale', 'border'),
    [
        (torch.zeros(1, 1, 2, 2), 0, 'replicate'),
        (torch.zeros(1, 1, 2, 2), 0.5, 'reflect'),
        (torch.zeros(1, 1, 2, 2, dtype=torch.int32), 0.5, 'replicate'),
        (torch.zeros(1, 1, 0, 2), 0.5, 'replicate'),
        (torch.zeros(1, 2, 2), 0.5, 'replicate'),
    ],
)
def test_wrong_arguments(images, scale, border):
    with pytest.raises(ValueError, match='got'):
        imresize_tensor(images, scale, border)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU on this machine')
def test_gpu_gives_the_same_bytes():
    images = batch(photograph(61, 47, 1), photograph(61, 47, 2))
    for scale in SCALES:
        assert torch.equal(imresize_tensor(images.cuda(), scale).cpu(), imresize_tensor(images, scale))

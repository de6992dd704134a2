from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earn_plugin.data.bicubic import crop_to_multiple, imresize
from tests.conftest import photograph

FOLDERS = {'replicate': ('Set5/LR_bicubic', 'Set14/LR_bicubic'), 'symmetric': ('Set5/LR_bicubic_symborder',)}


@pytest.mark.parametrize(('border', 'folder'), [(b, f) for b, folders in FOLDERS.items() for f in folders])
def test_benchmark_lr_files_come_out_to_the_byte(shared_data, border, folder):
    files = sorted((shared_data / folder).glob('X*/*.png'))
    assert files
    for file in files:
        scale = int(file.parent.name[1:])
        hr = cv2.imread(
            str(shared_data / folder.split('/')[0] / 'HR' / f'{file.stem.removesuffix(f"x{scale}")}.png'), -1
        )
        made = imresize(crop_to_multiple(hr, scale), Fraction(1, scale), border)
        np.testing.assert_array_equal(made, cv2.imread(str(file), -1), err_msg=str(file))


def slow_resize(line: np.ndarray, scale: float, border: str) -> np.ndarray:
    """One axis by the direct formula, pixel by pixel."""

    def kernel(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0

    length, shrink = len(line), min(scale, 1)
    out = []
    for i in range(int(np.ceil(length * scale - 1e-9))):
        centre = (i + 0.5) / scale - 0.5
        total = weights = 0
        for j in range(int(np.floor(centre - 2 / shrink)) - 1, int(np.ceil(centre + 2 / shrink)) + 2):
            weight = kernel(shrink * (centre - j))
            if border == 'replicate':
                source = min(max(j, 0), length - 1)
            else:
                source = j
                while not 0 <= source < length:
                    source = -1 - source if source < 0 else 2 * length - 1 - source
            total, weights = total + weight * line[source], weights + weight
        out.append(total / weights)
    return np.array(out)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    scale=st.sampled_from([Fraction(1, 4), Fraction(1, 3), Fraction(1, 2), Fraction(2, 3), 1, Fraction(3, 2), 2, 3, 4]),
    border=st.sampled_from(['replicate', 'symmetric']),
    seed=st.integers(0, 99),
)
def test_equals_the_direct_formula(height, width, scale, border, seed):
    image = np.random.default_rng(seed).uniform(0, 1, (height, width))
    columns = np.stack([slow_resize(image[:, j], float(scale), border) for j in range(width)], axis=1)
    expected = np.stack([slow_resize(row, float(scale), border) for row in columns])
    np.testing.assert_allclose(imresize(image, scale, border), expected, atol=1e-12)


def test_uint8_is_rounded_after_each_axis_halves_up():
    image = photograph(20, 26)
    first = np.stack([[slow_resize(image[:, j, c], 0.5, 'replicate') for j in range(26)] for c in range(3)])
    first = np.floor(first + 0.5).clip(0, 255)  # 3×26×10
    second = np.stack([[slow_resize(first[c, :, i], 0.5, 'replicate') for i in range(10)] for c in range(3)])
    np.testing.assert_array_equal(
        imresize(image, Fraction(1, 2)), np.floor(second + 0.5).clip(0, 255).transpose(1, 2, 0)
    )


@settings(max_examples=30, deadline=None)
@given(value=st.integers(0, 255), height=st.integers(1, 9), scale=st.sampled_from([Fraction(1, 3), 0.5, 2, 4]))
def test_a_constant_image_stays_constant(value, height, scale):
    image = np.full((height, 5, 3), value, np.uint8)
    assert (imresize(image, scale) == value).all()


def test_a_third_is_taken_as_a_third():
    image = photograph(12, 9)
    np.testing.assert_array_equal(imresize(image, 1 / 3), imresize(image, Fraction(1, 3)))


def test_grey_images_and_types():
    image = photograph(8, 8)[..., 0]
    assert imresize(image, 0.5).shape == (4, 4)
    assert imresize(image.astype(np.float32), 0.5).dtype == np.float32


@pytest.mark.parametrize(
    ('image', 'scale', 'border'),
    [
        (np.zeros((2, 2), np.uint8), 0, 'replicate'),
        (np.zeros((2, 2), np.uint8), 0.5, 'reflect'),
        (np.zeros((2, 2), np.int32), 0.5, 'replicate'),
        (np.zeros((0, 2), np.uint8), 0.5, 'replicate'),
        (np.zeros(4, np.uint8), 0.5, 'replicate'),
    ],
)
def test_wrong_arguments(image, scale, border):
    with pytest.raises(ValueError, match='got'):
        imresize(image, scale, border)


def test_crop_to_multiple():
    assert crop_to_multiple(np.zeros((7, 9, 3)), 4).shape == (4, 8, 3)

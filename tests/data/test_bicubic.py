from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from earn_plugin.data import bicubic
from earn_plugin.data.bicubic import BORDERS, crop_to_multiple, imresize
from tests.helpers.images import photograph
from tests.helpers.slow_bicubic import slow_resize

FOLDERS = {'replicate': ('Set5/LR_bicubic', 'Set14/LR_bicubic'), 'symmetric': ('Set5/LR_bicubic_symborder',)}


every_border = pytest.mark.parametrize(
    ('border', 'folder'), [(b, f) for b, folders in FOLDERS.items() for f in folders]
)


def benchmark_images(root: Path) -> Iterator[tuple[np.ndarray, int, np.ndarray]]:
    """HR, cropped to a multiple of the scale, the scale, and LR of a folder of the benchmarks."""
    files = sorted(root.glob('X*/*.png'))
    assert files
    for file in files:
        scale = int(file.parent.name[1:])
        hr = cv2.imread(str(root.with_name('HR') / f'{file.stem.removesuffix(f"x{scale}")}.png'))
        yield crop_to_multiple(hr, scale), scale, cv2.imread(str(file))


@every_border
def test_benchmark_lr_files_are_byte_exact(shared_data, border, folder):
    for hr, scale, lr in benchmark_images(shared_data / folder):
        np.testing.assert_array_equal(imresize(hr, Fraction(1, scale), border), lr)


SCALES = [*(Fraction(1, n) for n in (8, 4, 3, 2)), *map(Fraction, ('2/3', '3/4', '1', '3/2', '5/3', '2', '3', '4'))]


@st.composite
def cases(draw):
    """An image, a scale, a border."""
    shape = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    image = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, shape).astype(np.uint8)
    if draw(st.booleans()):
        image = image / 256
    return image, draw(st.sampled_from(SCALES)), draw(st.sampled_from(BORDERS))


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_equals_the_direct_formula(case):
    image, scale, border = case
    expected, certain = slow_resize(image, scale, border)
    assume(certain)
    np.testing.assert_allclose(imresize(image, scale, border), expected, rtol=0, atol=1e-13)


def test_uint8_is_rounded_after_each_axis_halves_up():
    image = np.array([[0, 0], [1, 1]], np.uint8)  # the mean of the two rows is a half
    assert (imresize(image, Fraction(1, 2)) == 1).all()
    image = np.array([[0, 0], [1, 0]], np.uint8)  # after the rows it is 1, 0, and the mean of that a half again
    assert (imresize(image, Fraction(1, 2)) == 1).all()


@given(data=st.data(), scale=st.sampled_from(SCALES), border=st.sampled_from(BORDERS), is_float=st.booleans())
def test_part_equals_that_part_of_the_full_result(data, scale, border, is_float):
    shape = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    image = photograph(*shape, seed=shape[0])
    image = image / 255 if is_float else image
    full = imresize(image, scale, border)
    starts = [data.draw(st.integers(0, length - 1)) for length in full.shape[:2]]
    part = tuple(slice(s, s + data.draw(st.integers(1, n))) for s, n in zip(starts, full.shape[:2], strict=True))
    np.testing.assert_array_equal(imresize(image, scale, border, part), full[part])


def test_blocks_of_rows_do_not_change_the_result(monkeypatch):
    image = photograph(61, 47)
    expected = imresize(image, Fraction(1, 3))
    monkeypatch.setattr(bicubic, 'CACHED', 1)
    np.testing.assert_array_equal(imresize(image, Fraction(1, 3)), expected)


def test_float_scale_of_a_third_is_taken_as_the_fraction():
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
        (np.zeros((2, 2), np.uint8), float('inf'), 'replicate'),
        (np.zeros((2, 2), np.uint8), 1e-9, 'replicate'),
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

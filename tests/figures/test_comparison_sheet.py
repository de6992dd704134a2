"""Sheets of all shapes: as wide as their columns, all texts inside and apart, every crop enlarged without smoothing."""

import itertools
import math

import numpy as np
import pytest

pytest.importorskip('matplotlib')

from earn_plugin.figures.comparison_sheet import SheetRow, draw_sheet
from earn_plugin.figures.region import Region
from earn_plugin.figures.style import DPI, drawing, save_figure
from tests.helpers.images import photograph

LONG = 'Efficient Multi-Attention Residual Network, without_local_attention'


def row(labels, size=(90, 120), region=(20, 10, 16, 16), psnr=25.0) -> SheetRow:
    image, region = photograph(*size), Region(*region)
    crops = {label: photograph(*size, seed)[region.part] for seed, label in enumerate(['HR', *labels])}
    metrics = {label: {'psnr': psnr + number, 'ssim': 0.9 - number / 100} for number, label in enumerate(labels)}
    return SheetRow('a (×4)', image, region, crops, metrics)


@pytest.mark.parametrize('columns', [1, 2])
@pytest.mark.parametrize(
    'rows',
    [
        [row(['bicubic', 'A'])],
        [row(['bicubic', *'ABCDEFGH'])],
        [row(['bicubic', LONG, 'a$b$', 'x' * 70])],
        [row(['bicubic', 'A', 'B'], (40, 600)), row(['bicubic', 'A', 'B'], (600, 40))],
        [row(['bicubic', 'A'], (20, 2000), (0, 0, 10, 10))],
        [row(['bicubic', 'A'], region=(0, 0, 120, 3)), row(['bicubic', 'A'], region=(0, 0, 2, 90), psnr=math.inf)],
    ],
    ids=['one', 'eight', 'long', 'wide and tall', 'very wide', 'flat and thin'],
)
def test_everything_has_its_place(rows, columns, tmp_path):
    with drawing():
        figure = draw_sheet(rows, columns, 'PSNR of the whole image')
        save_figure(figure, tmp_path / 'sheet.png')
    from matplotlib.image import imread

    assert abs(imread(tmp_path / 'sheet.png').shape[1] / DPI - {1: 3.5, 2: 7.16}[columns]) < 0.01
    assert figure.get_figheight() < 9 * len(rows)  # inches of a page
    inside = figure.bbox.padded(1)
    places = [text.get_window_extent() for text in figure.texts] + [axes.get_window_extent() for axes in figure.axes]
    for place in places:
        assert inside.containsx(place.x0) and inside.containsx(place.x1), place
        assert inside.containsy(place.y0) and inside.containsy(place.y1), place
        assert place.width > 5 and place.height > 5
    for one, other in itertools.combinations(places, 2):
        assert not one.padded(-0.5).overlaps(other.padded(-0.5)), (one, other)
    shown = [axes.images[0] for axes in figure.axes]
    expected = [image for r in rows for image in (r.image, *r.crops.values())]
    for image, pixels in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(image.get_array(), pixels[..., ::-1])
        width, height = image.axes.get_window_extent().size
        np.testing.assert_allclose(width / height, pixels.shape[1] / pixels.shape[0], rtol=1e-6)  # not distorted


def test_pixels_of_a_crop_are_squares_of_one_colour(tmp_path):
    from matplotlib.image import imread

    crop = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    with drawing():
        image = np.zeros((30, 30, 3), np.uint8)
        crops = {'HR': crop, 'bicubic': crop}
        metrics = {'bicubic': {'psnr': 30.0, 'ssim': 0.9}}
        figure = draw_sheet([SheetRow('a', image, Region(0, 0, 4, 4), crops, metrics)], 1, 'note')
        save_figure(figure, tmp_path / 'sheet.png')
    colours = {
        tuple(colour) for colour in (imread(tmp_path / 'sheet.png')[..., :3] * 255).round().astype(int).reshape(-1, 3)
    }
    assert {tuple(int(value) for value in pixel[::-1]) for pixel in crop.reshape(-1, 3)} <= colours


def test_the_best_are_bold():
    assert row(['Bicubic', 'A', 'B']).captions() == {
        'HR': [('PSNR/SSIM', False)],
        'Bicubic': [('25.00/', False), ('0.9000', True)],
        'A': [('26.00/0.8900', False)],
        'B': [('27.00', True), ('/0.8800', False)],
    }


def test_values_that_are_printed_equal_are_all_best():
    metrics = {'a': {'psnr': 29.999, 'ssim': 0.9}, 'b': {'psnr': 30.001, 'ssim': 0.8}}
    image = photograph(9, 9)
    row = SheetRow('t', image, Region(0, 0, 2, 2), {'HR': image, 'a': image, 'b': image}, metrics)
    assert row.captions()['a'] == [('30.00/0.9000', True)]
    assert row.captions()['b'] == [('30.00', True), ('/0.8000', False)]

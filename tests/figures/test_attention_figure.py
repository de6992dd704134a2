import numpy as np
import pytest

from earn_plugin.figures.attention_figure import panels_of_image, panels_of_network
from earn_plugin.figures.attention_maps import Reading
from earn_plugin.figures.style import DPI, WIDTHS, drawing, save_figure

matplotlib_figure = pytest.importorskip('matplotlib.figure')

IMAGE = np.linspace(0, 1, 6 * 8 * 3).reshape(6, 8, 3)
RANDOM = np.random.default_rng(0)


def drawn(panels, name, columns=2):
    """The axes of a panel in a figure of its own."""
    panel = next(panel for panel in panels if panel.name == name)
    with drawing():
        figure = matplotlib_figure.Figure(figsize=(WIDTHS[columns], panel.height))
        panel.draw(figure)
    return figure.axes


def images_of(panels, name):
    return [axes.images[0] for axes in drawn(panels, name) if axes.images]


def maps(kind, count, values=None):
    return [Reading(kind, n + 1, 1, RANDOM.random((6, 8)) if values is None else values[n]) for n in range(count)]


def test_maps_share_their_colours_and_stand_next_to_the_image():
    image, *shown = images_of(panels_of_image(IMAGE, maps('mask', 4), (0, 0), 2), 'mask')
    np.testing.assert_array_equal(image.get_array(), IMAGE)
    assert len({(picture.norm.vmin, picture.norm.vmax) for picture in shown}) == 1
    sizes = {tuple(np.round(picture.axes.get_position().size, 6)) for picture in (image, *shown)}
    assert len(shown) == 4
    assert len(sizes) == 1


@pytest.mark.parametrize(('columns', 'expected'), [(1, [2, 5, 3, 4]), (2, [2, 5, 1, 6, 3, 4])])
def test_the_most_enhanced_and_most_suppressed_blocks(columns, expected):
    weights = [0.5, 0.9, 0.1, 0.05, 0.8, 0.2]
    branches = [Reading('branch_weights', n + 1, 1, np.array([w, 1 - w])) for n, w in enumerate(weights)]
    panels = panels_of_image(IMAGE, [*maps('pixel_attention', 6), *branches], (0, 0), columns)
    titles = [axes.get_title() for axes in drawn(panels, 'enhanced_and_suppressed', columns)]
    assert [title for title in titles if ':' in title] == [f'block {n}: {weights[n - 1]:.2f}' for n in expected]


@pytest.mark.parametrize(('peak', 'scale'), [(0.02, 'linear'), (0.99, 'log')])
def test_weights_of_few_pixels_have_a_logarithmic_colour_bar(peak, scale):
    weights = np.full((6, 8), (1 - peak) / 47)
    weights[2, 3] = peak
    axes = drawn(panels_of_image(IMAGE, maps('non_local_attention', 1, [weights]), (3, 2), 2), 'non_local_attention')
    assert axes[-1].get_yscale() == scale
    for picture in axes[:2]:
        assert [tuple(line.get_xydata()[0]) for line in picture.lines] == [(3, 2)] * 2


def test_means_of_images_leave_out_those_without_correlation():
    readings = [maps('mask', 3), maps('mask', 3)]
    correlations = [{'mask': np.array([[0.1, 0.2, 0.3], [0, -0.5, 1]])}, {'mask': np.full((2, 3), np.nan)}]
    high, low = drawn(panels_of_network(readings, correlations, 1), 'mask_frequencies', 1)[0].lines[:2]
    np.testing.assert_allclose([high.get_ydata(), low.get_ydata()], correlations[0]['mask'])


def test_the_title_of_correlations_does_not_meet_the_legend():
    correlations = [{'pixel_attention': RANDOM.uniform(-1, 1, (2, 16))}]
    (axes,) = drawn(panels_of_network([maps('pixel_attention', 16)], correlations, 1), 'pixel_attention_frequencies', 1)
    axes.figure.draw_without_rendering()
    title = axes._left_title.get_window_extent()
    assert 0 < title.x0 < title.x1 < axes.get_legend().get_window_extent().x0


@pytest.mark.parametrize('columns', [1, 2])
def test_a_saved_figure_is_as_wide_as_its_columns(columns, tmp_path):
    """Also where the numbers of the colour bar are long."""
    from matplotlib.image import imread

    (panel,) = panels_of_image(IMAGE, maps('gate', 9, [*RANDOM.uniform(-0.5, 0.9, (9, 6, 8))]), (0, 0), columns)
    with drawing():
        figure = matplotlib_figure.Figure(figsize=(WIDTHS[columns], panel.height))
        panel.draw(figure)
        save_figure(figure, tmp_path / 'a.png')
    width = imread(tmp_path / 'a.png').shape[1] / DPI
    assert -0.05 < width - {1: 3.5, 2: 7.16}[columns] < 0.01


def test_bars_are_means_with_deviations():
    images = [[Reading('branch_weights', 1, 1, np.array([w, 1 - w]))] for w in (0.2, 0.6)]
    axes = drawn(panels_of_network(images, [{}, {}], 1), 'branch_weights', 1)[0]
    assert [patch.get_height() for patch in axes.patches] == pytest.approx([0.4, 0.6])
    assert [np.ptp(bar.get_segments()[0][:, 1]) / 2 for bar in axes.collections] == pytest.approx([0.2, 0.2])


def test_evaluations_of_a_block_are_named():
    readings = [Reading('channel_attention', block, call, RANDOM.random(4)) for block in (1, 2) for call in (1, 2)]
    axes = drawn(panels_of_network([readings], [{}], 2), 'channel_attention')[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['1, $k_1$', '1, $k_2$', '2, $k_1$', '2, $k_2$']

"""The figure of attribution maps: what it says, and that nothing leaves it."""

import numpy as np
import pytest

from earn_plugin.errors import UsageError
from earn_plugin.figures.attribution import MIDPOINT, Attribution, Window
from earn_plugin.figures.attribution_figure import attribution_figure, check_attribution_figure
from earn_plugin.figures.attribution_table import AttributionTable
from earn_plugin.figures.style import drawing

pytest.importorskip('matplotlib')


def table(networks: int, height: int, width: int) -> AttributionTable:
    rng = np.random.default_rng(0)
    labels = [f'net_$\\latest$_of_a_long_name{n}' for n in range(networks)]
    found = {label: Attribution(rng.random((height, width)) ** 9, 0.001, 0, 768) for label in labels}
    image = rng.random((height, width, 1), np.float32)
    return AttributionTable('a.png', image, 4, Window(8, 12), MIDPOINT, dict.fromkeys(labels, ''), found)


@pytest.mark.parametrize('columns, networks, size', [(1, 3, (6, 30)), (2, 1, (30, 12)), (2, 8, (30, 12))])
def test_texts_do_not_meet(columns, networks, size):
    drawn = table(networks, *size)
    with drawing():
        figure = attribution_figure(drawn, columns)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.texts]
        boxes += [axes.get_tightbbox() for axes in figure.axes]
        whole = figure.bbox.padded(1)
    assert figure.get_figheight() < 9  # of a page
    said = [text.get_text().replace('\n', '') for text in figure.texts]
    for label, found in drawn.attributions.items():
        assert label in said and f'DI {found.diffusion_index:.2f}' in said
    for n, box in enumerate(boxes):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
        assert not any(box.overlaps(other) for other in boxes[:n])


def test_more_networks_than_are_legible(tmp_path):
    with pytest.raises(UsageError, match='at most 3 networks, got 4: --columns 2'):
        check_attribution_figure(tmp_path / 'a.png', 4, 1)
    with pytest.raises(UsageError, match='at most 8 networks, got 9: draw several'):
        check_attribution_figure(tmp_path / 'a.png', 9, 2)

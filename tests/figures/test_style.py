import pytest

from earn_plugin.errors import UsageError
from earn_plugin.figures.style import FORMATS, drawing, save_figure


@pytest.mark.parametrize('ending', FORMATS)
def test_the_same_figure_has_the_same_bytes(ending, tmp_path):
    pytest.importorskip('matplotlib')
    from matplotlib.figure import Figure

    for name in 'ab':
        with drawing():
            figure = Figure(figsize=(2, 1), layout='constrained')
            figure.subplots().plot([1, 2], [3, 4], label='a')
            save_figure(figure, tmp_path / f'new/{name}{ending}')
    a, b = ((tmp_path / f'new/{name}{ending}').read_bytes() for name in 'ab')
    assert a == b
    assert len(a) > 1000


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r'plot\.gif: a figure ends in \.png, \.svg, \.pdf'):
        save_figure(None, tmp_path / 'plot.gif')

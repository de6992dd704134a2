import json

import pytest

from earn_plugin.errors import UsageError
from earn_plugin.figures.curves import choose_values, draw_curves, running_mean
from earn_plugin.figures.run_log import RunLog, Value
from earn_plugin.figures.style import WIDTHS, drawing
from tests.helpers.command import command_here

pytest.importorskip('matplotlib')


def run_of(name: str, sets: tuple[str, ...] = ('Set5', 'Set14'), spread: float = 0.0) -> RunLog:
    training = {i: Value(i * 60, 1 / i) for i in range(1, 101)}
    rates = {i: Value(i * 60, 1e-4) for i in training}
    metrics = {s: {i: Value(i * 60, 31.5 - 1500 / i, spread) for i in (50, 100)} for s in sets}
    return RunLog(name, {'lr': {'': rates}, 'l_pix': {'': training}, 'psnr': metrics})


def draw(runs: list[RunLog], **settings):
    with drawing():
        figure = draw_curves(runs, choose_values(runs), **settings)
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize('columns', [1, 2])
def test_a_panel_for_each_value_and_a_line_for_each_run_and_set(columns):
    figure = draw([run_of('a'), run_of('_b$x$')], columns=columns)
    assert figure.get_figwidth() == WIDTHS[columns]
    assert [axes.get_ylabel() for axes in figure.axes] == ['pix loss', 'learning rate', 'PSNR (dB)']
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 4]
    assert [axes.get_yscale() for axes in figure.axes] == ['log', 'linear', 'linear']
    assert {axes.get_xlim() for axes in figure.axes} == {figure.axes[0].get_xlim()}
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['a', '_b$x$', 'Set5', 'Set14']
    lines = figure.axes[-1].lines
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 4  # legible in grey
    width, height = figure.get_size_inches() * figure.dpi
    for part in (legend, *figure.axes):
        box = part.get_tightbbox()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, part


def test_a_run_with_one_set_needs_no_legend():
    assert draw([run_of('a', ('Set5',))]).legends == []
    assert len({line.get_linestyle() for line in draw([run_of('a')]).axes[-1].lines}) == 2


def test_time_is_in_a_unit_that_fits():
    figure = draw([run_of('a')], x='time')
    assert figure.axes[-1].get_xlabel() == 'training time (min)'
    assert list(figure.axes[-1].lines[0].get_xdata()) == [50, 100]


def test_means_of_the_losses_alone():
    figure = draw([run_of('a')], smooth=3)
    raw, mean = (list(line.get_ydata()) for line in figure.axes[0].lines)
    assert raw[1:4] == [1 / 2, 1 / 3, 1 / 4]
    assert mean[2] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert len(mean) == len(raw)
    assert [len(axes.lines) for axes in figure.axes[1:]] == [1, 2]
    assert running_mean([1, 2, 3, 4], 1) == [1, 2, 3, 4]


def test_the_band_is_the_standard_deviation():
    [band] = draw([run_of('a', ('Set5',), spread=0.5)]).axes[-1].collections
    y = band.get_paths()[0].vertices[:, 1]
    assert (y.min(), y.max()) == (1.0, 17.0)


def test_values_that_are_not_logged_are_refused():
    runs = [run_of('a'), RunLog('b', {'l_fft': {'': {1: Value(0, 1.0)}}})]
    assert choose_values(runs) == ['l_pix', 'l_fft', 'lr', 'psnr']
    assert choose_values(runs, ['psnr', 'l_fft']) == ['psnr', 'l_fft']
    with pytest.raises(UsageError, match='a, b: no value psnrr is logged; did you mean psnr'):
        choose_values(runs, ['psnrr'])


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder, name in (('experiments/a', 'one'), ('b/a', 'two')):
        (tmp_path / folder).mkdir(parents=True)
        line = '[{}..][epoch:  0, iter:{:8,d}, lr:(1.000e-04,)] [eta: 0:00:01, time (data): 0.1 (0.0)] l_pix: {} '
        text = ''.join(
            f'2026-11-26 02:43:2{i},683 INFO: {line.format(name, i * 1000, v)}\n' for i, v in ((1, 2.5), (2, 'nan'))
        )
        (tmp_path / folder / 'train_a.log').write_text(text)
    assert command_here('plot', 'a', 'b/a', '--json', 'curves.json', capsys=capsys) == 'curves.png: l_pix, lr\n'
    assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')
    found = json.loads((tmp_path / 'curves.json').read_text())
    assert [run['name'] for run in found] == ['a', 'b/a']
    wanted = {'iteration': [1000, 2000], 'seconds': [0.0, 1.0], 'value': [2.5, None]}
    assert found[0]['values']['l_pix'] == {'training': wanted}
    assert '--smooth must be 1 or more' in command_here('plot', 'a', '--smooth', '0', capsys=capsys, expect=2)
    assert 'c.gif: a figure ends in' in command_here('plot', 'a', '-o', 'c.gif', capsys=capsys, expect=2)

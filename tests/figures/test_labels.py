"""Names in any script: shown by a font that has them, or escaped; never by matplotlib's boxes and warnings."""

import pytest

pytest.importorskip('matplotlib')

from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager, get_font

from earn_plugin.figures.labels import family_with, legible, report_missing, wrap
from earn_plugin.figures.style import FORMATS, drawing, save_figure


@pytest.fixture(autouse=True)
def fresh():
    for cached in (family_with, report_missing):
        cached.cache_clear()


def test_names_are_escaped_only_where_no_font_has_them(monkeypatch, capsys):
    monkeypatch.setattr(fontManager, 'ttflist', [font for font in fontManager.ttflist if font.name == 'DejaVu Sans'])
    with drawing():
        before = rcParams['font.family']
        assert legible('EARN ×4, $x$ äßΩж\n') == 'EARN ×4, $x$ äßΩж\n'
        assert rcParams['font.family'] == before
        assert not capsys.readouterr().out
        assert legible('a漢漢') == r'a\u6f22\u6f22'
        assert legible('b漢') == r'b\u6f22'
        assert legible('\x07\udcff\t.') == r'\x07\udcff .'
    printed = capsys.readouterr().out
    assert printed.count('no installed font has') == 1
    assert r'no installed font has 漢, so figures show \u6f22: ' in printed


def test_fonts_that_are_listed_but_gone_or_damaged(tmp_path, monkeypatch):
    expected = family_with('漢')
    (tmp_path / 'damaged.ttf').write_bytes(b'no font')
    listed = [FontEntry(fname=str(tmp_path / name), name=name, weight=400) for name in ('gone.ttf', 'damaged.ttf')]
    monkeypatch.setattr(fontManager, 'ttflist', listed + fontManager.ttflist)
    family_with.cache_clear()
    assert family_with('漢') == expected


@pytest.mark.parametrize('ending', FORMATS)
def test_other_fonts_are_added_and_all_formats_drawn_without_a_warning(ending, tmp_path):
    added = next(
        c for c in map(chr, range(0x2C00, 0x1F000)) if c.isprintable() and family_with(c) not in ('sans-serif', None)
    )
    with drawing():
        text = legible(added)
        assert text == added
        assert any(
            get_font(findfont(FontProperties(family=[family]))).get_char_index(ord(added))
            for family in rcParams['font.family']
        )
        figure = Figure(figsize=(2, 1))
        figure.text(0.5, 0.5, f'a{text}')
        save_figure(figure, tmp_path / f'a{ending}')
    assert len(rcParams['font.family']) == 1


def test_lines_are_broken_between_words_and_lose_nothing():
    assert wrap('one two three', 0.5, 6.5) == ['one two', 'three']
    assert wrap('short', 5, 6.5) == ['short']
    assert ''.join(wrap('x' * 30, 0.3, 6.5)) == 'x' * 30

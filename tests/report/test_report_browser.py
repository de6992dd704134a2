"""The report in a browser: Chromium without a window, driven as by a reader's mouse and keyboard."""

from pathlib import Path

import pytest

from earn_plugin.report.report import write_report
from tests.helpers.browser import END, ENTER, HOME, RIGHT, SPACE, opened_browser
from tests.helpers.reports import NAME, train_tiny

pytest.importorskip('matplotlib')


@pytest.fixture(scope='module')
def page(tmp_path_factory) -> Path:
    """The report of a tiny run."""
    folder = tmp_path_factory.mktemp('browser')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_report(str(train_tiny(folder)), Path('report.html'))
    return folder / 'report.html'


@pytest.fixture(scope='module')
def browser(tmp_path_factory, request):
    """A browser that has opened the report."""
    with opened_browser(tmp_path_factory.mktemp('profile')) as browser:
        browser.open(request.getfixturevalue('page'))  # only where there is a browser
        yield browser


def test_nothing_is_loaded_and_nothing_is_wrong(browser, page):
    assert browser.run('return document.title') == NAME
    assert browser.complaints() == []
    requests = browser.requests(page)
    assert requests[0] == page.as_uri() and all(url.startswith('data:') for url in requests[1:])
    assert browser.run('return [...document.images].every((i) => i.complete && i.naturalWidth > 0)')


def share(browser) -> float:
    """How much of the first image the page shows before the handle, from 0 to 1, by the computed style."""
    return browser.run(
        """const image = document.querySelector('.stage .before');
        const hidden = getComputedStyle(image).clipPath.match(/inset\\(0px (.+?) 0px 0px\\)/)[1];
        const [handle, box] = [document.querySelector('.handle'), image.getBoundingClientRect()];
        const middle = handle.getBoundingClientRect().left + 1 - box.left;
        const percent = hidden.match(/([\\d.]+)%/g).map(parseFloat);
        const shown = percent.length > 1 ? percent[1] : 100 - percent[0];
        if (Math.abs(middle - shown / 100 * box.width) > 1) throw new Error(`handle ${middle}, image ${hidden}`);
        return shown / 100;"""
    )


def test_the_slider_moves_by_mouse_and_by_keys(browser):
    slider, stage = browser.find('.stage input'), browser.find('.stage')
    width = browser.run('return arguments[0].getBoundingClientRect().width', stage)
    assert share(browser) == 0.5
    browser.drag(stage, (0, 0), (int(-width / 4), 3))
    assert share(browser) == pytest.approx(0.25, abs=0.02)
    browser.drag(stage, (int(0.4 * width), 0))  # a click
    assert share(browser) == pytest.approx(0.9, abs=0.02)
    browser.press(slider, HOME)
    assert share(browser) == 0
    browser.press(slider, 3 * RIGHT)
    assert share(browser) == pytest.approx(0.03)
    browser.press(slider, END)
    assert share(browser) == 1
    assert browser.run('return getComputedStyle(arguments[0]).outlineStyle', stage) == 'solid'


def test_hr_can_take_the_place_of_bicubic(browser):
    shown = """return [...document.querySelectorAll('.comparison:first-child .before')]
        .filter((image) => getComputedStyle(image).visibility === 'visible').map((image) => image.className)"""
    assert browser.run(shown) == ['before bicubic']
    browser.press(browser.find('.comparison input[value=bicubic]'), RIGHT)
    assert browser.run(shown) == ['before hr']


def test_the_table_sorts_by_keyboard(browser):
    def column(number: int) -> list[str]:
        script = "return [...document.querySelectorAll('table:has(button) tbody tr')].map((r) => r.cells[%d].innerText)"
        return browser.run(script % number)

    for number in (3, 1):
        for order, key in (('ascending', ENTER), ('descending', SPACE)):
            browser.press(browser.find(f'table thead th:nth-child({number + 1}) button'), key)
            states = browser.run("return [...document.querySelectorAll('th[aria-sort]')].map((h) => h.ariaSort)")
            assert states == [order if place == number else 'none' for place in range(7)]
            values = [float(text) for text in column(number)]
            assert len(set(values)) > 2 and values == sorted(values, reverse=order == 'descending')
    browser.press(browser.find('table thead button'), ENTER)
    assert column(0)[1:] == [f'im0{number}' for number in range(1, 6)]
    assert browser.run("return document.querySelector('tfoot th').innerText") == 'mean'


def test_a_phone_is_wide_enough(browser):
    metrics = {'width': 360, 'height': 740, 'deviceScaleFactor': 1, 'mobile': True}
    browser.devtools('Emulation.setDeviceMetricsOverride', **metrics)
    try:
        root = 'document.documentElement'
        widths = browser.run(f'return [{root}.scrollWidth, {root}.clientWidth, window.innerWidth]')
    finally:
        browser.devtools('Emulation.clearDeviceMetricsOverride')
    assert widths == [360, 360, 360]


CONTRAST = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const light = (colour) => {
  const [r, g, b] = colour.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const backgroundOf = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = rgb(getComputedStyle(e).backgroundColor);
    if (colour[3] !== 0) return colour.slice(0, 3);
  }
};
const ratios = [];
const selectors = 'h1, h2, h3, p, a, th, td, button, label, pre, figcaption, dt, dd, svg text';
for (const element of document.querySelectorAll(selectors)) {
  const text = getComputedStyle(element)[element instanceof SVGElement ? 'fill' : 'color'];
  const [a, b] = [light(rgb(text)), light(backgroundOf(element))].sort((x, y) => y - x);
  ratios.push((a + 0.05) / (b + 0.05));
}
return [getComputedStyle(document.body).backgroundColor, Math.min(...ratios)];
"""


def test_light_and_dark_are_legible(browser):
    found = {}
    for scheme in ('light', 'dark'):
        wanted = {'name': 'prefers-color-scheme', 'value': scheme}
        browser.devtools('Emulation.setEmulatedMedia', features=[wanted])
        found[scheme] = browser.run(CONTRAST)
    browser.devtools('Emulation.setEmulatedMedia', features=[])
    assert found['light'][0] == 'rgb(255, 255, 255)' != found['dark'][0]
    assert min(ratio for _, ratio in found.values()) >= 4.5  # WCAG AA

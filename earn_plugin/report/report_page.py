"""The HTML of a report: one file without external resources; ``report.html``, ``.css`` and ``.js`` are its frame."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

HERE = Path(__file__).parent


class Html(str):
    """Text that is HTML already; all other text is escaped."""


class Section(NamedTuple):
    """A part of the page under a heading; ``ident`` is its anchor."""

    ident: str
    title: str
    body: Html


class NumberCell(NamedTuple):
    """A number in a table: as it is shown, and in full for sorting."""

    text: str
    value: float
    kind: str = ''  # 'good' or 'bad'


class Slider(NamedTuple):
    """An image before and after: ``before`` has the data URIs by name, 'bicubic' and 'hr'."""

    title: str
    caption: str
    size: tuple[int, int]
    before: dict[str, str]
    after: str
    network: str


VERSION_LABELS = {'bicubic': 'bicubic', 'hr': 'HR'}
ALT = {'bicubic': 'enlarged by bicubic interpolation', 'hr': 'the HR original'}


def html(text: object) -> Html:
    return text if isinstance(text, Html) else Html(escape(str(text)))


def join(parts: Iterable[object]) -> Html:
    return Html('\n'.join(map(html, parts)))


def element(tag: str, content: object, **attributes: object) -> Html:
    """An element; ``class_`` stands for class, and _ in other names for -."""
    pairs = ((name.rstrip('_').replace('_', '-'), value) for name, value in attributes.items())
    given = ''.join(f' {name}="{escape(str(value))}"' for name, value in pairs if value not in (None, ''))
    return Html(f'<{tag}{given}>{html(content)}</{tag}>')


def paragraph(text: object, kind: str = '') -> Html:
    return element('p', text, class_=kind)


def heading(text: object) -> Html:
    return element('h3', text)


def scrolling(content: Html, label: str) -> Html:
    """What may be wider than the page, in a box that scrolls, also by keyboard."""
    return element('div', content, class_='scroll', tabindex=0, role='region', aria_label=label)


def table(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    foot: Sequence[object] = (),
    sort: bool = False,
) -> Html:
    """A table whose first column names the rows; with ``sort``, its headings are buttons that sort it."""

    def row_of(cells: Sequence[object]) -> Html:
        first, *others = cells
        parts = [element('th', first, scope='row')]
        for cell in others:
            number = cell if isinstance(cell, NumberCell) else NumberCell(str(cell), 0)
            value = {'data-value': str(cell.value).replace('inf', 'Infinity')} if isinstance(cell, NumberCell) else {}
            parts.append(element('td', number.text, class_=number.kind, **value))
        return element('tr', Html(''.join(parts)))

    buttons = [Html(element('button', name, type='button')) for name in headings] if sort else headings
    order = 'none' if sort else None
    head = Html(''.join(element('th', name, scope='col', aria_sort=order) for name in buttons))
    parts = [
        element('thead', element('tr', head)),
        element('tbody', join(map(row_of, rows))),
    ]
    if foot:
        parts.append(element('tfoot', row_of(foot)))
    return join([paragraph(caption, 'caption'), scrolling(element('table', join(parts), aria_label=caption), caption)])


def definitions(pairs: Iterable[tuple[object, object]]) -> Html:
    return element('dl', join(part for term, text in pairs for part in (element('dt', term), element('dd', text))))


def code(text: str, label: str) -> Html:
    return element('pre', element('code', text), tabindex=0, role='region', aria_label=label)


def figures(svgs: Iterable[tuple[str, str]]) -> Html:
    """SVG elements with their captions, side by side where there is space."""
    parts = (join([Html(svg), *([element('figcaption', text)] if text else [])]) for svg, text in svgs)
    return element('div', join(element('figure', part) for part in parts), class_='figures')


def slider(number: int, given: Slider) -> Html:
    """An image before and after: a range input above the two, and the choice of what is before."""
    width, height = given.size

    def image(source: str, alt: str, kind: str) -> Html:
        about = f'{given.title}, {alt}'
        return Html(
            f'<img class="{kind}" src="{escape(source)}" alt="{escape(about)}" width="{width}" height="{height}">'
        )

    choices = [
        element(
            'label', Html(f'<input type="radio" name="before{number}" value="{name}"{checked}> {VERSION_LABELS[name]}')
        )
        for name, checked in zip(given.before, (' checked', '', ''), strict=False)
    ]
    legend = element('legend', 'left of the slider:')
    says = f'{given.title}: share of the image before, in per cent'
    stage = [
        image(given.after, f'enlarged by {given.network}', 'after'),
        *(image(source, ALT[name], f'before {name}') for name, source in given.before.items()),
        Html(f'<input type="range" min="0" max="100" value="50" aria-label="{escape(says)}">'),
        element('span', '', class_='handle', aria_hidden='true'),
        *(
            element('span', VERSION_LABELS[name], class_=f'tag left {name}', aria_hidden='true')
            for name in given.before
        ),
        element('span', given.network, class_='tag right', aria_hidden='true'),
    ]
    parts = [
        heading(given.title),
        element('fieldset', join([legend, *choices])),
        element('div', join(stage), class_='stage'),
        element('figcaption', given.caption),
    ]
    return element('figure', join(parts), class_='comparison')


def page(title: str, header: Html, sections: Sequence[Section], footer: str) -> str:
    """The complete page."""
    script = (HERE / 'report.js').read_text(encoding='utf-8')
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    links = (element('li', element('a', section.title, href=f'#{section.ident}')) for section in sections)
    bodies = (
        element('section', join([element('h2', s.title), s.body]), id=s.ident, aria_label=s.title) for s in sections
    )
    return Template((HERE / 'report.html').read_text(encoding='utf-8')).substitute(
        title=html(title),
        header=header,
        links=join(links),
        sections=join(bodies),
        footer=html(footer),
        style=(HERE / 'report.css').read_text(encoding='utf-8'),
        script=script,
        script_hash=f'sha256-{digest}',
    )

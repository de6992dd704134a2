"""Names as texts of figures: in fonts that have their characters, measured, and broken into lines."""

from functools import cache

from earn_plugin.errors import printable

FAMILY = 'sans-serif'
PLACEHOLDERS = 'Last Resort'  # begins the name of matplotlib's font that has a box for every character
REGULAR = 400  # weight


def legible(text: str) -> str:
    r"""Text as figures can show it; to be called in ``drawing``, before the text is drawn.

    Fonts are added to those of the figure for characters that these lack. What no installed font has, and control
    characters but \n, become escapes; the former are printed.
    """
    from matplotlib import rcParams

    text = printable(text).expandtabs(1)
    families = {character: family_with(character) for character in text if character != '\n'}
    for family in families.values():
        if family and family not in rcParams['font.family']:
            rcParams['font.family'] = [*rcParams['font.family'], family]
    if missing := ''.join(character for character, family in families.items() if not family):
        report_missing(missing)
    return text.translate({ord(character): ascii(character)[1:-1] for character in missing})


@cache
def family_with(character: str) -> str | None:
    """A family of fonts that has a character: the figures' own, or the first that is installed."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    if has(findfont(FontProperties(family=[FAMILY])), character):
        return FAMILY
    for font in sorted(fontManager.ttflist, key=lambda font: ('Serif' in font.name, abs(font.weight - REGULAR))):
        if not font.name.startswith(PLACEHOLDERS) and has(font.fname, character):
            return font.name
    return None


def has(file: str, character: str) -> bool:
    from matplotlib.font_manager import get_font

    try:
        return bool(get_font(file).get_char_index(ord(character)))
    except (OSError, RuntimeError):  # matplotlib's list may have fonts that were deleted or are damaged
        return False


@cache  # the same once
def report_missing(characters: str) -> None:
    from matplotlib import get_cachedir

    print(
        f'no installed font has {characters}, so figures show {ascii(characters)[1:-1]}: install one for this script, '
        f'such as Noto Sans, and delete {get_cachedir()}, which lists the fonts'
    )


def wrap(text: str, width: float, size: float) -> list[str]:
    """The text in lines of at most a width in inches, broken after spaces, hyphens and underscores if possible.

    Args:
        size: in points.
    """
    lines, text = [], legible(' '.join(text.split()))
    while text:
        end = len(text)
        while end > 1 and text_width(text[:end].rstrip(), size) > width:
            end -= 1
        if end < len(text):
            end = max((text.rfind(sign, 0, end) + 1 for sign in ' -_/'), default=0) or end
        lines.append(text[:end].strip())
        text = text[end:].lstrip()
    return lines


@cache
def text_width(text: str, size: float, weight: str = 'bold') -> float:
    """In inches; the size is in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    properties = FontProperties(size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, properties, ismath=False)[0] / 72

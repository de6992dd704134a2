"""Errors that the command line reports without a traceback, and output that shows what messages quote."""

import re
from typing import Any, TextIO

TQDM = re.compile(r'\n*(\x1b\[A)*|\r', re.ASCII)  # moves of the cursor between progress bars


class UserError(Exception):
    """An error that the user can fix. The message says what was given, what is valid and what to do."""

    exit_code = 1


class UsageError(UserError):
    """An error in the arguments of a command or in an options file."""

    exit_code = 2


def reason_of(error: BaseException) -> str:
    """The first line of another library's error, with its type where the line alone may not be a sentence."""
    line = next(iter(str(error).strip().splitlines()), '')
    is_sentence = line and isinstance(error, (RuntimeError, ValueError, OSError))
    return line if is_sentence else f'{type(error).__name__}: {line}'.rstrip(': ')


def printable(text: str) -> str:
    r"""Text with each control character, except \n and \t, as an escape: names and metadata may contain any."""
    if text.isprintable():
        return text
    return ''.join(c if c.isprintable() or c in '\n\t' else c.encode('unicode_escape').decode() for c in text)


class PrintableStream:
    """A text stream that writes all that is not printable as an escape.

    Args:
        stream: the stream to write to; all but writing is left to it.
        has_bars: whether tqdm may move the cursor.
    """

    def __init__(self, stream: TextIO, has_bars: bool = False):
        self._stream, self._has_bars = stream, has_bars

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        start = ''
        if self._has_bars:
            start = text if TQDM.fullmatch(text) else text[: text.startswith('\r')]
        self._stream.write(start + printable(text[len(start) :]))
        return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

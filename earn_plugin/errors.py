"""Errors that the command line reports without a traceback."""


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

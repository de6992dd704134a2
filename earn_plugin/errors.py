"""What the command line reports without a traceback."""


class UserError(Exception):
    """Something that the user can mend. The message says what was given, what is possible and what to do."""

    exit_code = 1


class UsageError(UserError):
    """The command or the options file asks for something that does not exist."""

    exit_code = 2


def reason_of(error: BaseException) -> str:
    """The first line of what others raised, with its kind where the line alone is no sentence."""
    line = next(iter(str(error).strip().splitlines()), '')
    speaks = line and isinstance(error, (RuntimeError, ValueError, OSError))
    return line if speaks else f'{type(error).__name__}: {line}'.rstrip(': ')

"""What the command line reports without a traceback."""


class UserError(Exception):
    """Something that the user can mend. The message says what was given, what is possible and what to do."""

    exit_code = 1


class UsageError(UserError):
    """The command or the options file asks for something that does not exist."""

    exit_code = 2

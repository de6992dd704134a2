"""Ctrl-C and SIGTERM: training grants them when an iteration is done, all else ends at once and cleans up."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from earn_plugin.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(UserError):
    """Work was asked to stop, and has saved. The exit code is a shell's for the signal: 130 or 143."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken as Ctrl-C."""


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """While entered, SIGTERM raises, so that what is half-written is removed; by itself it would end at once.

    Processes that are forked meanwhile, such as a pool's, end at once all the same: nothing of theirs is half-written.
    """
    main_process = os.getpid()

    def end(number, frame):
        if os.getpid() != main_process:
            os._exit(128 + number)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def number_of(interrupt: KeyboardInterrupt) -> int:
    return signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT


class StopRequest:
    """While entered, the first signal only sets ``number``; a second one interrupts at once."""

    def __init__(self):
        self.number = 0

    def __enter__(self):
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        # not print or logging: they may be in the middle of a line of their own
        os.write(sys.__stderr__.fileno(), b'\nstopping after this iteration; once more stops at once\n')


def leave_to_main_process(ending) -> None:
    """In a worker: end by SIGTERM only when the main process says so.

    A terminal's Ctrl-C and a scheduler's SIGTERM reach all processes, while the main one still needs its workers to
    finish the iteration.

    Args:
        ending: a shared ``multiprocessing.RawValue``, not 0 once the main process is done with its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0) if ending.value else None)

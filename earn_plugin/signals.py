"""Ctrl-C and SIGTERM: training stops after the iteration, other commands stop at once and clean up.

What training saves then is in ``training.train.Training.stop_on_signal``, the exit codes of commands in ``cli.main``.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from earn_plugin.errors import UserError

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(UserError):
    """Work was stopped by a signal after it was saved. The exit code is a shell's: 130 or 143."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised like Ctrl-C."""


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """In the block, SIGTERM raises ``Terminated``, so that incomplete files are removed.

    Forked processes, such as a pool's, still end at once; they write no files.
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


def signal_number(interrupt: KeyboardInterrupt) -> int:
    return signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT


class StopRequest:
    """In the block, the first signal only sets ``number``; a second one raises KeyboardInterrupt.

    Not a second SIGTERM under torchrun, which sends one of its own when a scheduler has sent one to all processes.
    """

    def __init__(self):
        self.number = 0

    def __enter__(self):
        self._before = {number: signal.signal(number, self._record) for number in STOPPING}
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self, number, frame) -> None:
        if self.number and number == signal.SIGTERM and 'TORCHELASTIC_RUN_ID' in os.environ:
            return
        if self.number:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        self.number = number
        # not print or logging, which the signal may have interrupted
        os.write(sys.__stderr__.fileno(), b'\nstopping after this iteration; repeat to stop at once\n')


@contextmanager
def blocked() -> Iterator[None]:
    """In the block, Ctrl-C and SIGTERM wait, also in processes that are started, until ``leave_to_main_process``."""
    if not hasattr(signal, 'pthread_sigmask'):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_children_to_loaders() -> None:
    """Undo torch's handler for the end of a worker, which raises an error wherever the main process is, even in a save.

    A loader that waits for a batch also notices, within five seconds.
    """
    if hasattr(signal, 'SIGCHLD'):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def leave_to_main_process(ending) -> None:
    """In a worker, ignore Ctrl-C, and SIGTERM until the main process is ending.

    Both reach all processes of a terminal or a job, but the main process needs its workers to finish the iteration.
    The worker must be started in ``blocked``, so that no signal reaches it before this call.

    Args:
        ending: a shared ``multiprocessing.RawValue``, nonzero once the main process no longer needs its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0) if ending.value else None)
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

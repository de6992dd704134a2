"""Writes checkpoints in a thread while training continues."""

from collections.abc import Callable
from threading import Event, Thread

from basicsr.utils import get_root_logger

from earn_plugin import signals


class CheckpointWriter:
    """One write at a time; as a context it waits for the last one, however the block ends.

    ``failure`` is what the last write raised, until ``wait`` raises it.
    """

    def __init__(self):
        self.failure: BaseException | None = None
        self._is_idle = Event()  # Thread.join takes a thread that Ctrl-C interrupts the wait for as ended
        self._is_idle.set()

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        self.join()
        if self.failure:  # the block ended for another reason
            get_root_logger().error(self.failure)

    def start(self, write: Callable[[], None]) -> None:
        """Call ``write`` in a thread, after the write before it.

        Raises:
            Exception: that of the write before it; then ``write`` is not called.
        """
        self.wait()
        self._is_idle.clear()
        with signals.blocked():  # they are the main thread's
            Thread(target=self._run, args=(write,), name='checkpoint').start()

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:
            self.failure = error
        finally:
            self._is_idle.set()

    def join(self) -> None:
        """Return once the last write has ended."""
        self._is_idle.wait()

    def wait(self) -> None:
        """Return once the last write has succeeded.

        Raises:
            Exception: what it raised; once.
        """
        self.join()
        failure, self.failure = self.failure, None
        if failure:
            raise failure

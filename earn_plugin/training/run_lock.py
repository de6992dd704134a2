"""One run in an experiment's folder at a time."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from earn_plugin.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # on Windows runs are not locked
    fcntl = None


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock a run's folder, which need not exist; the file next to it records host and process.

    The system releases the lock when the process ends, however it ends. Other processes of the run do not inherit it.

    Raises:
        UserError: another process has the lock; names it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f'.{folder.name}.lock')
    with path.open('a+') as file:  # opened nowhere else: closing any other handle would release the lock
        try:
            if fcntl:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise UserError(
                f'{folder} is in use by {file.read().strip() or "another process"}; wait for it, stop it, or choose '
                'another name'
            ) from None
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
        file.flush()
        yield

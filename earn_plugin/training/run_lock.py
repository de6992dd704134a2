"""One run in a folder at a time."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from earn_plugin.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # on Windows runs are not locked
    fcntl = None


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock a run's folder, which need not exist, by a file next to it, which records process and host.

    The system releases the lock when the process ends, however it ends; unlike the filelock package's, it is not
    inherited by the process's workers, which may live some seconds longer.

    Raises:
        UserError: another process has the lock; names it.
    """
    if fcntl is None:
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f'.{folder.name}.lock')
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = os.read(handle, 1000).decode(errors='replace').strip() or 'another process'
            os.close(handle)
            raise UserError(f'{folder} is in use by {owner}; wait for it, stop it, or choose another name') from None
        if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
            break
        os.close(handle)  # of a file that its last owner has just removed
    try:
        with suppress(OSError):  # such as a full disk
            os.ftruncate(handle, 0)
            os.write(handle, f'process {os.getpid()} on {socket.gethostname()}'.encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
        with suppress(OSError):  # not empty
            folder.parent.rmdir()

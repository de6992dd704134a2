"""An LMDB that grows with what is put into it, so that neither room nor disk has to be guessed."""

import time
from pathlib import Path

import lmdb

COMMIT_SECONDS = 0.5  # a kill loses the work of so long at most
FIRST_ROOM = 2**28
SLACK = 64  # pages of a commit for the tree and the list of free pages, beside the values


class Store:
    """Values by ASCII keys, in the form that BasicSR reads; ``room`` is what it starts with, in bytes."""

    def __init__(self, folder: Path, room: int = FIRST_ROOM):
        self._lmdb = lmdb.open(str(folder), map_size=room)
        self._page = self._lmdb.stat()['psize']
        self._begin()

    def put(self, key: str, value: bytes) -> None:
        pages = len(value) // self._page + 2
        if (self._pages + pages) * self._page * 1.05 > self._lmdb.info()['map_size']:
            self._transaction.commit()
            room = self._lmdb.info()['map_size']
            self._lmdb.set_mapsize(room + max(room // 4, FIRST_ROOM, 2 * len(value)))
            self._begin()
        self._pages += pages
        self._transaction.put(key.encode('ascii'), value)

    @property
    def is_due(self) -> bool:
        """Whether the last commit is long enough ago."""
        return time.monotonic() - self._since > COMMIT_SECONDS

    def commit(self) -> None:
        """All that was put is on the disk when this returns."""
        self._transaction.commit()
        self._begin()

    def close(self) -> None:
        """What was put since the last commit is dropped."""
        self._transaction.abort()
        self._lmdb.close()

    def _begin(self) -> None:
        self._since = time.monotonic()
        self._transaction = self._lmdb.begin(write=True)
        self._pages = self._lmdb.info()['last_pgno'] + 1 + SLACK

"""The array that a result is assembled in, which may be larger than the memory."""

import mmap
import os
import tempfile
import threading
import time
import weakref
from pathlib import Path

import numpy as np

LARGE = 2**26  # bytes; larger results are in a file


def result_array(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of any content; a large one in a file of the folder, which has no name and vanishes with the array.

    Raises:
        OSError: there is not enough disk space.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    if size <= LARGE:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, 'posix_fallocate'):  # on a full disk it raises an error, which later would be a crash
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        mapped = mmap.mmap(file.fileno(), size)
    if hasattr(mmap, 'MADV_DONTNEED'):
        threading.Thread(target=_give_back, args=[weakref.ref(mapped)], daemon=True).start()
    return np.ndarray(shape, dtype, mapped)


def _give_back(mapping: weakref.ref[mmap.mmap]) -> None:
    """While a mapped file exists, give back the memory of its pages, which stay in the file."""
    while (mapped := mapping()) is not None:
        mapped.madvise(mmap.MADV_DONTNEED)
        del mapped
        time.sleep(0.05)

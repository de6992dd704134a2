"""Memory: the bytes of the tensors that a call creates, and those that are free."""

import os
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

UNKNOWN = 4 * 2**30  # taken as free where the system does not tell, on Windows


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that are created while it is active; ``peak`` is the most at one time."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, size).atexit = False

    def _release(self, size: int) -> None:
        self.now -= size


def peak_bytes(run: Callable[[], object], device: torch.device | None = None) -> int:
    """Most bytes of the tensors that a call creates, at one time; on a CUDA device as torch's allocator counts them."""
    if device is not None and device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with PeakMemory() as memory:
        run()
    return memory.peak


def available_bytes(device: torch.device) -> int:
    """Memory that is free on a device; on a CPU within the limit of a container, and half of all where unknown."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path('/proc/meminfo')
    if not meminfo.is_file():
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 2 if hasattr(os, 'sysconf') else UNKNOWN
    free = [1024 * int(re.search(r'MemAvailable:\s+(\d+) kB', meminfo.read_text())[1])]
    limit, used = Path('/sys/fs/cgroup/memory.max'), Path('/sys/fs/cgroup/memory.current')
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        free.append(int(text) - int(used.read_text()))
    return max(0, min(free))

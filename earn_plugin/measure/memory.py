"""Time and memory, measured: forms by turns in one run, and the bytes of the tensors that a call makes."""

import platform
import re
import statistics
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is entered; ``peak`` is the most at one time."""

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


def peak_memory(run: Callable[[], object]) -> int:
    """Bytes of the tensors that a call makes, at the moment when they are the most."""
    with PeakMemory() as memory:
        run()
    return memory.peak


def medians(
    forms: dict[str, Callable[[], object]], repeats: int, after: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Median seconds of each form, run by turns after a first turn that is not counted.

    ``after`` is called after each run, outside of the time: to show progress.
    """
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(repeats + 1):
        for name, run in forms.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
            after()
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine(device: str) -> str:
    """What measures: the GPU, or the processor with the number of torch's threads."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    cpuinfo = Path('/proc/cpuinfo')  # platform.processor() is empty on Linux
    found = re.search(r'^model name\s*: (.+)$', cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    name = found[1] if found else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f'{name}, {threads} thread{"s" if threads > 1 else ""}'

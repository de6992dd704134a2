"""What the project is fast at, measured beside the plain form, in one run and by turns."""

import statistics
import time
import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from earn_plugin.archs.attention import LocalAttention
from earn_plugin.errors import UsageError


def unfolded_attention(attention: LocalAttention, x: Tensor) -> Tensor:
    """Local attention as it is commonly written: keys and values of every window side by side in memory."""
    size = attention.window_size
    padded = F.pad(x, [size // 2] * 4)
    query, key, value = attention.query(x), attention.key(padded), attention.value(padded)
    key = key.unfold(2, size, 1).unfold(3, size, 1)  # N×C×H×W×k×k
    value = value.unfold(2, size, 1).unfold(3, size, 1).flatten(4)
    rows, columns = key.chunk(2, dim=1)
    rows = rows + attention.rel_h[:, None, None, :, None]
    columns = columns + attention.rel_w[:, None, None, None, :]
    key = torch.cat([rows, columns], dim=1).flatten(4)
    weights = (query.unsqueeze(-1) * key).sum(1, keepdim=True).softmax(-1)
    return (weights * value).sum(-1)


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


def medians(forms: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each form, run by turns after a first turn that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(repeats + 1):
        for name, run in forms.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def benchmark_attention(size: tuple[int, int, int, int], repeats: int) -> None:
    """Print speed and memory of EARN's local attention beside its unfolded form, for inference and training.

    Raises:
        UsageError: a size that is none.
    """
    if min(size) < 1 or size[1] % 2 or repeats < 1:
        raise UsageError(f'sizes and repeats must be at least 1 and C even, got {size} and {repeats}')
    torch.manual_seed(0)
    attention = LocalAttention(size[1])
    x = torch.rand(size)
    forms = {'ours': lambda: attention(x), 'unfolded': lambda: unfolded_attention(attention, x)}
    training = {name: lambda run=run: run().sum().backward() for name, run in forms.items()}
    print(f'local attention 3×3 on {"×".join(map(str, size))}, CPU, {torch.get_num_threads()} threads, {repeats} runs')
    for what, grad, runs in (('inference', False, forms), ('training step', True, training)):
        with torch.set_grad_enabled(grad):
            seconds = medians(runs, repeats)
            peaks = {name: peak_memory(run) for name, run in runs.items()}
        faster, smaller = seconds['unfolded'] / seconds['ours'], peaks['unfolded'] / peaks['ours']
        for name in runs:
            print(f'{what:<15}{name:<10}{seconds[name] * 1000:>9.1f} ms{peaks[name] / 2**20:>9.1f} MiB')
        print(f'{what:<15}{"ratio":<10}{faster:>9.1f} ×{smaller:>12.1f} ×')

"""EARN's local attention compared with its unfolded form, in interleaved runs.

python -m tests.benchmarks.local_attention [--size 1 64 256 256] [--repeats 7]
"""

import argparse

import torch
from torch import Tensor
from torch.nn import functional as F

from earn_plugin.archs.attention import LocalAttention
from earn_plugin.measure.memory import peak_bytes
from earn_plugin.measure.speed import interleaved_medians


def unfolded_attention(attention: LocalAttention, x: Tensor) -> Tensor:
    """Local attention as it is commonly written: with a copy of the keys and values of every window in memory."""
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


def benchmark_attention(size: tuple[int, int, int, int], repeats: int) -> None:
    """Print time and peak memory of both forms, for inference and a training step."""
    torch.manual_seed(0)
    attention = LocalAttention(size[1])
    x = torch.rand(size)
    forms = {'ours': lambda: attention(x), 'unfolded': lambda: unfolded_attention(attention, x)}
    training = {name: lambda run=run: run().sum().backward() for name, run in forms.items()}
    print(f'local attention 3×3 on {"×".join(map(str, size))}, CPU, {torch.get_num_threads()} threads, {repeats} runs')
    for what, grad, runs in (('inference', False, forms), ('training step', True, training)):
        with torch.set_grad_enabled(grad):
            seconds = interleaved_medians(runs, repeats)
            peaks = {name: peak_bytes(run) for name, run in runs.items()}
        faster, smaller = seconds['unfolded'] / seconds['ours'], peaks['unfolded'] / peaks['ours']
        for name in runs:
            print(f'{what:<15}{name:<10}{seconds[name] * 1000:>9.1f} ms{peaks[name] / 2**20:>9.1f} MiB')
        print(f'{what:<15}{"ratio":<10}{faster:>9.1f} ×{smaller:>12.1f} ×')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--size', type=int, nargs=4, default=(1, 64, 256, 256), metavar=('N', 'C', 'H', 'W'))
    parser.add_argument('--repeats', type=int, default=7)
    args = parser.parse_args()
    benchmark_attention(tuple(args.size), args.repeats)


if __name__ == '__main__':
    main()

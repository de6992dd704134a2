"""LGVAN computed as in its authors' code: the slow reference for the fused form, and its speed compared with ours.

python -m tests.benchmarks.lgvan_as_published [--size 256 256] [--repeats 7] [--threads 2]

Each branch is computed by itself, in contiguous memory, layer norm by mean and square. The weights are our network's.
"""

import argparse
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earn_plugin.archs.lgvan_arch import LGVAN


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    variance = centred.pow(2).mean(1, keepdim=True)
    return layer.weight[:, None, None] * (centred / torch.sqrt(variance + 1e-6)) + layer.bias[:, None, None]


def strip(x: Tensor, layer: nn.Module) -> Tensor:
    if x.shape[3] < layer.row.kernel_size[1]:  # where the authors' code fails
        return layer.column.bias[:, None, None].expand_as(x)
    return layer.column(layer.row(x))


def gate(u: Tensor, layer: nn.Module) -> Tensor:
    x = layer.proj_in(u)
    return u * layer.proj_out(layer.wide(layer.local(x)) + strip(x, layer.strip5) + strip(x, layer.strip3) + x)


def attention(x: Tensor, part: nn.Module) -> Tensor:
    return x + part.scale * part.proj_out(gate(F.gelu(part.proj_in(norm(x, part.norm))), part.gate))


def feed_forward(x: Tensor, part: nn.Module) -> Tensor:
    wide = part.expand(norm(x, part.norm))
    return x + part.scale * part.reduce(F.gelu(part.depthwise(wide) + wide))


def as_published(network: LGVAN, x: Tensor) -> Tensor:
    shallow = out = network.conv_first(x)
    for first, second in network.body:
        out = feed_forward(attention(out, first), second)
    out = network.conv_last(F.leaky_relu(network.upsample(network.conv_after_body(out) + shallow), 0.2))
    return out + F.interpolate(x, scale_factor=network.upscale, mode='bilinear', align_corners=False)


def fill(network: LGVAN) -> LGVAN:
    """Set weights with which every branch contributes."""
    for name, parameter in network.named_parameters():
        if name.endswith('bias'):
            nn.init.normal_(parameter, std=0.1)
        elif parameter.dim() == 1 or name.endswith('scale'):
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return network


def compare(about: str, network_type: type, as_published: Callable, size: tuple[int, int]) -> None:
    """Print the time of a network as published, in our training form and in the fused form."""
    from earn_plugin.measure.speed import interleaved_medians

    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument('--size', type=int, nargs=2, default=size, metavar=('H', 'W'))
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    runs = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.rand(1, 3, *args.size).to(dtype)
        network = fill(network_type()).eval()
        fused = network.fuse().to(dtype)
        network = copy.deepcopy(network).to(dtype)
        name = str(dtype).removeprefix('torch.')
        runs[f'as published, {name}'] = lambda network=network, x=x: as_published(network, x)
        runs[f'training form, {name}'] = lambda network=network, x=x: network(x)
        runs[f'fused form, {name}'] = lambda network=fused, x=x: network(x)
    with torch.inference_mode():
        seconds = interleaved_medians(runs, args.repeats)
    title = f'{network_type.__name__} x4, 1×3×{args.size[0]}×{args.size[1]}'
    print(f'{title}, {args.threads} threads, {args.repeats} interleaved runs')
    full, half = (seconds[f'as published, {name}'] for name in ('float32', 'bfloat16'))
    for name, median in seconds.items():
        ratios = f'{full / median:6.2f} × published float32{half / median:6.2f} × published bfloat16'
        print(f'{name:<28}{median * 1000:8.0f} ms{ratios}')


if __name__ == '__main__':
    compare(__doc__, LGVAN, as_published, size=(256, 256))

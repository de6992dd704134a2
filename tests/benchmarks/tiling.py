"""Tiles against the whole image: 8-bit values that differ, time and memory.

python -m tests.benchmarks.tiling IMAGE NETWORK [NETWORK …] [--size 256 256] [--tiles 64 128]
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from earn_plugin.convert.networks import NetworkChoice, find_network
from earn_plugin.data.image_files import read_image
from earn_plugin.inference.tiles import TiledNetwork
from earn_plugin.measure.memory import peak_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('image', type=Path, help='an 8-bit RGB image')
    parser.add_argument('networks', nargs='+', help='checkpoints or registered names')
    parser.add_argument('--size', type=int, nargs=2, default=(256, 256), metavar=('H', 'W'), help='of the crop')
    parser.add_argument('--tiles', type=int, nargs='+', default=(64, 128), metavar='N')
    args = parser.parse_args()
    print(f'{"network":<12}{"tile":>6}  {"what":<34}{"differing":>10}{"max/255":>9}{"seconds":>9}{"MiB":>7}')
    for name in args.networks:
        for row in compare(name, image_of(args.image, *args.size), args.tiles):
            print(row, flush=True)


def image_of(path: Path, height: int, width: int) -> Tensor:
    """The middle of an image, 1×3×H×W in [0, 1]."""
    pixels = read_image(path)
    top, left = (max(0, size - wanted) // 2 for size, wanted in zip(pixels.shape, (height, width), strict=False))
    crop = pixels[top : top + height, left : left + width, ::-1].transpose(2, 0, 1)
    return torch.from_numpy(crop.copy())[None] / 255


def compare(name: str, image: Tensor, tiles: list[int]) -> list[str]:
    torch.manual_seed(0)
    found = find_network(NetworkChoice(name))
    for parameter in found.network.parameters():
        if not parameter.any():  # which would hide the layers before it
            nn.init.normal_(parameter, std=0.1)
    scale = found.arguments.get('upscale', 4)
    whole, rows = None, []
    for tile in (0, *tiles):
        tiled = TiledNetwork(found.network, scale, tile=tile)
        start = time.perf_counter()
        out = tiled(image)
        seconds = time.perf_counter() - start
        whole = out if whole is None else whole
        differing = int((as_saved(out) != as_saved(whole)).sum())
        largest = 255 * float((out - whole).abs().max())
        memory = peak_bytes(lambda tiled=tiled: tiled(image)) / 2**20
        label = Path(name).stem[:11]
        what = tiled.describe(image)
        rows.append(f'{label:<12}{tile:>6}  {what:<34}{differing:>10}{largest:>9.2g}{seconds:>9.2f}{memory:>7.0f}')
    return rows


def as_saved(out: Tensor) -> Tensor:
    return (out.clamp(0, 1) * 255).round()


if __name__ == '__main__':
    main()

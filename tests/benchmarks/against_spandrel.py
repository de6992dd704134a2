"""The same weights through spandrel, through tiles with a fixed overlap, and through our tiles, on one image.

python -m tests.benchmarks.against_spandrel lgvan_x4.pth [--image FILE] [--tiles 64 128] [--repeats 5] [--threads 1]

For each way: median time, peak memory, the largest difference to the complete image at once in 1/255, and how many of
the 8-bit values differ. Without an image it is a part of a photograph that scikit-image brings.
"""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path

import cv2
import torch
from skimage import data
from torch import Tensor

from earn_plugin.convert.networks import NetworkChoice, find_network, fuse_network
from earn_plugin.inference.tiles import TiledNetwork
from earn_plugin.measure.memory import peak_bytes
from earn_plugin.protocols import Fusible

OVERLAP = 10  # as in Real-ESRGAN


def fixed_tiles(network, image: Tensor, scale: int, tile: int, overlap: int = OVERLAP) -> Tensor:
    """The result of tiles that see ``overlap`` more pixels on each side, which are cut off."""
    height, width = image.shape[2:]
    result = image.new_empty(*image.shape[:2], height * scale, width * scale)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            above, before = min(top, overlap), min(left, overlap)
            part = network(image[:, :, top - above : top + tile + overlap, left - before : left + tile + overlap])
            rows, columns = (min(tile, rest) * scale for rest in (height - top, width - left))
            part = part[:, :, above * scale :, before * scale :][:, :, :rows, :columns]
            result[:, :, top * scale : top * scale + rows, left * scale : left * scale + columns] = part
    return result


def to_8_bits(result: Tensor) -> Tensor:
    return result.clamp(0, 1).mul(255).round()


def compare(ways: dict, repeats: int) -> None:
    """Run the ways interleaved and print a row for each; the first is what the others are compared with."""
    results = {name: way() for name, way in ways.items()}
    peaks = {name: peak_bytes(way) / 2**20 for name, way in ways.items()}
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(time.process_time() - start)
    reference = next(iter(results.values()))
    print(f'{"":44}{"CPU s":>8}{"MiB":>8}{"max /255":>10}{"8-bit values that differ":>26}')
    for name, result in results.items():
        largest = 255 * (result.clamp(0, 1) - reference.clamp(0, 1)).abs().max().item()
        differ = to_8_bits(result) != to_8_bits(reference)
        share = f'{int(differ.sum()):,} ({100 * differ.double().mean().item():.2g} %)'
        print(f'{name:44}{statistics.median(times[name]):8.2f}{peaks[name]:8.0f}{largest:10.2g}{share:>26}')


def main() -> None:
    from spandrel import ModelLoader

    from earn_plugin.spandrel import install

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--image', type=Path)
    parser.add_argument('--tiles', type=int, nargs='+', default=[64, 128])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    pixels = cv2.imread(str(args.image))[..., ::-1].copy() if args.image else data.astronaut()[:192, 100:356].copy()
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    install()
    model = ModelLoader().load_from_file(args.checkpoint).eval()
    arguments = {'upscale': model.scale} if model.architecture.id == 'A2N' else {}
    found = find_network(NetworkChoice(str(args.checkpoint), arguments))
    if isinstance(type(found.network), Fusible):
        found = fuse_network(found)
    ways = {'spandrel, complete image': partial(model, image), 'ours, complete image': partial(found.network, image)}
    for tile in args.tiles:
        ways[f'spandrel, tiles of {tile}'] = partial(fixed_tiles, model, image, model.scale, tile)
        ours = TiledNetwork(found.network, model.scale, tile=tile)
        ways[f'ours, tiles of {tile}, {ours.describe(image)}'] = partial(ours, image)
    with torch.inference_mode():
        compare(ways, args.repeats)


if __name__ == '__main__':
    main()

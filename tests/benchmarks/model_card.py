"""Fills in the model card of an included network: its file, its figures, and on request its training and its speed.

python -m tests.benchmarks.model_card A2N-S_x4 [--run experiments/train_A2N-S_x4] [--speed]

The figures are those of docs/results/NAME.json, the results.json of `basicsr test -opt test_NAME`. A table that is not
asked for stays as it is.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from earn_plugin.convert.networks import load
from earn_plugin.weights import included
from tests.helpers.places import ROOT

MOST_ROWS = 9  # of the training curve
UNKNOWN = 'Not measured yet.'


def card_of(name: str) -> Path:
    return included()[name].with_suffix('.md')


def results_of(name: str) -> dict[str, Any] | None:
    path = ROOT / f'docs/results/{name}.json'
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else None


def filled(name: str, card: str, **others: str) -> str:
    """A card with the title and the tables that follow from the repository alone, and ``others`` by their marks."""
    card = title(name) + '\n' + card.partition('\n')[2]
    for mark, table in {'file': about_file(name), 'figures': about_figures(name), **others}.items():
        before, begin, rest = card.partition(f'<!-- {mark} -->\n')
        _, end, after = rest.partition('<!-- end -->\n')
        if not (begin and end):
            raise ValueError(f'{card_of(name)} needs the lines <!-- {mark} --> and <!-- end -->')
        card = f'{before}{begin}\n{table}\n\n{end}{after}'
    return card


def title(name: str) -> str:
    network, results = load(name), results_of(name)
    psnr = f', {results["datasets"]["Set5"]["mean"]["psnr"]:.2f} dB on Set5' if results else ''
    count = sum(parameter.numel() for parameter in network.parameters())
    return f'# {type(network).__name__} for photographs ×{network.upscale}: {count:,} parameters{psnr}'


def about_file(name: str) -> str:
    content = included()[name].read_bytes()
    return f'`{name}.safetensors`, {len(content):,} bytes, SHA-256 `{hashlib.sha256(content).hexdigest()}`'


def about_figures(name: str) -> str:
    results = results_of(name)
    if results is None:
        return UNKNOWN
    rows = [
        [dataset, str(len(found['images'])), both(found['mean']), both(found['bicubic']['mean'])]
        for dataset, found in results['datasets'].items()
    ]
    return markdown(['PSNR (dB) / SSIM', 'images', name, 'bicubic'], rows)


def both(metrics: dict[str, float]) -> str:
    return f'{metrics["psnr"]:.2f} / {metrics["ssim"]:.4f}'


def about_training(run: str) -> str:
    """The PSNR of some of a run's validations, the last one included, and the time until then."""
    from earn_plugin.figures.run_log import read_run

    curves = read_run(run).values['psnr']
    iterations = sorted(set.intersection(*(set(curve) for curve in curves.values())))
    every = -(-len(iterations) // MOST_ROWS)
    kept = iterations[::-1][::every][::-1]
    rows = [
        [
            f'{i:,}',
            f'{max(c[i].seconds for c in curves.values()) / 3600:.1f}',
            *(f'{c[i].value:.2f}' for c in curves.values()),
        ]
        for i in kept
    ]
    return markdown(['iteration', 'hours', *(f'PSNR on {dataset}' for dataset in curves)], rows)


def about_speed(name: str, size: int = 256) -> str:
    """Medians of interleaved runs, next to LGVAN of the same scale as its authors' code computes it."""
    from earn_plugin.archs import LGVAN
    from earn_plugin.devices import describe_device
    from earn_plugin.measure.speed import interleaved_medians
    from tests.benchmarks.lgvan_as_published import as_published, fill

    network, lgvan = load(name), fill(LGVAN(upscale=load(name).upscale)).eval()
    x, runs = torch.rand(1, 3, size, size), {}
    for label, dtype in (('float32', torch.float32), ('bfloat16', torch.bfloat16)):
        ours, theirs, image = network.fuse().to(dtype), lgvan.fuse().to(dtype), x.to(dtype)
        runs[name, label] = lambda ours=ours, image=image: ours(image)
        runs['LGVAN, our fused form', label] = lambda theirs=theirs, image=image: theirs(image)
    runs["LGVAN, the authors' form", 'float32'] = lambda: as_published(lgvan, x)
    with torch.inference_mode():
        seconds = interleaved_medians(runs, 7)
    rows = [
        [what, *(f'{1000 * seconds[what, d]:.0f} ms' if (what, d) in seconds else '' for d in ('float32', 'bfloat16'))]
        for what in dict.fromkeys(what for what, _ in runs)
    ]
    return markdown([f'1×3×{size}×{size}, {describe_device(x.device)}', 'float32', 'bfloat16'], rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return '\n'.join(f'| {" | ".join(row)} |' for row in [head, ['---'] * len(head), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('name', choices=included())
    parser.add_argument('--run', help='the experiment that trained it, as `basicsr plot` takes it')
    parser.add_argument('--speed', action='store_true', help='measure the speed on this machine')
    args = parser.parse_args()
    others = {'training': about_training(args.run)} if args.run else {}
    others |= {'speed': about_speed(args.name)} if args.speed else {}
    card = card_of(args.name)
    card.write_text(filled(args.name, card.read_text(encoding='utf-8'), **others), encoding='utf-8')


if __name__ == '__main__':
    main()

"""basicsr compare: figures as papers print them."""

import argparse
from pathlib import Path

from earn_plugin.cli.inference_commands import network_of
from earn_plugin.cli.network_commands import add_network_arguments
from earn_plugin.errors import UsageError

COMPARISON = """A SOURCE is a checkpoint or an .onnx file, as `upscale --model` takes it; a folder of results, such as
results/NAME/visualization/Set5, in which baby.png, babyx4.png and baby_NAME.png belong to baby.png; or an image.
Below the crops stand PSNR and SSIM on Y of the whole images, without a border of S pixels, as papers print them."""


def add_commands(commands) -> None:
    add_compare(commands)


def add_compare(commands) -> None:
    compare = commands.add_parser('compare', help='draw a comparison sheet of methods on images', epilog=COMPARISON)
    add = compare.add_argument
    add('images', type=Path, nargs='+', metavar='HR_IMAGE', help='an image; several give several rows')
    sources = 'what to compare with bicubic; NAME= gives the label'
    add('--with', dest='sources', nargs='+', action='extend', required=True, metavar='[NAME=]SOURCE', help=sources)
    scale = 'HR divided by LR (default: that of the networks)'
    add('--scale', '--upscale', dest='upscale', type=int, metavar='S', help=scale)
    add('--lr', type=Path, metavar='FILE', help="the LR image, or a folder of them (default: made by MATLAB's bicubic)")
    region = 'in HR pixels: X Y W H; W H, or auto (default), are placed where the methods differ most'
    add('--region', nargs='+', default=['auto'], metavar='N', help=region)
    add('-o', dest='output', type=Path, default=Path('sheet.png'), metavar='FILE', help='.png, .svg or .pdf')
    add('--columns', type=int, choices=(1, 2), default=2, help='width of the sheet, in columns of a paper (default: 2)')
    add('--json', type=Path, metavar='FILE', help='also write the numbers to this file')
    add('--device', help='cpu, cuda, cuda:1, … (default: cuda if available)')
    add_network_arguments(compare, form=False)
    compare.set_defaults(run=run_compare)


def run_compare(args: argparse.Namespace) -> None:
    region = region_of(args.region)
    sources = [split_label(text) for text in args.sources]
    from earn_plugin.figures.comparison import compare_methods, comparison_table

    methods = {}
    for given, path in sources:
        method = method_at(path, args)
        label = given or default_label(path, method)
        if label in ('HR', 'bicubic', *methods):
            raise UsageError(f'{path}: there is another {label} already; give a label: NAME={path}')
        methods[label] = method
    settings = {'scale': args.upscale, 'lr': args.lr, 'region': region, 'columns': args.columns, 'device': args.device}
    print(comparison_table(compare_methods(args.images, methods, output=args.output, report=args.json, **settings)))
    print(f'{args.output} written')


def region_of(texts: list[str]) -> list[int] | None:
    """The numbers of --region; None for auto."""
    if texts == ['auto']:
        return None
    if len(texts) not in (2, 4) or not all(text.isdecimal() for text in texts):
        raise UsageError(f'--region {" ".join(texts)}: write X Y W H or W H in pixels of HR, or auto')
    return [int(text) for text in texts]


def split_label(text: str) -> tuple[str | None, Path]:
    """NAME=SOURCE taken apart; a file whose own name has = is not."""
    label, equals, source = text.partition('=')
    if not equals or Path(text).exists():
        return None, Path(text)
    if not label or not source:
        raise UsageError(f'--with {text}: write NAME=SOURCE')
    return label, Path(source)


def method_at(path: Path, args: argparse.Namespace):
    """The network of a checkpoint or an ONNX file; any other path as it is."""
    from earn_plugin.convert.networks import ENDINGS

    if not path.name.endswith((*ENDINGS, '.onnx')):
        return path

    def network(upscale: int | None):
        return network_of(argparse.Namespace(**{**vars(args), 'model': path, 'upscale': upscale, 'fused': None}))

    try:
        return network(None)
    except UsageError:  # its scale may have to be given
        if args.upscale is None:
            raise
        return network(args.upscale)


def default_label(path: Path, method) -> str:
    """The network's registered name; for results/NAME/visualization/SET its NAME; else the name of the file."""
    if method is not path and path.suffix != '.onnx':
        return type(method).__name__
    folders = path.absolute().parts
    return folders[-3] if folders[-2] == 'visualization' else path.stem

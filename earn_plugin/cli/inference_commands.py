"""basicsr upscale | export: pictures enlarged by a trained network, and networks for other programs."""

import argparse
import os
from pathlib import Path

from earn_plugin.cli.network_commands import add_checkpoint_arguments, given_arguments
from earn_plugin.errors import UsageError

DEFAULT_SCALE = 4  # of upscale without --model
NOTES = """Without --model, the included network of the scale is used, see `basicsr list`; MODEL may also be a
checkpoint that training wrote, an official one of LGVAN, A2N, HAN, RNAN, EARN, RCAN or ODE-RDN, or with --arch the
weights of any registered network. Results keep the format of their picture, unless --format is given; JPEG and WebP
are lossy, so for results without any loss pass --format png. EXIF data and ICC profiles are kept, pictures are
upright afterwards; 16 bits are kept in PNG and TIFF. Transparency is enlarged as well; JPEG shows it on white. Of
animations and of files of several pages, the first picture is used. Results that exist are skipped, so an interrupted
command resumes where it stopped.
On several GPUs: torchrun --nproc_per_node N -m earn_plugin upscale ..."""


def add_commands(commands) -> None:
    upscale = commands.add_parser('upscale', help='enlarge pictures: a file, a folder, or a pattern', epilog=NOTES)
    add = upscale.add_argument
    add('source', type=Path, metavar='IN', help="a picture, a folder with its subfolders, or a pattern: 'pics/*.jpg'")
    where = 'a folder; for a single picture also a file name (default: the working directory, with --suffix _x4)'
    add('target', type=Path, metavar='OUT', nargs='?', help=where)
    add('--model', type=Path, metavar='MODEL', help='a checkpoint, an .onnx file, or an included network')
    add_checkpoint_arguments(upscale)
    form = 'the fused form of the network (default: where it has one)'
    add('--fused', action=argparse.BooleanOptionalAction, help=form)
    add('--format', choices=('png', 'jpeg', 'webp', 'tiff'), help='of the results (default: that of each picture)')
    add('--quality', type=int, default=95, metavar='Q', help='of JPEG and WebP, 1 to 100 (lossless WebP); default 95')
    add('--suffix', help='suffix to append to the file names, e.g. _x4: cat.png → cat_x4.png')
    add('--overwrite', action='store_true', help='replace results that exist (default: skip them)')
    add(
        '--tile',
        type=int,
        metavar='N',
        help='side of the tiles in pixels; 0 for the whole picture (default: by memory)',
    )
    add('--approximate', action='store_true', help='faster tiles, whose result differs from that of the whole picture')
    ensemble = 'mean of the results for the 8 flips and transpositions of a picture'
    add('--self-ensemble', action='store_true', help=ensemble)
    add('--device', help='cpu, cuda, cuda:1, … (default: cuda if available)')
    add('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32', help='to compute with')
    add('--jobs', type=int, default=4, metavar='N', help='threads that read, and as many that write; default 4')
    upscale.set_defaults(run=run_upscale)

    export = commands.add_parser('export', help='write a network as an ONNX file, compared with torch')
    export.add_argument('source', type=Path, metavar='IN', help='a checkpoint or an included network')
    export.add_argument('target', type=Path, metavar='OUT', help='an .onnx file')
    add_checkpoint_arguments(export)
    export.add_argument('--half', action='store_true', help='float16; refused where it changes results visibly')
    export.set_defaults(run=run_onnx_export)


def run_upscale(args: argparse.Namespace) -> None:
    if args.model is None:
        args.model = default_network(args)
    from earn_plugin.inference import upscale

    names = (
        'format',
        'quality',
        'suffix',
        'overwrite',
        'tile',
        'approximate',
        'self_ensemble',
        'device',
        'dtype',
        'jobs',
    )
    upscale(args.source, args.target, network_of(args), **{name: getattr(args, name) for name in names})


def default_network(args: argparse.Namespace) -> Path:
    """The file of the included network of a scale, which is printed."""
    from earn_plugin.weights import included

    if args.arch or args.set:
        raise UsageError('--arch and --set describe a checkpoint: also pass --model MODEL')
    scale = DEFAULT_SCALE if args.upscale is None else args.upscale
    networks = {name: path for name, path in included().items() if name.endswith(f'_x{scale}')}
    if not networks:
        raise UsageError(f'no included network enlarges by {scale} ({", ".join(included())}): pass --model MODEL')
    name, path = next(iter(networks.items()))
    if os.environ.get('RANK', '0') == '0':
        print(f'included network {name}; --model MODEL chooses another')
    return path


def network_of(args: argparse.Namespace):
    """The network of a checkpoint in the form asked for; the fused one where there is one and none is asked for."""
    from earn_plugin.inference.network_file import open_network

    return open_network(args.model, given_arguments(args), args.arch, args.fused)


def run_onnx_export(args: argparse.Namespace) -> None:
    from earn_plugin.inference.onnx_export import export_onnx

    print(export_onnx(args.source, args.target, given_arguments(args), arch=args.arch, half=args.half))

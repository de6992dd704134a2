"""basicsr ntire: from a checkpoint to a submission."""

import argparse
from pathlib import Path


def add_commands(commands) -> None:
    ntire = commands.add_parser('ntire', help='prepare a submission to the NTIRE challenge on efficient SR')
    what = ntire.add_subparsers(dest='what', required=True, metavar='WHAT')
    add_validate(what)


def add_validate(what) -> None:
    validate = what.add_parser('validate', help="measure a network as a year's organisers do")
    add = validate.add_argument
    add('--year', type=int, required=True, choices=range(2022, 2027), metavar='YEAR', help='2022 to 2026')
    add('--model', required=True, metavar='NETWORK', help='a checkpoint, or a registered network')
    add('--set', nargs='+', action='extend', default=[], metavar='NAME=VALUE', help='its arguments')
    add('--fused', '--deploy', action='store_true', help='in its inference form')
    add('--data-dir', '--data_dir', type=Path, required=True, metavar='DIR', help="holds the year's folders of images")
    add('--data-range', '--data_range', type=float, default=1.0, metavar='RANGE', help='of the network: 1 or 255')
    add('--track', choices=('efficient', 'quality'), default='efficient', help='quality: PSNR on Y')
    add('--include-test', '--include_test', action='store_true', help='the test set, too')
    add('--hybrid-test', '--hybrid_test', action='store_true', help="2023's hybrid test set in place of both")
    add('--ssim', action='store_true', help='SSIM, too')
    add('--limit', type=int, metavar='N', help='the first N images of each set only')
    add('--device', help='cpu, cuda, cuda:1, …; the GPU where there is one')
    add('--name', help='in the results; by default the network, after the ID')
    add('--model-id', '--model_id', type=int, metavar='ID', help='of the team: 7 makes 07_LGVAN')
    add('--save-dir', '--save_dir', type=Path, metavar='DIR', help='save the images there, as NAME/valid/0801.png')
    add('--results-dir', type=Path, default=Path(), metavar='DIR', help='of results.json and results.txt')
    validate.set_defaults(run=run_validate)


def run_validate(args: argparse.Namespace) -> None:
    from earn_plugin.cli.networks import settings_of
    from earn_plugin.ntire.validate import validate

    names = ('fused', 'data_range', 'track', 'include_test', 'hybrid_test', 'ssim', 'limit', 'device', 'name')
    given = {name: getattr(args, name) for name in (*names, 'model_id', 'save_dir', 'results_dir')}
    report = validate(args.model, args.year, args.data_dir, arguments=settings_of(args.set), **given)
    print(report.text())
    print(f'results.json and results.txt are in {args.results_dir}')

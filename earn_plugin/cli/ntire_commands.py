"""basicsr ntire: from a checkpoint to a submission."""

import argparse
from dataclasses import fields
from pathlib import Path

from earn_plugin.cli.network_commands import add_network_arguments, network_choice


def add_commands(commands) -> None:
    ntire = commands.add_parser('ntire', help='prepare a submission to the NTIRE challenge on efficient SR')
    what = ntire.add_subparsers(dest='what', required=True, metavar='WHAT')
    add_validate(what)
    add_export(what)
    add_zip(what)


def add_network(command: argparse.ArgumentParser) -> None:
    """The network, as all three commands take it."""
    add = command.add_argument
    add('--model', required=True, metavar='CKPT', help='a checkpoint, an included network or a registered name')
    add_network_arguments(command)
    add('--data-range', '--data_range', type=float, choices=(1.0, 255.0), default=1.0, help='of its input; ours have 1')


def add_validate(what) -> None:
    validate = what.add_parser('validate', help="measure a network as a year's organisers do")
    add_network(validate)
    add = validate.add_argument
    add('--year', type=int, required=True, choices=range(2022, 2027), metavar='YEAR', help='2022 to 2026')
    add('--data-dir', '--data_dir', type=Path, required=True, metavar='DIR', help="contains the year's image folders")
    add('--track', choices=('efficient', 'quality'), default='efficient', help='quality: PSNR on Y')
    add('--include-test', '--include_test', action='store_true', help='also the test set')
    add('--hybrid-test', '--hybrid_test', action='store_true', help="2023's hybrid test set instead of both")
    add('--ssim', action='store_true', help='also SSIM')
    add('--limit', type=int, metavar='N', help='only the first N images of each set')
    add('--runs', type=int, default=1, metavar='N', help="the mean of N runs; the organisers' is that of 5")
    add('--device', help='cpu, cuda, cuda:1, …; the GPU by default, where there is one')
    add('--name', help='in the results; by default the network, after the ID')
    add('--model-id', '--model_id', type=int, metavar='ID', help='of the team: 7 gives 07_LGVAN')
    add('--save-dir', '--save_dir', type=Path, metavar='DIR', help='save the images there, as NAME/valid/0801.png')
    add('--results-dir', type=Path, default=Path(), metavar='DIR', help='of results.json and results.txt')
    validate.set_defaults(run=run_validate)


def run_validate(args: argparse.Namespace) -> None:
    from earn_plugin.ntire.validate import Validation, validate

    validation = Validation(**{field.name: getattr(args, field.name) for field in fields(Validation)})
    print(validate(network_choice(args, args.model), validation))
    print(f'results.json and results.txt are in {args.results_dir}')


def add_export(what) -> None:
    export = what.add_parser(
        'export', help="write a submission: one Python file, flat weights, a branch in the organisers' script"
    )
    add_network(export)
    export.add_argument('--year', type=int, required=True, metavar='Y', help='of the challenge, 2022 to 2026')
    export.add_argument('--team-id', type=int, required=True, metavar='N', help='as the organisers gave it')
    export.add_argument('--name', required=True, help='of the network: models/team18_NAME.py')
    export.add_argument('--repo', type=Path, metavar='DIR', help="a checkout of the organisers' repository, to patch")
    export.add_argument(
        '--out', type=Path, metavar='DIR', help='where to write; ntireY_teamN_NAME[_quality] by default'
    )
    export.add_argument('--track', choices=('efficient', 'quality'), default='efficient', help='efficient by default')
    export.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> None:
    from earn_plugin.ntire.export import export

    given = {name: getattr(args, name) for name in ('year', 'name', 'track', 'data_range', 'out', 'repo')}
    print(export(network_choice(args, args.model), team=args.team_id, **given))


def add_zip(what) -> None:
    upload = what.add_parser('zip', help='upscale the test images and pack them for the upload')
    add_network(upload)
    upload.add_argument('--lr-dir', type=Path, required=True, metavar='DIR', help='the LR images of the test set')
    upload.add_argument('--out', type=Path, required=True, metavar='FILE.zip')
    upload.add_argument('--names', choices=('lr', 'hr'), default='lr', help='0901x4.png, or 0901.png; lr by default')
    upload.add_argument('--runtime', type=float, metavar='S', help='seconds per image; measured by default')
    upload.add_argument(
        '--extra-data', type=int, choices=(0, 1), default=0, help='whether the network was trained on any; 0 by default'
    )
    upload.add_argument('--description', default='', metavar='TEXT', help='the last line of readme.txt')
    upload.add_argument('--device', metavar='NAME', help='cpu, cuda, cuda:1, …; the GPU by default, where there is one')
    upload.set_defaults(run=run_zip)


def run_zip(args: argparse.Namespace) -> None:
    from earn_plugin.convert.networks import find_network
    from earn_plugin.devices import find_device
    from earn_plugin.ntire.upload import Upload, write_upload

    choice = network_choice(args, args.model)
    given = {name: getattr(args, name) for name in ('lr_dir', 'out', 'names', 'data_range', 'runtime', 'description')}
    device, extra_data = find_device(args.device), bool(args.extra_data)
    upload = Upload(device=device, trained=choice.is_checkpoint, extra_data=extra_data, **given)
    print(write_upload(find_network(choice), upload))

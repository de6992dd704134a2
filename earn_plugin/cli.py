"""The basicsr command: parse, dispatch, nothing else. What a command needs is imported when it runs."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import earn_plugin
from earn_plugin.errors import UsageError, UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failure, 2 for wrong usage, 130 or 143 when stopped."""
    args = parser().parse_args(arguments)
    try:
        return args.run(args) or 0
    except UserError as error:
        print(f'basicsr {args.command}: {error}', file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f'basicsr {args.command}: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, head or less, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog='basicsr', description='Train and test super-resolution networks: EARN and its kin, in BasicSR.'
    )
    top.add_argument('--version', action='version', version=f'earn_plugin {earn_plugin.__version__}')
    commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')

    train = commands.add_parser('train', help='train as an options file says')
    add_options_arguments(train)
    train.add_argument('--auto_resume', action='store_true', help='go on from the newest whole state, if there is one')
    train.set_defaults(run=run_train)

    test = commands.add_parser('test', help='test a network as an options file says')
    add_options_arguments(test)
    test.add_argument('--auto_resume', action='store_true', help=argparse.SUPPRESS)  # BasicSR takes it and ignores it
    test.set_defaults(run=run_test)

    prepare = commands.add_parser('prepare', help='prepare data')
    what = prepare.add_subparsers(dest='what', required=True, metavar='WHAT')
    demo = what.add_parser('demo', help='make datasets/demo from the photographs that scikit-image ships; no download')
    demo.set_defaults(run=run_prepare_demo)

    convert = commands.add_parser('convert', help="turn the authors' checkpoints into ours, and back")
    convert.add_argument('source', type=Path, metavar='IN', help='an official checkpoint, or one of ours')
    convert.add_argument('target', type=Path, metavar='OUT', help='a .pth, or a .safetensors')
    convert.add_argument('--upscale', type=int, metavar='S', help='where the checkpoint does not tell')
    convert.add_argument(
        '--set', nargs='+', action='extend', default=[], metavar='NAME=VALUE', help='other arguments of the network'
    )
    convert.add_argument('--to', choices=('ours', 'authors'), default='ours', help='whose names the output has')
    convert.set_defaults(run=run_convert)

    listing = commands.add_parser('list', help='what is registered, with parameter counts, and the recipes')
    listing.set_defaults(run=run_list)

    doctor = commands.add_parser('doctor', help='check versions, devices, disk; each finding with its remedy')
    doctor.set_defaults(run=run_doctor)

    benchmark = commands.add_parser('benchmark', help='measure speed and memory on this machine')
    subject = benchmark.add_subparsers(dest='what', required=True, metavar='WHAT')
    attention = subject.add_parser('attention', help="EARN's local attention beside its unfolded form")
    attention.add_argument('--size', type=int, nargs=4, default=(1, 64, 256, 256), metavar=('N', 'C', 'H', 'W'))
    attention.add_argument('--repeats', type=int, default=7, help='timed runs of each form, alternating')
    attention.set_defaults(run=run_benchmark_attention)
    return top


def add_options_arguments(command: argparse.ArgumentParser) -> None:
    """BasicSR's own flags."""
    command.add_argument('-opt', required=True, metavar='FILE', help='options file, or the name of a recipe')
    command.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none', help='who started this')
    command.add_argument('--debug', action='store_true', help='log every iteration, save and validate every 8')
    command.add_argument('--local_rank', '--local-rank', type=int, default=None, help='set by older launchers')
    command.add_argument(
        '--force_yml', nargs='+', default=[], metavar='KEY:KEY=VALUE', help='override options: train:ema_decay=0.999'
    )


def options_of(args: argparse.Namespace):
    from earn_plugin.options.reading import find, override, read

    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    options = read(find(args.opt))
    override(options, args.force_yml)
    return options


def run_train(args: argparse.Namespace) -> None:
    options = options_of(args)
    from earn_plugin.train import train

    train(options, args.launcher, args.auto_resume, args.debug)


def run_test(args: argparse.Namespace) -> None:
    options = options_of(args)
    from earn_plugin.test import test

    test(options, args.launcher, args.debug)


def run_prepare_demo(args: argparse.Namespace) -> None:
    from earn_plugin.data import demo

    made = demo.make_demo()
    print(f'{demo.ROOT} is {"made" if made else "there already"}')


def run_convert(args: argparse.Namespace) -> None:
    from earn_plugin.convert import convert
    from earn_plugin.options.reading import parse_value

    given = {'upscale': args.upscale} if args.upscale is not None else {}
    for entry in args.set:
        name, equals, text = entry.partition('=')
        if not equals:
            raise UsageError(f'--set {entry}: write NAME=VALUE, for example non_local_mode=gaussian')
        if name in given:
            raise UsageError(f'--set {entry}: {name} is given twice')
        given[name] = parse_value(text, '--set')
    print(convert(args.source, args.target, given, to_authors=args.to == 'authors'))


def run_list(args: argparse.Namespace) -> None:
    from earn_plugin.listing import show

    show()


def run_doctor(args: argparse.Namespace) -> int:
    from earn_plugin.doctor import examine

    return examine()


def run_benchmark_attention(args: argparse.Namespace) -> None:
    from earn_plugin.benchmark import benchmark_attention

    benchmark_attention(tuple(args.size), args.repeats)

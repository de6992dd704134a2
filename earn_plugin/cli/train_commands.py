"""basicsr train | test, with BasicSR's own flags."""

import argparse
import os

from earn_plugin.cli.network_commands import add_recipe_arguments, read_recipe


def add_commands(commands) -> None:
    train = commands.add_parser('train', help='train from an options file')
    add_options_arguments(train)
    train.add_argument('--debug', action='store_true', help='log every iteration, save and validate every 8')
    train.add_argument('--auto_resume', action='store_true', help='resume from the latest valid state, if there is one')
    train.set_defaults(run=run_train)

    test = commands.add_parser('test', help='test a network from an options file')
    add_options_arguments(test)
    test.add_argument(
        '--fused', action='store_true', help='use the fused form of the network: the same function, faster'
    )
    test.add_argument(
        '--self-ensemble',
        action='store_true',
        help='mean of the results for the 8 flips and transpositions of an image',
    )
    test.add_argument('--debug', action='store_true', help='put debug_ before the name')
    test.add_argument('--auto_resume', action='store_true', help=argparse.SUPPRESS)  # ignored, as in BasicSR
    test.set_defaults(run=run_test)


def add_options_arguments(command: argparse.ArgumentParser) -> None:
    """BasicSR's own flags, and those for a user's own code."""
    add_recipe_arguments(command)
    command.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none', help='how it was started')
    command.add_argument('--local_rank', '--local-rank', type=int, default=None, help='set by old launchers')


def read_arguments(args: argparse.Namespace):
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return read_recipe(args)


def run_train(args: argparse.Namespace) -> None:
    options = read_arguments(args)
    from earn_plugin.training.train import train

    train(options, args.launcher, args.auto_resume, args.debug)


def run_test(args: argparse.Namespace) -> None:
    options = read_arguments(args)
    from earn_plugin.training.test import test

    test(options, args.launcher, args.debug, fused=args.fused, self_ensemble=args.self_ensemble)

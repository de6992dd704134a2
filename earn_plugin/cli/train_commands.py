"""basicsr train | test, with BasicSR's own flags."""

import argparse
import os
from pathlib import Path

from earn_plugin.cli.network_commands import add_recipe_arguments, read_recipe
from earn_plugin.errors import UsageError


def add_commands(commands) -> None:
    train = commands.add_parser('train', help='train from an options file')
    add_options_arguments(train)
    train.add_argument('--debug', action='store_true', help='log every iteration, save and validate every 8')
    instead = train.add_mutually_exclusive_group()
    instead.add_argument(
        '--auto_resume', action='store_true', help='resume from the latest valid state if there is one'
    )
    profile = 'only report where the time goes in N iterations; saves nothing and leaves a run of this name as it is'
    instead.add_argument('--profile', type=int, metavar='N', help=profile)
    train.add_argument('--trace', type=Path, metavar='FILE', help='with --profile: write a trace for ui.perfetto.dev')
    about = 'train on these images instead of the data sets of the options: a folder or an LMDB of HR images'
    train.add_argument('--hr', metavar='DIR', help=about)
    about = 'validate on these images (default: a fixed part of those of --hr, which is not trained on)'
    train.add_argument('--val', metavar='DIR', help=about)
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
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # torch's profiler writes to stderr; read when torch is imported
    if args.val is not None and args.hr is None:
        raise UsageError(f'--val {args.val} goes with --hr DIR, the images to train on')
    options = read_arguments(args)
    if args.profile is not None:
        from earn_plugin.training.profile import profile_training

        profile_training(options, args.launcher, args.debug, count=args.profile, trace=args.trace)
        return
    if args.trace is not None:
        raise UsageError('--trace needs --profile N')
    from earn_plugin.training.train import train

    train(options, args.launcher, args.auto_resume, args.debug)


def run_test(args: argparse.Namespace) -> None:
    options = read_arguments(args)
    from earn_plugin.training.test import test

    test(options, args.launcher, args.debug, fused=args.fused, self_ensemble=args.self_ensemble)

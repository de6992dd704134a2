"""basicsr benchmark: speed and memory of networks on this machine."""

import argparse
from pathlib import Path

from earn_plugin.cli.network_commands import add_network_arguments, network_choice


def add_commands(commands) -> None:
    benchmark = commands.add_parser('benchmark', help='measure speed and memory on this machine')
    subject = benchmark.add_subparsers(dest='what', required=True, metavar='WHAT')

    network = subject.add_parser('network', help='compare training form, fused form, channels_last, bf16, compiled')
    network.add_argument('network', metavar='NETWORK', help='a checkpoint or a registered name')
    add_network_arguments(network, form=False)
    network.add_argument('--size', type=int, nargs=2, default=(256, 256), metavar=('H', 'W'), help='of the input')
    network.add_argument('--batch', type=int, default=1, metavar='N', help='images at a time')
    network.add_argument('--repeats', type=int, default=7, help='timed runs of each form, interleaved')
    network.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if available')
    network.add_argument('--threads', type=int, metavar='N', help='of the CPU')
    network.add_argument(
        '--forms',
        nargs='+',
        metavar='FORM',
        help='trained (the training form), fused, channels_last, bf16, compiled, or several joined by +: fused+bf16',
    )
    network.add_argument('--json', type=Path, metavar='FILE', help='also write the table to this file')
    network.set_defaults(run=run_network)


def run_network(args: argparse.Namespace) -> None:
    from earn_plugin.measure.speed import FORMS, Benchmark, benchmark_network

    names = ('size', 'batch', 'repeats', 'device', 'threads', 'json')
    benchmark = Benchmark(**{name: getattr(args, name) for name in names}, forms=args.forms or FORMS)
    benchmark_network(network_choice(args, args.network), benchmark)

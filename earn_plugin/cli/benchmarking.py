"""basicsr benchmark: speed and memory on this machine."""

import argparse


def add_commands(commands) -> None:
    benchmark = commands.add_parser('benchmark', help='measure speed and memory on this machine')
    subject = benchmark.add_subparsers(dest='what', required=True, metavar='WHAT')

    attention = subject.add_parser('attention', help="EARN's local attention beside its unfolded form")
    attention.add_argument('--size', type=int, nargs=4, default=(1, 64, 256, 256), metavar=('N', 'C', 'H', 'W'))
    attention.add_argument('--repeats', type=int, default=7, help='timed runs of each form, alternating')
    attention.set_defaults(run=run_attention)


def run_attention(args: argparse.Namespace) -> None:
    from earn_plugin.benchmark.attention import benchmark_attention

    benchmark_attention(tuple(args.size), args.repeats)

"""basicsr benchmark: speed and memory on this machine."""

import argparse
from pathlib import Path

from earn_plugin.cli.network_commands import add_network_arguments, network_choice


def add_commands(commands) -> None:
    benchmark = commands.add_parser('benchmark', help='measure speed and memory on this machine')
    subject = benchmark.add_subparsers(dest='what', required=True, metavar='WHAT')

    attention = subject.add_parser('attention', help="EARN's local attention beside its unfolded form")
    attention.add_argument('--size', type=int, nargs=4, default=(1, 64, 256, 256), metavar=('N', 'C', 'H', 'W'))
    attention.add_argument('--repeats', type=int, default=7, help='timed runs of each form, alternating')
    attention.set_defaults(run=run_attention)

    network = subject.add_parser('network', help='the forms of a network: as trained, fused form, bf16, …')
    network.add_argument('network', metavar='NETWORK', help='a checkpoint, or a registered name')
    add_network_arguments(network, form=False)
    network.add_argument('--size', type=int, nargs=2, default=(256, 256), metavar=('H', 'W'), help='of the input')
    network.add_argument('--batch', type=int, default=1, metavar='N')
    network.add_argument('--repeats', type=int, default=7, help='timed runs of each form, by turns')
    network.add_argument('--device', choices=('cpu', 'cuda'), help='cuda where there is one, else cpu')
    network.add_argument('--threads', type=int, metavar='N', help='of the CPU')
    network.add_argument(
        '--forms',
        nargs='+',
        metavar='FORM',
        help='trained, fused (the fused form), channels_last, bf16, compiled; joined by +: fused+bf16',
    )
    network.add_argument('--json', type=Path, metavar='FILE', help='write the table there, too')
    network.set_defaults(run=run_network)

    prepare = subject.add_parser('prepare', help="basicsr prepare beside BasicSR's own means")
    prepare.add_argument(
        '--hr', type=Path, default=Path('datasets/demo/train/HR'), metavar='DIR', help='images (default: %(default)s)'
    )
    prepare.add_argument('--size', type=int, default=240, help='side of the sub-images')
    prepare.add_argument('--step', type=int, default=120, help='from one sub-image to the next')
    prepare.add_argument('--scale', type=int, default=4)
    prepare.add_argument('--repeats', type=int, default=5, help='timed runs of each, by turns')
    prepare.set_defaults(run=run_prepare)

    data = subject.add_parser('data', help="how fast training reads its data: BasicSR's way and ours")
    data.add_argument('--hr', type=Path, metavar='DIR', help="HR images to read; the demo's photographs by default")
    data.add_argument('--root', type=Path, metavar='DIR', help='where the data sets are made, and removed again')
    data.add_argument('--size', type=int, default=480, help='side of the sub-images; half of it is measured too')
    data.add_argument('--samples', type=int, default=128, help='read in each measurement')
    data.add_argument('--workers', type=int, default=0, help='num_worker_per_gpu')
    data.add_argument('--repeats', type=int, default=5, help='measurements of each, by turns; medians count')
    data.set_defaults(run=run_data)


def run_attention(args: argparse.Namespace) -> None:
    from tests.benchmarks.local_attention import benchmark_attention

    benchmark_attention(tuple(args.size), args.repeats)


def run_network(args: argparse.Namespace) -> None:
    from earn_plugin.measure.speed import FORMS, Benchmark, benchmark_network

    benchmark = Benchmark(
        args.size, args.batch, args.repeats, args.device, args.forms or FORMS, args.threads, args.json
    )
    benchmark_network(network_choice(args, args.network), benchmark)


def run_prepare(args: argparse.Namespace) -> None:
    from tests.benchmarks.preparing import benchmark_prepare

    benchmark_prepare(args.hr, args.size, args.step, args.scale, args.repeats)


def run_data(args: argparse.Namespace) -> None:
    from tests.benchmarks.reading import benchmark_data

    benchmark_data(args.hr, args.root, args.size, args.samples, args.workers, args.repeats)

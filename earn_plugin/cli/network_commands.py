"""basicsr convert | complexity | list | doctor: networks, their checkpoints and the machine."""

import argparse
from pathlib import Path

from earn_plugin.errors import UsageError


def add_commands(commands) -> None:
    convert = commands.add_parser('convert', help="turn the authors' checkpoints into ours, and back")
    convert.add_argument('source', type=Path, metavar='IN', help='an official checkpoint, or one of ours')
    convert.add_argument('target', type=Path, metavar='OUT', help='a .pth, or a .safetensors')
    convert.add_argument('--upscale', type=int, metavar='S', help='where the checkpoint does not tell')
    add_set(convert, 'other arguments of the network')
    convert.add_argument('--to', choices=('ours', 'authors'), default='ours', help='whose names the output has')
    convert.add_argument('--fused', action='store_true', help='write the fused form: equal, and faster')
    convert.set_defaults(run=run_convert)

    complexity = commands.add_parser('complexity', help='parameters, multiply-adds by both NTIRE counters, memory')
    complexity.add_argument('network', metavar='NETWORK', help='a registered network, or a checkpoint')
    add_network_arguments(complexity)
    complexity.add_argument(
        '--size',
        type=int,
        nargs='+',
        default=[256, 256],
        metavar='N',
        help="of the input: H W, 256 256 by default, or the whole shape without the batch (a video's T C H W)",
    )
    complexity.add_argument('--device', help='cpu, cuda, or meta: counts the largest networks at once, without fvcore')
    complexity.add_argument('--json', action='store_true', help='print JSON')
    complexity.set_defaults(run=run_complexity)

    listing = commands.add_parser('list', help='what is registered, with parameter counts, and the recipes')
    listing.set_defaults(run=run_list)

    doctor = commands.add_parser('doctor', help='check versions, devices, disk; each finding with its remedy')
    doctor.set_defaults(run=run_doctor)


def add_network_arguments(command: argparse.ArgumentParser, form: bool = True) -> None:
    """What tells a network, and its form, beside its checkpoint or name."""
    command.add_argument('--arch', metavar='NAME', help='the network of a checkpoint that does not tell it')
    command.add_argument('--arch-file', type=Path, metavar='FILE', help='the file that registers a network of your own')
    add_set(command)
    if form:
        command.add_argument('--fused', action='store_true', help='in its fused form')


def add_set(command: argparse.ArgumentParser, what: str = 'arguments of the network') -> None:
    command.add_argument('--set', nargs='+', action='extend', default=[], metavar='NAME=VALUE', help=what)


def network_choice(args: argparse.Namespace, model: str):
    """Which network ``model`` and the arguments of ``add_network_arguments`` name; imports --arch-file."""
    from earn_plugin.convert.networks import NetworkChoice, import_arch_file

    if args.arch_file:
        import_arch_file(args.arch_file)
    return NetworkChoice(model, settings_of(args.set), args.arch, getattr(args, 'fused', False))


def settings_of(entries: list[str], given: dict | None = None) -> dict:
    """NAME=VALUE, … of --set as arguments of a network, beside those given already."""
    from earn_plugin.options.options_file import parse_value

    settings = dict(given or {})
    for entry in entries:
        name, equals, text = entry.partition('=')
        if not equals:
            raise UsageError(f'--set {entry}: write NAME=VALUE, for example non_local_mode=gaussian')
        if name in settings:
            raise UsageError(f'--set {entry}: {name} is given twice')
        settings[name] = parse_value(text, '--set')
    return settings


def run_convert(args: argparse.Namespace) -> None:
    from earn_plugin.convert import convert

    given = settings_of(args.set, {} if args.upscale is None else {'upscale': args.upscale})
    print(convert(args.source, args.target, given, to_authors=args.to == 'authors', fused=args.fused))


def run_complexity(args: argparse.Namespace) -> None:
    from earn_plugin.convert.networks import find_network
    from earn_plugin.measure.complexity import print_complexity

    print_complexity(find_network(network_choice(args, args.network)), tuple(args.size), args.device, args.json)


def run_list(args: argparse.Namespace) -> None:
    from earn_plugin.catalogue import show

    show()


def run_doctor(args: argparse.Namespace) -> int:
    from earn_plugin.doctor import examine

    return examine()

"""basicsr convert | complexity | benchmark | list | doctor: networks, their checkpoints and the machine."""

import argparse
from pathlib import Path

from earn_plugin.errors import UsageError


def add_commands(commands) -> None:
    convert = commands.add_parser('convert', help="convert the authors' checkpoints to ours, and back")
    convert.add_argument(
        'source', type=Path, metavar='IN', help="the authors' checkpoint, one of ours, or an included network"
    )
    convert.add_argument('target', type=Path, metavar='OUT', help='a .pth or .safetensors file')
    add_checkpoint_arguments(convert)
    convert.add_argument('--to', choices=('ours', 'authors'), default='ours', help='whose parameter names to write')
    convert.add_argument('--fused', action='store_true', help='write the fused form: the same function, faster')
    convert.set_defaults(run=run_convert)

    complexity = commands.add_parser('complexity', help='parameters, multiply-adds by both NTIRE counters, memory')
    complexity.add_argument('network', metavar='NETWORK', help='a checkpoint, an included network or a registered name')
    add_network_arguments(complexity)
    size = 'of the input: H W (default: 256 256), or the full shape without the batch (for videos T C H W)'
    complexity.add_argument('--size', type=int, nargs='+', default=[256, 256], metavar='N', help=size)
    complexity.add_argument('--device', help='cpu, cuda, or meta: counts very large networks quickly, without fvcore')
    complexity.add_argument('--json', action='store_true', help='print JSON')
    complexity.set_defaults(run=run_complexity)

    benchmark = commands.add_parser('benchmark', help='measure speed and memory on this machine')
    subject = benchmark.add_subparsers(dest='what', required=True, metavar='WHAT')
    network = subject.add_parser('network', help='compare training form, fused form, channels_last, bf16, compiled')
    network.add_argument('network', metavar='NETWORK', help='a checkpoint, an included network or a registered name')
    add_network_arguments(network, form=False)
    forms = 'trained (the training form), fused, channels_last, bf16, compiled, or several joined by +: fused+bf16'
    add = network.add_argument
    add('--size', type=int, nargs=2, default=(256, 256), metavar=('H', 'W'), help='of the input')
    add('--batch', type=int, default=1, metavar='N', help='images at a time')
    add('--repeats', type=int, default=7, help='timed runs of each form, interleaved')
    add('--device', choices=('cpu', 'cuda'), help='default: cuda if available')
    add('--threads', type=int, metavar='N', help='of the CPU')
    add('--forms', nargs='+', metavar='FORM', help=forms)
    add('--json', type=Path, metavar='FILE', help='also write the table to this file')
    network.set_defaults(run=run_benchmark)

    training = subject.add_parser('train', help="compare a recipe's training step by BasicSR's model and by ours")
    add_recipe_arguments(training)
    parts = 'channels_last, bf16, fp16, compile, cuda_graph, losses'
    rows = f"stock (BasicSR's model), plain (ours), or parts joined by +: {parts}"
    add = training.add_argument
    add('--batch', type=int, metavar='N', help="images in a batch (default: the recipe's)")
    add('--gt-size', type=int, metavar='N', help="side of the HR patches (default: the recipe's)")
    add('--repeats', type=int, default=7, help='timed bursts of each row, interleaved')
    add('--device', choices=('cpu', 'cuda'), help='default: cuda if available')
    add('--threads', type=int, metavar='N', help='of the CPU')
    add('--rows', nargs='+', metavar='ROW', help=rows)
    add('--json', type=Path, metavar='FILE', help='also write the table to this file')
    training.set_defaults(run=run_training_benchmark)

    listing = commands.add_parser('list', help='list what is registered, with parameter counts, and the recipes')
    add_import_arguments(listing)
    listing.set_defaults(run=run_list)

    doctor = commands.add_parser('doctor', help='check packages, devices and disk, and suggest remedies')
    doctor.set_defaults(run=run_doctor)


def add_recipe_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments that ``read_recipe`` and ``import_own_code`` read."""
    command.add_argument('-opt', required=True, metavar='FILE', help='options file or name of a recipe')
    command.add_argument(
        '--force_yml', nargs='+', default=[], metavar='KEY:KEY=VALUE', help='override options: train:ema_decay=0.999'
    )
    add_import_arguments(command)


def read_recipe(args: argparse.Namespace):
    """The options of -opt with those of --force_yml, and where a command has it, with the images of --hr."""
    from earn_plugin.options.options_file import find_options_file, override, read_options

    options = read_options(find_options_file(args.opt))
    if getattr(args, 'hr', None) is not None:
        from earn_plugin.options.own_photographs import use_photographs

        use_photographs(options, args.hr, args.val)
    override(options, args.force_yml)
    return options


def add_import_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments that ``import_own_code`` reads."""
    add = command.add_argument
    help_import = 'modules that register your own networks, data sets, …; their code is run'
    add('--import', dest='modules', nargs='+', action='extend', default=[], metavar='MODULE', help=help_import)
    add('--arch-file', type=Path, metavar='FILE', help='a Python file that does; its code is run')


def import_own_code(args: argparse.Namespace) -> None:
    """Import what --import and --arch-file name, where a command has them."""
    if not getattr(args, 'modules', None) and not getattr(args, 'arch_file', None):
        return
    from earn_plugin.own_code import import_arch_file, import_module

    for name in args.modules:
        import_module(name)
    if args.arch_file:
        import_arch_file(args.arch_file)


def add_network_arguments(command: argparse.ArgumentParser, form: bool = True) -> None:
    """The arguments that ``network_choice`` reads."""
    command.add_argument('--arch', metavar='NAME', help='the network of a checkpoint without architecture metadata')
    add_import_arguments(command)
    add_set(command)
    if form:
        command.add_argument('--fused', action='store_true', help='use its fused form')


def add_checkpoint_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments for what a checkpoint does not record, which ``given_arguments`` reads, and --arch."""
    command.add_argument('--arch', metavar='NAME', help='the network of a checkpoint without architecture metadata')
    scale = 'scale, if it cannot be inferred from the weights'
    command.add_argument('--upscale', '--scale', type=int, metavar='S', help=scale)
    add_import_arguments(command)
    add_set(command, 'other arguments of the network')


def add_set(command: argparse.ArgumentParser, what: str = 'arguments of the network') -> None:
    command.add_argument('--set', nargs='+', action='extend', default=[], metavar='NAME=VALUE', help=what)


def network_choice(args: argparse.Namespace, model: str):
    """The NetworkChoice of ``model`` and of the arguments of ``add_network_arguments``."""
    from earn_plugin.convert.networks import NetworkChoice

    return NetworkChoice(model, settings_of(args.set), args.arch, getattr(args, 'fused', False))


def settings_of(entries: list[str], given: dict | None = None) -> dict:
    """The NAME=VALUE entries of --set as arguments of a network, in addition to those given."""
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

    settings = {'arch': args.arch, 'to_authors': args.to == 'authors', 'fused': args.fused}
    print(convert(args.source, args.target, given_arguments(args), **settings))


def given_arguments(args: argparse.Namespace) -> dict:
    """The network's arguments from --upscale and --set."""
    return settings_of(args.set, {} if args.upscale is None else {'upscale': args.upscale})


def run_complexity(args: argparse.Namespace) -> None:
    from earn_plugin.convert.networks import find_network
    from earn_plugin.measure.complexity import print_complexity

    print_complexity(find_network(network_choice(args, args.network)), tuple(args.size), args.device, args.json)


def run_benchmark(args: argparse.Namespace) -> None:
    from earn_plugin.measure.speed import FORMS, Benchmark, benchmark_network

    names = ('size', 'batch', 'repeats', 'device', 'threads', 'json')
    benchmark = Benchmark(**{name: getattr(args, name) for name in names}, forms=args.forms or FORMS)
    benchmark_network(network_choice(args, args.network), benchmark)


def run_training_benchmark(args: argparse.Namespace) -> None:
    options = read_recipe(args)
    from earn_plugin.training.step_speed import StepBenchmark, benchmark_training

    names = ('batch', 'gt_size', 'repeats', 'device', 'threads', 'rows', 'json')
    benchmark_training(options, StepBenchmark(**{name: getattr(args, name) for name in names}))


def run_list(args: argparse.Namespace) -> None:
    from earn_plugin.catalogue import print_catalogue

    print_catalogue()


def run_doctor(args: argparse.Namespace) -> int:
    from earn_plugin.doctor import examine

    return examine()

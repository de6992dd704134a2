"""Recognise a checkpoint, read the network's arguments out of its shapes, rename, load strictly."""

import contextlib
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from earn_plugin.convert import weight_files as files
from earn_plugin.convert.authors import SOURCES, Source
from earn_plugin.convert.weight_files import Weights
from earn_plugin.errors import UsageError, UserError, reason_of

MOST_NAMED = 3  # names of a kind that an error lists
AS_TRAINED = '{} holds a network as trained; for its fused form: basicsr convert IN OUT --fused'


class Converted(NamedTuple):
    """A network with its weights, what its file says of it, and what there was to notice."""

    network: nn.Module
    description: dict[str, Any]
    title: str
    notes: list[str]


def load(path: str | Path, **arguments: Any) -> nn.Module:
    """A network ready to run: N×C×H×W in [0, 1] → N×C×sH×sW.

    Args:
        path: a file that training or ``basicsr convert`` wrote, or an official checkpoint of one of the papers.
        arguments: those of the network that an official checkpoint does not tell, such as ``upscale`` of A2N's.

    Returns:
        On the CPU, in evaluation mode; with the moving average where the file has one.

    Raises:
        UserError: missing, damaged, of no network that is known, or an argument is missing or does not fit.
    """
    return read(Path(path), arguments).network.eval()


def convert(
    source: Path, target: Path, arguments: dict[str, Any], to_authors: bool = False, fused: bool = False
) -> str:
    """Turn an official checkpoint, or one of ours, into a file that describes itself; or back into the official form.

    Args:
        source, target: torch's files, or safetensors by the ending.
        arguments: of the network, where the file does not tell them.
        fused: write the fused form.

    Returns:
        What was recognised and what was done.

    Raises:
        UserError: as ``load``; the authors have no such network, or it has no fused form.
    """
    with contextlib.suppress(OSError):  # what is not there is no folder, and what cannot be there is told in the end
        if target.is_dir():
            raise UsageError(f'{target} is a folder; name a file in it')
        if target.samefile(source):
            raise UsageError(f'{target} is the input itself; give the output another name')
    found = read(source, arguments)
    network, description = found.network, found.description
    lines = [f'{source}: {found.title}, {count_of(network)} parameters', *found.notes]
    if fused:
        network, given = fused_form(network, description['arch'], description['arguments'])
        description = {**description, 'arguments': given}
        lines.append(f'turned into the fused form, {count_of(network)} parameters')
    if to_authors:
        kind = source_of(description['arch'])
        files.write(target, to_theirs(kind, network, filled(description)), {}, kind.nested)
    else:
        files.write(target, network.state_dict(), description, ('params',))
    listed = ', '.join(f'{name}={value}' for name, value in description['arguments'].items())
    lines.append(f'{description["arch"]}({listed})')
    return '\n'.join([*lines, f'written to {target}' + (' as the authors have it' if to_authors else '')])


def count_of(network: nn.Module) -> str:
    return f'{sum(parameter.numel() for parameter in network.parameters()):,}'


def read(path: Path, arguments: dict[str, Any], arch: str | None = None) -> Converted:
    """A checkpoint as ``load`` takes it, or of any network that is registered as ``arch``."""
    weights, description, within = files.read(path)
    if arch is not None:
        description = described(path, description, arch, arguments)
    notes = [f'taken from {within}'] if within else []
    if 'arch' in description:
        network = build(path, description['arch'], description['arguments'])
        if arguments.get('fused') and not description['arguments'].get('fused'):
            raise UserError(AS_TRAINED.format(path))
        differing = [name for name, value in arguments.items() if description['arguments'].get(name) != value]
        if differing:
            raise UserError(f'{path} has {differing[0]}={description["arguments"].get(differing[0])!r}')
        check_form(path, description, network, weights)
        fit(path, description['arch'], network, weights)
        return Converted(network, description, f'a checkpoint of {description["arch"]}', notes)
    kind = recognise(path, weights)
    if arguments.get('fused'):
        raise UserError(AS_TRAINED.format(path))
    settled = settle(path, kind, weights, arguments)
    network = build(path, kind.arch, settled)
    settled = filled({'arch': kind.arch, 'arguments': settled})
    notes += kind.notes(settled, weights)
    fit(path, kind.title, network, to_ours(path, kind, network, weights, settled))
    description = files.describe_network(
        'net_g', {'network_g': {'type': kind.arch, **settled}, 'scale': settled['upscale']}
    )
    return Converted(network, description, f'an official checkpoint of {kind.title}', notes)


def described(path: Path, description: dict[str, Any], arch: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a file says of itself, or, where it says nothing, what is said of it."""
    if description.get('arch', arch) != arch:
        raise UserError(f'{path} is of {description["arch"]}, not of {arch}')
    if registered(arch) not in ARCH_REGISTRY:
        raise UsageError(f'{arch} is no registered network; `basicsr list` shows them')
    return description or {'arch': arch, 'arguments': arguments}


def recognise(path: Path, weights: Weights) -> Source:
    for kind in SOURCES:
        if all(mark in weights for mark in kind.marks):
            return kind
    known = ', '.join(kind.title for kind in SOURCES)
    raise UserError(
        f'{path} is not recognised: its names begin with {", ".join(list(weights)[:MOST_NAMED])}. Known are the '
        f'checkpoints of {known}, and files that training or `basicsr convert` wrote; `basicsr complexity` and '
        '`basicsr ntire` take those of every registered network with --arch NAME'
    )


def settle(path: Path, kind: Source, weights: Weights, given: dict[str, Any]) -> dict[str, Any]:
    """The network's arguments: what the shapes tell and what was given, which must agree."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        told, untold = kind.arguments(shapes), kind.untold(shapes)
    except KeyError as error:
        raise UserError(f'{path} looks like {kind.title}, but has no {error}') from error
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f'{path} looks like {kind.title}, but the shapes of its weights are of no such network'
        ) from error
    known = inspect.signature(ARCH_REGISTRY.get(registered(kind.arch))).parameters
    for name, value in given.items():
        if name not in known:
            raise UsageError(f'{kind.arch} has no argument {name}; possible: {", ".join(known)}')
        if name in told and told[name] != value:
            raise UsageError(f'{path} is of {kind.title} with {name}={told[name]}, not {value!r}')
    for name, choices in untold.items():
        if name not in given:
            listed = ' or '.join(f'{name}={choice}' for choice in choices)
            flag = f'--upscale {choices[0]}' if name == 'upscale' else f'--set {name}={choices[0]}'
            raise UsageError(f'{path} is of {kind.title}, and does not tell {name}: give {listed} (for example {flag})')
        if given[name] not in choices:
            listed = ' or '.join(map(str, choices))
            raise UsageError(f'{name} of {kind.title} can be {listed} here, got {given[name]!r}')
    return told | given


def registered(arch: str) -> str:
    return arch if arch in ARCH_REGISTRY else f'{arch}_basicsr'


def build(path: Path, arch: str, arguments: dict[str, Any]) -> nn.Module:
    if registered(arch) not in ARCH_REGISTRY:
        raise UserError(f'{path} is of {arch}, which is not registered; import the module that has it first')
    try:
        return ARCH_REGISTRY.get(registered(arch))(**arguments)
    except Exception as error:  # networks have no list of what arguments that do not fit make them raise
        raise UserError(f'{path}: {arch} cannot be built: {reason_of(error)}') from error


def filled(description: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the defaults of those left out."""
    return files.describe_network('net_g', {'network_g': {'type': description['arch'], **description['arguments']}})[
        'arguments'
    ]


def to_ours(path: Path, kind: Source, network: nn.Module, weights: Weights, arguments: dict[str, Any]) -> Weights:
    """The weights by our names; those that take no part are left out."""
    wanted = {kind.theirs(name, arguments): name for name in network.state_dict()}
    left_over = [name for name in weights if name not in wanted and not re.fullmatch(kind.unused, name)]
    ours = {wanted.get(name, name): tensor for name, tensor in weights.items() if name in wanted or name in left_over}
    own = network.state_dict()
    for theirs, name in wanted.items():
        if name in ours and ours[name].shape == kind.their_shape(theirs, tuple(own[name].shape)):
            ours[name] = ours[name].reshape(own[name].shape)
    missing = [theirs for theirs, name in wanted.items() if name not in ours]
    if missing or left_over:
        raise UserError(misfit(path, kind.title, missing, left_over))
    return ours


def to_theirs(kind: Source, network: nn.Module, arguments: dict[str, Any]) -> Weights:
    """The weights by the authors' names and in their shapes, with the constants that they save."""
    if why := kind.serves(arguments):
        raise UserError(f"the authors' code of {kind.title} has no network with {why}")
    weights = {kind.theirs(name, arguments): tensor for name, tensor in network.state_dict().items()}
    weights = {name: tensor.reshape(kind.their_shape(name, tuple(tensor.shape))) for name, tensor in weights.items()}
    return kind.constants(arguments, weights) | weights


def fused_form(network: nn.Module, arch: str, arguments: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The same function in the form that the network's ``fuse()`` gives, and its arguments; that form itself as it is.

    A network that has such a form takes ``fused=True`` for it, and ``fuse()`` returns it with the weights turned.

    Raises:
        UserError: the network has none.
    """
    if arguments.get('fused'):
        return network, arguments
    if not hasattr(type(network), 'fuse'):  # RK4RDN has a layer of that name
        able = sorted(name.removesuffix('_basicsr') for name, found in ARCH_REGISTRY if hasattr(found, 'fuse'))
        raise UserError(f'{arch} has no fused form; those that have one: {", ".join(able)}')
    return network.fuse(), {**arguments, 'fused': True}


def check_form(path: Path, description: dict[str, Any], network: nn.Module, weights: Weights) -> None:
    """Tell weights as trained from those of the fused form, by their names.

    Raises:
        UserError: they are of the other form than the file or the arguments say.
    """
    if not hasattr(type(network), 'fuse') or weights.keys() == network.state_dict().keys():
        return
    fused = bool(description['arguments'].get('fused'))
    other = build(path, description['arch'], {**description['arguments'], 'fused': not fused})
    if weights.keys() == other.state_dict().keys():
        holds = 'a network as trained' if fused else 'the fused form'
        raise UserError(
            f'{path} holds the weights of {holds}, but is taken for fused={fused}; '
            f'if the file itself does not tell, --set fused={str(not fused).lower()} does'
        )


def source_of(arch: str) -> Source:
    for kind in SOURCES:
        if kind.arch == arch:
            return kind
    raise UserError(f'no authors published checkpoints of {arch}; possible: {", ".join(k.arch for k in SOURCES)}')


def fit(path: Path, title: str, network: nn.Module, weights: Weights) -> None:
    """Load strictly.

    Raises:
        UserError: names the first weights that are missing, left over or of another shape.
    """
    own = network.state_dict()
    missing, left_over = [n for n in own if n not in weights], [n for n in weights if n not in own]
    if missing or left_over:
        raise UserError(misfit(path, title, missing, left_over))
    for name, tensor in own.items():
        if weights[name].shape != tensor.shape:
            shapes = tuple(weights[name].shape), tuple(tensor.shape)
            raise UserError(f'{path} looks like {title}, but {name} is {shapes[0]}, where {shapes[1]} fits')
    network.load_state_dict(weights)


def misfit(path: Path, title: str, missing: list[str], left_over: list[str]) -> str:
    parts = [
        f'{what} {", ".join(names[:MOST_NAMED])}' + (f' and {len(names) - MOST_NAMED} more' * (len(names) > MOST_NAMED))
        for what, names in (('it has no', missing), ('nothing takes', left_over))
        if names
    ]
    return f'{path} looks like {title}, but {"; ".join(parts)}'

"""Networks as commands name them: found, read from any checkpoint, recognised, built and loaded strictly."""

import difflib
import inspect
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.convert.authors import FORMATS, DualAttentionRCANFormat
from earn_plugin.convert.checkpoint_format import CheckpointFormat
from earn_plugin.convert.weight_files import (
    Weights,
    describe_network,
    possible_names,
    published_name,
    read_weights,
    registered_name,
)
from earn_plugin.errors import UsageError, UserError, reason_of
from earn_plugin.own_code import failure_of
from earn_plugin.protocols import Fusible
from earn_plugin.weights import included

ENDINGS = ('.pth', '.pt', '.safetensors')
FUSED = ('fused', True)  # the form that is asked for, whereas the other arguments describe the checkpoint
MOST_NAMED = 3  # names of a kind that an error lists


@dataclass(frozen=True)
class NetworkChoice:
    """Which network a command works on."""

    model: str  # a checkpoint (.pth, .pt, .safetensors), an included network, or a registered name, such as LGVAN
    arguments: dict[str, Any] = field(default_factory=dict)  # for a checkpoint only those that it does not record
    arch: str | None = None  # the registered network of a checkpoint that does not record it
    fused: bool = False  # whether to use the fused form

    @property
    def is_checkpoint(self) -> bool:
        return self.model.endswith(ENDINGS) or self.model in included()


@dataclass(frozen=True)
class FoundNetwork:
    """A network on the CPU, in evaluation mode, and what builds it again: ``arch(**arguments)``."""

    network: nn.Module
    arch: str
    arguments: dict[str, Any]

    @property
    def form(self) -> str:
        return 'fused form' if self.arguments.get('fused') else 'training form'

    def __str__(self) -> str:
        return f'{self.arch}({", ".join(f"{name}={value}" for name, value in self.arguments.items())})'


class ReadNetwork(NamedTuple):
    """A checkpoint's network, and what else is known of the file."""

    found: FoundNetwork
    scale: int | None
    title: str  # for messages
    warnings: list[str]  # where the network differs from the checkpoint, or may differ


def find_network(choice: NetworkChoice) -> FoundNetwork:
    """The network of a checkpoint, or a registered one with its initial weights.

    Raises:
        UserError: no such network or file, the arguments do not fit, or the network has no fused form.
    """
    if choice.is_checkpoint:
        found = read_logged(Path(choice.model), choice.arguments, choice.arch)
    elif choice.arch not in (None, choice.model):
        raise UsageError(
            f'--arch {choice.arch} goes with a checkpoint ({", ".join(ENDINGS)}); {choice.model} is not a checkpoint'
        )
    elif registered_name(choice.model) not in ARCH_REGISTRY:
        raise UsageError(
            f'{choice.model} is neither a registered network (`basicsr list` shows them) nor a checkpoint '
            f'({", ".join(ENDINGS)}) nor an included network ({", ".join(included())}){near_names(choice.model)}'
        )
    else:
        try:
            network = ARCH_REGISTRY.get(registered_name(choice.model))(**choice.arguments)
        except Exception as error:  # networks may raise anything for arguments that do not fit
            raise UsageError(
                f'{choice.model} cannot be built: {failure_of(error, "set its arguments with --set NAME=VALUE")}'
            ) from error
        found = FoundNetwork(network.cpu().eval(), choice.model, dict(choice.arguments))
    return fuse_network(found) if choice.fused else found


def fuse_network(found: FoundNetwork) -> FoundNetwork:
    """The same function in the network's fused form; a network in its fused form is returned as it is.

    Raises:
        UserError: the network has no fused form.
    """
    if found.arguments.get('fused'):
        return found
    if not isinstance(type(found.network), Fusible):
        fusible = sorted(name.removesuffix('_basicsr') for name, cls in ARCH_REGISTRY if isinstance(cls, Fusible))
        raise UserError(f'{found.arch} has no fused form; networks with one: {", ".join(fusible)}')
    return FoundNetwork(found.network.fuse().eval(), found.arch, {**found.arguments, 'fused': True})


def near_names(arch: str) -> str:
    """The registered names nearest to an unknown one, for a message; empty if none is near."""
    names = {name.removesuffix('_basicsr').lower(): name.removesuffix('_basicsr') for name, _ in ARCH_REGISTRY}
    near = [names[name] for name in difflib.get_close_matches(arch.lower(), names, n=MOST_NAMED)]
    return f' (did you mean {" or ".join(near)}?)' if near else ''


def output_of(network: nn.Module, x: Tensor) -> Tensor:
    """The network's output for an input.

    Raises:
        UserError: the network raised an error, whose reason is given, or returned something other than a tensor.
    """
    try:
        output = network(x)
    except Exception as error:  # networks may raise anything for an input that does not fit
        raise UserError(failure_of(error)) from error
    if not isinstance(output, Tensor):
        raise UserError(f'the network returns {type(output).__name__}, not a tensor')
    return output


def load(path: str | Path, arch: str | None = None, **arguments: Any) -> nn.Module:
    """A network ready to run: N×C×H×W in [0, 1] → N×C×sH×sW.

    Args:
        path: a file written by training or ``basicsr convert``, an official checkpoint of one of the papers, weights
            of a registered network without architecture metadata, as stock BasicSR writes them, or the name of an
            included network, such as A2N-S_x4.
        arch: the registered network of such weights, unless their names identify it.
        arguments: of the network, if they cannot be inferred from the weights, such as ``upscale`` of A2N. For files of
            the last kind, those that have a default have it; a line in the log lists them. ``fused=True`` gives the
            fused form, also of a file with the training form.

    Returns:
        On the CPU, in evaluation mode; with the moving average of the weights if the file has one.

    Raises:
        UserError: the file is missing or damaged, its network is not known, an argument is missing or does not fit, or
            the network has no fused form.
    """
    return read_logged(Path(path), arguments, arch).network


def read_logged(path: Path, arguments: dict[str, Any], arch: str | None) -> FoundNetwork:
    """The network of ``read_network``, in its fused form if the arguments ask for it; the warnings are logged."""
    read = read_network(path, arguments, arch)
    for warning in read.warnings:
        logging.getLogger('earn_plugin').warning('%s: %s', path, warning)
    return fuse_network(read.found) if FUSED in arguments.items() else read.found


def read_network(path: Path, arguments: dict[str, Any], arch: str | None = None) -> ReadNetwork:
    """A checkpoint as ``load`` takes it, in the form that it holds.

    Raises:
        UserError: as ``load``; the checkpoint belongs to a different network than ``arch``.
    """
    stored, description, within = read_weights(path)
    is_recorded, wants_fused = bool(description), FUSED in arguments.items()
    arguments = {name: value for name, value in arguments.items() if (name, value) != FUSED}
    named = possible_names(stored)
    weights = next((names for names in named if recognise(names, arch) or recognise_own(names, arch)), named[0])
    if arch is not None and registered_name(arch) not in ARCH_REGISTRY:
        raise UsageError(
            f'--arch {arch} is not registered{near_names(arch)}; `basicsr list` shows what is, --import MODULE or '
            '--arch-file FILE registers your own; give the arguments that differ from its defaults by --set NAME=VALUE'
        )
    kind, warnings = CheckpointFormat(), []
    if description:
        title = kind.title = description['arch']
        if arch is not None and registered_name(arch) != registered_name(title):
            raise UserError(f'{path} is a checkpoint of {title}, not of {arch}')
        for name, value in arguments.items():
            # files that were written before a network had a fused form do not record the form
            if (recorded := {'fused': False, **description['arguments']}.get(name)) != value:
                raise UserError(f'{path} has {name}={recorded!r}, not {value!r}')
    elif official := recognise(weights, arch):
        kind, title = official, f'official {official.title}'
        description, _ = infer_arguments(path, kind, shapes_of(weights), arguments)
    elif own := recognise_own(weights, arch):
        title = kind.title = own.arch
        description, default = infer_arguments(path, own, own.own_shapes(shapes_of(weights)), arguments, is_own=True)
        if default:
            warnings.append(
                f'without architecture metadata, {own.arch} has its defaults for what cannot be inferred from the '
                f'weights: {", ".join(default)}; set others with --set NAME=VALUE'
            )
    elif arch:
        title = kind.title = arch
        description = {'arch': arch, 'arguments': arguments}
    else:
        raise UserError(
            f'{path} is not recognised: its names begin with {", ".join(list(weights)[:MOST_NAMED])}. Recognised are '
            f'the checkpoints of {", ".join(kind.title for kind in FORMATS)}, files written by training or `basicsr '
            'convert`, and those of our networks; for any other registered network pass --arch NAME'
        )
    arguments = description['arguments']
    asked, (arch, network) = arch, build(path, description, named)
    own = {kind.authors_name(name, arguments) for name in network.state_dict()}
    weights = max([weights, *named], key=lambda names: len(names.keys() & own))
    forms = swapped_forms(network, arguments, weights)
    if forms and forms[0] == 'fused' and wants_fused and not is_recorded:
        arguments = description['arguments'] = {**arguments, 'fused': True}
        arch, network = build(path, description, named)
    elif forms:
        raise UserError(
            f'{path} holds the weights of the {forms[0]} form, but is read as the {forms[1]} form; unless the file '
            f'records it, pass --set fused={str(forms[0] == "fused").lower()}'
        )
    warnings += kind.warnings(arguments, weights)
    try:
        load_strictly(path, network, weights, kind, arguments)
    except UserError as error:
        if asked is None:
            raise
        remedy = (
            f'set the arguments that differ from the defaults of {asked} with --set NAME=VALUE, or try another --arch'
        )
        raise UserError(f'{error}; {remedy}') from error
    found = FoundNetwork(network.eval(), arch, arguments)
    source = f' (weights from {within})' if within else ''
    return ReadNetwork(found, description.get('scale'), f'{title} checkpoint{source}', warnings)


def shapes_of(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def can_be(kind: CheckpointFormat, arch: str | None) -> bool:
    """Whether a format is that of a network: of any if none is given, and not of a project's own of the same name."""
    return arch is None or published_name(kind.arch) == registered_name(arch)


def recognise(weights: Weights, arch: str | None = None) -> CheckpointFormat | None:
    """The authors' format that weights have."""
    shapes = shapes_of(weights)
    return next((kind for kind in FORMATS if can_be(kind, arch) and kind.matches(shapes)), None)


def recognise_own(weights: Weights, arch: str | None = None) -> CheckpointFormat | None:
    """The format of the network whose own names weights have."""
    shapes, kinds = shapes_of(weights), [*FORMATS, DualAttentionRCANFormat()]
    return next((kind for kind in kinds if can_be(kind, arch) and kind.matches(kind.own_shapes(shapes))), None)


def infer_arguments(
    path: Path,
    kind: CheckpointFormat,
    shapes: dict[str, tuple[int, ...]],
    given: dict[str, Any],
    is_own: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """The description of a network from the shapes of its weights and what is given; the two must agree.

    An argument that cannot be inferred must be given, unless the names are our own and its default is possible. Also
    returns which arguments have their default, as NAME=VALUE.
    """
    try:
        inferred = kind.own_arguments(shapes) if is_own else kind.arguments(shapes)
        undetectable = kind.undetectable(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f'{path} looks like {kind.title}, but its weights do not fit: {reason_of(error)}') from error
    registered = published_name(kind.arch)
    known = inspect.signature(ARCH_REGISTRY.get(registered)).parameters
    for name, value in given.items():
        if name not in known:
            raise UsageError(f'{kind.arch} has no argument {name}; possible: {", ".join(known)}')
        if value not in (None, inferred.get(name, value)):
            raise UsageError(f'{path} is a checkpoint of {kind.title} with {name}={inferred[name]}, not {value!r}')
    for name, choices in undetectable.items():
        if name in inferred or (is_own and name not in given and known[name].default in choices):
            continue
        if name not in given:
            flag = '--upscale ' if name == 'upscale' else f'--set {name}='
            listed = ' or '.join(f'{flag}{choice}' for choice in choices)
            raise UsageError(f'{path} ({kind.title}): {name} cannot be inferred from the weights; pass {listed}')
        if given[name] not in choices:
            listed = ' or '.join(map(str, choices))
            raise UsageError(f'{path} ({kind.title}): {name} must be {listed} here, got {given[name]!r}')
    network_opt = {'type': registered, **given, **inferred}
    description = describe_network('net_g', {'network_g': network_opt, 'scale': network_opt.get('upscale')})
    return description, [f'{n}={v}' for n, v in description['arguments'].items() if n not in network_opt]


def build(path: Path, description: dict[str, Any], named: list[Weights]) -> tuple[str, nn.Module]:
    """The network of a description, and its registered name.

    Where a project has its own network of that name, the description may mean that of this package or of BasicSR, which
    then has a suffix: the names of the weights decide.
    """
    arch = description['arch']
    if registered_name(arch) not in ARCH_REGISTRY:
        raise UserError(
            f'{path}: {arch} is not registered; `basicsr list` shows what is, --import MODULE or '
            '--arch-file FILE registers your own'
        )
    suffixed = f'{arch}_basicsr'
    errors, networks = [], {}
    for name in [arch, suffixed] if suffixed in ARCH_REGISTRY else [arch]:
        try:
            network = ARCH_REGISTRY.get(registered_name(name))(**description['arguments']).cpu()
        except Exception as error:  # networks may raise anything for arguments that do not fit
            errors.append(error)
            continue
        if any(network.state_dict().keys() == weights.keys() for weights in named):
            return name, network
        networks[name] = network
    if not networks:
        raise UserError(f'{path}: {arch} cannot be built: {failure_of(errors[0])}') from errors[0]
    return next(iter(networks.items()))


def swapped_forms(network: nn.Module, arguments: dict[str, Any], weights: Weights) -> tuple[str, str] | None:
    """The forms of the weights and of the network, 'fused' and 'training' or the reverse, if they are not the same."""
    if not isinstance(type(network), Fusible) or weights.keys() == network.state_dict().keys():
        return None
    is_fused = bool(arguments.get('fused'))
    try:
        other = type(network)(**{**arguments, 'fused': not is_fused})
    except TypeError:  # without that argument, what its fuse() does is not known
        return None
    if weights.keys() != other.state_dict().keys():
        return None
    return ('training', 'fused') if is_fused else ('fused', 'training')


def load_strictly(
    path: Path, network: nn.Module, weights: Weights, kind: CheckpointFormat, arguments: dict[str, Any]
) -> None:
    """Load weights that have the names and shapes of a kind of checkpoint.

    Raises:
        UserError: names are missing or unexpected, of which the first are listed, or a shape does not fit.
    """
    own, ours = network.state_dict(), {}
    names = {kind.authors_name(name, arguments): name for name in own}
    missing = [name for name in names if name not in weights]
    unexpected = [name for name in weights if name not in names and not re.fullmatch(kind.unused, name)]
    if missing or unexpected:
        parts = [
            f'{what} {", ".join(odd[:MOST_NAMED])}' + (f' and {len(odd) - MOST_NAMED} more' * (len(odd) > MOST_NAMED))
            for what, odd in (('missing', missing), ('unexpected', unexpected))
            if odd
        ]
        raise UserError(f'{path} looks like {kind.title}, but its weights do not fit: {"; ".join(parts)}')
    for authors_name, name in names.items():
        tensor, expected = weights[authors_name], kind.authors_shape(authors_name, tuple(own[name].shape))
        if tensor.shape != expected:
            shape = tuple(tensor.shape)
            raise UserError(
                f'{path} looks like {kind.title}, but {authors_name} has shape {shape}, expected {expected}'
            )
        ours[name] = tensor.reshape(own[name].shape)
    network.load_state_dict(ours)

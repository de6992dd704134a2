"""Networks as commands name them: found, read from any checkpoint, recognised, built and loaded strictly."""

import inspect
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.convert.authors import FORMATS, CheckpointFormat
from earn_plugin.convert.weight_files import Weights, describe_network, read_weights, registered_name
from earn_plugin.errors import UsageError, UserError, reason_of
from earn_plugin.protocols import Fusible

ENDINGS = ('.pth', '.pt', '.safetensors')
MOST_NAMED = 3  # names of a kind that an error lists


@dataclass(frozen=True)
class NetworkChoice:
    """Which network a command works on."""

    model: str  # a checkpoint (.pth, .pt, .safetensors), or a registered name, such as LGVAN
    arguments: dict[str, Any] = field(default_factory=dict)  # for a checkpoint only those that it does not record
    arch: str | None = None  # the registered network of a checkpoint that does not record it
    fused: bool = False  # whether to use the fused form

    @property
    def is_checkpoint(self) -> bool:
        return self.model.endswith(ENDINGS)


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
    warnings: list[str]  # where the network differs from the checkpoint


def find_network(choice: NetworkChoice) -> FoundNetwork:
    """The network of a checkpoint, or a registered one with its initial weights.

    Raises:
        UserError: no such network or file, the arguments do not fit, or the network has no fused form.
    """
    if choice.is_checkpoint:
        found = read_network(Path(choice.model), choice.arguments, choice.arch).found
    elif choice.arch not in (None, choice.model):
        raise UsageError(
            f'--arch {choice.arch} goes with a checkpoint ({", ".join(ENDINGS)}); {choice.model} is not a checkpoint'
        )
    elif registered_name(choice.model) not in ARCH_REGISTRY:
        raise UsageError(
            f'{choice.model} is neither a registered network (`basicsr list` shows them) nor a checkpoint '
            f'({", ".join(ENDINGS)})'
        )
    else:
        try:
            network = ARCH_REGISTRY.get(registered_name(choice.model))(**choice.arguments)
        except Exception as error:  # networks may raise anything for arguments that do not fit
            raise UsageError(
                f'{choice.model} cannot be built: {reason_of(error)}; set its arguments with --set NAME=VALUE'
            ) from error
        found = FoundNetwork(network.eval(), choice.model, dict(choice.arguments))
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


def output_of(network: nn.Module, x: Tensor) -> Tensor:
    """The network's output for an input.

    Raises:
        UserError: the network raised an error, whose reason is given, or returned something other than a tensor.
    """
    try:
        output = network(x)
    except Exception as error:  # networks may raise anything for an input that does not fit
        raise UserError(reason_of(error)) from error
    if not isinstance(output, Tensor):
        raise UserError(f'the network returns {type(output).__name__}, not a tensor')
    return output


def load(path: str | Path, **arguments: Any) -> nn.Module:
    """A network ready to run: N×C×H×W in [0, 1] → N×C×sH×sW.

    Args:
        path: a file written by training or ``basicsr convert``, or an official checkpoint of one of the papers.
        arguments: of the network, if they cannot be inferred from the weights, such as ``upscale`` of A2N.

    Returns:
        On the CPU, in evaluation mode; with the moving average of the weights if the file has one.

    Raises:
        UserError: the file is missing or damaged, its network is not known, or an argument is missing or does not fit.
    """
    return read_network(Path(path), arguments).found.network


def read_network(path: Path, arguments: dict[str, Any], arch: str | None = None) -> ReadNetwork:
    """A checkpoint as ``load`` takes it, or one of any registered network, given as ``arch``.

    Raises:
        UserError: as ``load``; the checkpoint belongs to a different network than ``arch``.
    """
    weights, description, within = read_weights(path)
    if arch is not None:
        if description.get('arch', arch) != arch:
            raise UserError(f'{path} is a checkpoint of {description["arch"]}, not of {arch}')
        if registered_name(arch) not in ARCH_REGISTRY:
            raise UsageError(f'--arch {arch} is not registered; `basicsr list` shows what is')
        description = description or {'arch': arch, 'arguments': arguments}
    if arguments.get('fused') and not (description and description['arguments'].get('fused')):
        raise UserError(f'{path} holds the training form; write the fused form with `basicsr convert IN OUT --fused`')
    if description:
        kind = CheckpointFormat()
        title = kind.title = description['arch']
        for name, value in arguments.items():
            if (recorded := description['arguments'].get(name)) != value:
                raise UserError(f'{path} has {name}={recorded!r}, not {value!r}')
    else:
        kind = recognise(path, weights)
        title = f'official {kind.title}'
        network_opt = {'type': kind.arch, **infer_arguments(path, kind, weights, arguments)}
        description = describe_network('net_g', {'network_g': network_opt, 'scale': network_opt.get('upscale')})
    network, arguments = build(path, description), description['arguments']
    if forms := swapped_forms(network, arguments, weights):
        raise UserError(
            f'{path} holds the weights of the {forms[0]} form, but is read as the {forms[1]} form; unless the file '
            f'records it, pass --set fused={str(forms[0] == "fused").lower()}'
        )
    warnings = kind.warnings(arguments, weights)
    load_strictly(path, network, weights, kind, arguments)
    found = FoundNetwork(network.eval(), description['arch'], arguments)
    source = f' (weights from {within})' if within else ''
    return ReadNetwork(found, description.get('scale'), f'{title} checkpoint{source}', warnings)


def recognise(path: Path, weights: Weights) -> CheckpointFormat:
    for kind in FORMATS:
        if all(name in weights for name in kind.detect):
            return kind
    raise UserError(
        f'{path} is not recognised: its names begin with {", ".join(list(weights)[:MOST_NAMED])}. Recognised are the '
        f'checkpoints of {", ".join(kind.title for kind in FORMATS)}, and files written by training or '
        '`basicsr convert`; `basicsr complexity` and `basicsr ntire` take those of any registered network with '
        '--arch NAME'
    )


def infer_arguments(path: Path, kind: CheckpointFormat, weights: Weights, given: dict[str, Any]) -> dict[str, Any]:
    """The network's arguments, inferred from the shapes of the weights or given; the two must agree."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        inferred, undetectable = kind.arguments(shapes), kind.undetectable(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f'{path} looks like {kind.title}, but its weights do not fit: {reason_of(error)}') from error
    known = inspect.signature(ARCH_REGISTRY.get(registered_name(kind.arch))).parameters
    for name, value in given.items():
        if name not in known:
            raise UsageError(f'{kind.arch} has no argument {name}; possible: {", ".join(known)}')
        if name in inferred and inferred[name] != value:
            raise UsageError(f'{path} is a checkpoint of {kind.title} with {name}={inferred[name]}, not {value!r}')
    for name, choices in undetectable.items():
        if name not in given:
            flag = '--upscale ' if name == 'upscale' else f'--set {name}='
            listed = ' or '.join(f'{flag}{choice}' for choice in choices)
            raise UsageError(f'{path} ({kind.title}): {name} cannot be inferred from the weights; pass {listed}')
        if given[name] not in choices:
            listed = ' or '.join(map(str, choices))
            raise UsageError(f'{path} ({kind.title}): {name} must be {listed} here, got {given[name]!r}')
    return inferred | given


def build(path: Path, description: dict[str, Any]) -> nn.Module:
    arch = description['arch']
    if registered_name(arch) not in ARCH_REGISTRY:
        raise UserError(
            f'{path}: {arch} is not registered; `basicsr list` shows what is, --import MODULE or '
            '--arch-file FILE registers your own'
        )
    try:
        return ARCH_REGISTRY.get(registered_name(arch))(**description['arguments'])
    except Exception as error:  # networks may raise anything for arguments that do not fit
        raise UserError(f'{path}: {arch} cannot be built: {reason_of(error)}') from error


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

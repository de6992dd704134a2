"""Networks as commands name them: found, read from any checkpoint, recognised, built and loaded strictly."""

import importlib
import inspect
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.convert.authors import FORMATS, CheckpointFormat
from earn_plugin.convert.weight_files import Weights, describe_network, read_weights
from earn_plugin.errors import UsageError, UserError, reason_of
from earn_plugin.protocols import Fusible

ENDINGS = ('.pth', '.pt', '.safetensors')
MOST_NAMED = 3  # names of a kind that an error lists


@dataclass(frozen=True)
class NetworkChoice:
    """Which network a command works on.

    Args:
        model: a checkpoint (.pth, .pt, .safetensors), or a registered name, such as LGVAN.
        arguments: of the network; for a checkpoint only those that it does not record.
        arch: the registered network that a checkpoint belongs to, if the checkpoint does not record it.
        fused: whether to use the fused form.
    """

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    arch: str | None = None
    fused: bool = False

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


class ReadNetwork(NamedTuple):
    """The network of a checkpoint, its description (arch, arguments, scale), its kind, and warnings about it."""

    network: nn.Module
    description: dict[str, Any]
    title: str
    warnings: list[str]


def find_network(choice: NetworkChoice) -> FoundNetwork:
    """The network of a checkpoint, or a registered one with its initial weights.

    Raises:
        UserError: no such network or file, the arguments do not fit, or the network has no fused form.
    """
    if choice.is_checkpoint:
        read = read_network(Path(choice.model), choice.arguments, choice.arch)
        found = FoundNetwork(read.network.eval(), read.description['arch'], read.description['arguments'])
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
    if not isinstance(found.network, Fusible):
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
    return read_network(Path(path), arguments).network.eval()


def read_network(path: Path, arguments: dict[str, Any], arch: str | None = None) -> ReadNetwork:
    """A checkpoint as ``load`` takes it, or one of any registered network, given as ``arch``.

    Raises:
        UserError: as ``load``; the checkpoint belongs to a different network than ``arch``.
    """
    weights, description, within = read_weights(path)
    if arch is not None:
        if description.get('arch', arch) != arch:
            raise UserError(f'{path} is a checkpoint of {description["arch"]}, not of {arch}')
        description = description or {'arch': arch, 'arguments': arguments}
    source = f' (weights from {within})' if within else ''
    kind = None if description else recognise(path, weights)
    if arguments.get('fused') and not (description and description['arguments'].get('fused')):
        raise UserError(f'{path} holds the training form; write the fused form with `basicsr convert IN OUT --fused`')
    if kind is None:
        network = build(path, description['arch'], description['arguments'])
        for name, value in arguments.items():
            if (recorded := description['arguments'].get(name)) != value:
                raise UserError(f'{path} has {name}={recorded!r}, not {value!r}')
        check_form(path, description, network, weights)
        load_strictly(path, description['arch'], network, weights)
        return ReadNetwork(network, description, f'{description["arch"]} checkpoint{source}', [])
    network_opt = {'type': kind.arch, **infer_arguments(path, kind, weights, arguments)}
    description = describe_network('net_g', {'network_g': network_opt, 'scale': network_opt.get('upscale')})
    network = build(path, kind.arch, description['arguments'])
    warnings = kind.warnings(description['arguments'], weights)
    load_strictly(path, kind.title, network, from_authors(path, kind, network, weights, description['arguments']))
    return ReadNetwork(network, description, f'official {kind.title} checkpoint{source}', warnings)


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


def registered_name(arch: str) -> str:
    """The registry's key of a network: BasicSR's own may have a suffix."""
    return arch if arch in ARCH_REGISTRY else f'{arch}_basicsr'


def build(path: Path, arch: str, arguments: dict[str, Any]) -> nn.Module:
    if registered_name(arch) not in ARCH_REGISTRY:
        raise UserError(f'{path}: {arch} is not registered; `basicsr list` shows what is, --arch-file imports a file')
    try:
        return ARCH_REGISTRY.get(registered_name(arch))(**arguments)
    except Exception as error:  # networks may raise anything for arguments that do not fit
        raise UserError(f'{path}: {arch} cannot be built: {reason_of(error)}') from error


def from_authors(
    path: Path, kind: CheckpointFormat, network: nn.Module, weights: Weights, arguments: dict[str, Any]
) -> Weights:
    """The authors' weights under our names and in our shapes, without those that the network does not use."""
    own = network.state_dict()
    wanted = {kind.authors_name(name, arguments): name for name in own}
    missing = [name for name in wanted if name not in weights]
    unexpected = [name for name in weights if name not in wanted and not re.fullmatch(kind.unused, name)]
    if missing or unexpected:
        raise UserError(misfit(path, kind.title, missing, unexpected))
    ours = {}
    for authors_name, name in wanted.items():
        tensor, shape = weights[authors_name], own[name].shape
        fits = tensor.shape == kind.authors_shape(authors_name, tuple(shape))
        ours[name] = tensor.reshape(shape) if fits else tensor
    return ours


def check_form(path: Path, description: dict[str, Any], network: nn.Module, weights: Weights) -> None:
    """Raise UserError if the weights are those of the network's other form."""
    if not isinstance(network, Fusible) or weights.keys() == network.state_dict().keys():
        return
    is_fused = bool(description['arguments'].get('fused'))
    other = build(path, description['arch'], {**description['arguments'], 'fused': not is_fused})
    if weights.keys() == other.state_dict().keys():
        forms = ('training', 'fused') if is_fused else ('fused', 'training')
        raise UserError(
            f'{path} holds the weights of the {forms[0]} form, but is read as the {forms[1]} form; unless the file '
            f'records it, pass --set fused={str(not is_fused).lower()}'
        )


def load_strictly(path: Path, title: str, network: nn.Module, weights: Weights) -> None:
    """Load the weights; raise UserError with the first names that are missing, unexpected or of another shape."""
    own = network.state_dict()
    missing, unexpected = [n for n in own if n not in weights], [n for n in weights if n not in own]
    if missing or unexpected:
        raise UserError(misfit(path, title, missing, unexpected))
    for name, tensor in own.items():
        if weights[name].shape != tensor.shape:
            shapes = tuple(weights[name].shape), tuple(tensor.shape)
            raise UserError(f'{path} looks like {title}, but {name} has shape {shapes[0]}, expected {shapes[1]}')
    network.load_state_dict(weights)


def misfit(path: Path, title: str, missing: list[str], unexpected: list[str]) -> str:
    parts = [
        f'{what} {", ".join(names[:MOST_NAMED])}' + (f' and {len(names) - MOST_NAMED} more' * (len(names) > MOST_NAMED))
        for what, names in (('missing', missing), ('unexpected', unexpected))
        if names
    ]
    return f'{path} looks like {title}, but its weights do not fit: {"; ".join(parts)}'


def import_arch_file(path: Path) -> None:
    """Import a file that registers networks; a file inside a package is imported as a module of that package.

    Raises:
        UserError: not a Python file, or importing it fails.
    """
    if not path.is_file() or path.suffix != '.py':
        raise UserError(f'--arch-file {path} is not a Python file')
    path = path.resolve()
    parts = [path.stem]
    folder = path.parent
    while (folder / '__init__.py').exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    sys.path.insert(0, str(folder))
    try:
        importlib.import_module('.'.join(parts))
    except Exception as error:  # whatever the file does
        raise UserError(f'--arch-file {path} cannot be imported: {type(error).__name__}: {error}') from error

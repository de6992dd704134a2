"""Checkpoints converted between the authors' form and ours."""

import contextlib
from pathlib import Path
from typing import Any

from torch import nn

from earn_plugin.convert.authors import FORMATS
from earn_plugin.convert.networks import FUSED, FoundNetwork, fuse_network, read_network
from earn_plugin.convert.weight_files import (
    Weights,
    describe_network,
    published_name,
    registered_name,
    write_weights,
)
from earn_plugin.errors import UsageError, UserError


def convert(
    source: Path,
    target: Path,
    arguments: dict[str, Any] | None = None,
    *,
    arch: str | None = None,
    to_authors: bool = False,
    fused: bool = False,
) -> str:
    """Convert a checkpoint as ``load`` takes it into a file that describes itself, or back into the official form.

    Args:
        source, target: files of torch, or of safetensors by their ending.
        arch: the registered network, unless the file records it or its names identify it.
        arguments: of the network, if they cannot be inferred from the weights.
        to_authors: write the authors' names and shapes.
        fused: write the fused form.

    Returns:
        What was recognised, warnings, and what was written.

    Raises:
        UserError: as ``load``; the authors' code has no such network, or the network has no fused form.
    """
    with contextlib.suppress(OSError):  # an impossible path is reported when it is written
        if target.is_dir():
            raise UsageError(f'{target} is a folder; name a file in it')
        if target.samefile(source):
            raise UsageError(f'{target} is the input file; choose another name for the output')
    read = read_network(source, arguments or {}, arch)
    found = read.found
    lines = [f'{source}: {read.title}, {count_of(found.network)} parameters']
    lines += [f'warning: {warning}' for warning in read.warnings]
    if fused or FUSED in (arguments or {}).items():
        found = fuse_network(found)
        lines.append(f'converted to the fused form, {count_of(found.network)} parameters')
    if to_authors:
        weights, nested = authors_weights(found)
        write_weights(target, weights, {}, nested)
    else:
        arch = found.arch.removesuffix('_basicsr')  # which it has only where a project has its own of that name
        description = {'arch': arch, 'arguments': found.arguments, 'scale': read.scale}
        write_weights(target, found.network.state_dict(), description, ('params',))
    written = f'written to {target}' + (" in the authors' form" if to_authors else '')
    return '\n'.join([*lines, str(found), written])


def count_of(network: nn.Module) -> str:
    return f'{sum(parameter.numel() for parameter in network.parameters()):,}'


def authors_weights(found: FoundNetwork) -> tuple[Weights, tuple[str, ...]]:
    """The weights with the authors' names, shapes and constants, and the keys under which their files nest them."""
    kind = next((kind for kind in FORMATS if published_name(kind.arch) == registered_name(found.arch)), None)
    if kind is None:
        possible = ', '.join(kind.arch for kind in FORMATS)
        raise UserError(f'no authors published checkpoints of {found.arch}; possible: {possible}')
    arguments = describe_network('net_g', {'network_g': {'type': found.arch, **found.arguments}})['arguments']
    required = kind.required(arguments)
    for name, value in required.items():
        if arguments[name] != value:
            others = ', '.join(f'{n}={v}' for n, v in required.items() if n != name)
            raise UserError(
                f"the authors' code of {kind.title} supports only {name}={value}, not {arguments[name]}"
                + (f' (with {others})' if others else '')
            )
    weights = {kind.authors_name(name, arguments): tensor for name, tensor in found.network.state_dict().items()}
    weights = {name: tensor.reshape(kind.authors_shape(name, tuple(tensor.shape))) for name, tensor in weights.items()}
    return kind.constants(arguments, weights) | weights, kind.nested

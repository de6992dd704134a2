"""A network as commands name it: a checkpoint, or a registered name; as trained, or in its faster form."""

from pathlib import Path
from typing import Any, NamedTuple

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.convert import conversion as converting
from earn_plugin.errors import UsageError, UserError, reason_of

ENDINGS = ('.pth', '.pt', '.safetensors')


class FoundNetwork(NamedTuple):
    """A network on the CPU, in evaluation mode, and what builds it again: ``arch(**arguments)``."""

    network: nn.Module
    arch: str
    arguments: dict[str, Any]

    @property
    def form(self) -> str:
        return 'fused form' if self.arguments.get('fused') else 'as trained'


def find_network(
    what: str, arguments: dict[str, Any] | None = None, fused: bool = False, arch: str | None = None
) -> FoundNetwork:
    """The network of a checkpoint, or a registered one with the weights it starts with.

    Args:
        what: a checkpoint (.pth, .pt, .safetensors), or a registered name, such as LGVAN.
        arguments: of the network; with a checkpoint only those that it does not tell.
        fused: in the fused form.
        arch: the registered network that a checkpoint is of, where the file does not tell, as BasicSR's own do not.

    Raises:
        UserError: no such network or file, arguments that do not fit, or the network has no fused form.
    """
    if what.endswith(ENDINGS):
        read = converting.read(Path(what), arguments or {}, arch)
        network, arch, given = read.network, read.description['arch'], read.description['arguments']
    elif arch not in (None, what):
        raise UsageError(f'{what} is no checkpoint ({", ".join(ENDINGS)}), so it is not of {arch}')
    else:
        arch = converting.registered(what)
        if arch not in ARCH_REGISTRY:
            raise UsageError(
                f'{what} is neither a registered network (`basicsr list` shows them) nor a checkpoint '
                f'({", ".join(ENDINGS)})'
            )
        try:
            network, arch, given = ARCH_REGISTRY.get(arch)(**(arguments or {})), what, dict(arguments or {})
        except Exception as error:  # networks have no list of what arguments that do not fit make them raise
            raise UsageError(
                f'{what} cannot be built: {reason_of(error)}; give its arguments by --set NAME=VALUE'
            ) from error
    found = FoundNetwork(network.eval(), arch, given)
    return fused_form(found) if fused else found


def fused_form(found: FoundNetwork) -> FoundNetwork:
    """The same function in the form that the network's ``fuse()`` gives; that form itself as it is.

    Raises:
        UserError: the network has none.
    """
    network, arguments = converting.fused_form(*found)
    return FoundNetwork(network.eval(), found.arch, arguments)


def output_of(network: nn.Module, x: Tensor) -> Tensor:
    """What a network makes of an input.

    Raises:
        UserError: why there is no output, whatever the network raised, or that it is no tensor.
    """
    try:
        output = network(x)
    except Exception as error:  # networks have no list of what an input that they do not take makes them raise
        raise UserError(reason_of(error)) from error
    if not isinstance(output, Tensor):
        raise UserError(f'the network gives a {type(output).__name__} and not a tensor')
    return output

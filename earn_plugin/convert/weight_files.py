"""Files of weights, read in all their common forms and written atomically, with a description of their network."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from earn_plugin.atomic_files import atomic_file
from earn_plugin.errors import UserError

Weights = dict[str, Tensor]
NESTED = ('params_ema', 'params', 'state_dict', 'model')  # the moving average first
DESCRIPTION = ('arch', 'arguments', 'scale')
DATA = (bool, int, float, str, type(None), list, tuple, dict)


def read_weights(path: Path) -> tuple[Weights, dict[str, Any], str]:
    """The weights of a file on the CPU, its description (empty if it has none), and the keys that they are nested in.

    Raises:
        UserError: missing, damaged, not a file of weights, or one that would run code.
    """
    content: Any
    if path.suffix == '.safetensors':
        content, description = read_safetensors(path)
    else:
        content = load_torch_file(path)
        description = {key: content[key] for key in DESCRIPTION if key in content}
    if not is_description(description):  # other projects also write an arch
        description = {}
    within = []
    while key := next((key for key in NESTED if isinstance(content.get(key), dict)), None):
        within.append(key)
        content = content[key]
    other = [
        f'{k!r} is {type(v).__name__}' for k, v in content.items() if not (isinstance(k, str) and isinstance(v, Tensor))
    ]
    if not content or other:
        reason = other[0] if other else 'empty'
        raise UserError(f'{path} holds no weights, neither itself nor in {", ".join(NESTED)} ({reason})')
    content = {name: tensor for name, tensor in content.items() if name != 'n_averaged'}  # of torch's AveragedModel
    while content and all(name.startswith('module.') for name in content):  # saved from DataParallel
        content = {name.removeprefix('module.'): tensor for name, tensor in content.items()}
    return content, description, '.'.join(within)


def is_description(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get('arch'), str) and isinstance(value.get('arguments'), dict)


def read_safetensors(path: Path) -> tuple[Weights, Any]:
    try:
        with safe_open(path, framework='pt') as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            description = json.loads((file.metadata() or {}).get('earn_plugin', '{}'))
    except FileNotFoundError:
        raise UserError(f'{path} does not exist') from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f'{path} cannot be loaded: it is damaged, or not a safetensors file ({error})') from error
    return weights, description


def write_weights(path: Path, weights: Weights, description: dict[str, Any], nested: tuple[str, ...] = ()) -> None:
    """Write weights atomically, as safetensors if the path ends so, else with torch.save.

    Args:
        nested: keys of a torch file that each hold the weights; none for the weights alone.

    Raises:
        UserError: the file cannot be written.
    """
    # safetensors refuses tensors that share memory, and torch.save writes the complete storage of a view
    copies = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
    try:
        with atomic_file(path) as file:
            if path.suffix == '.safetensors':
                metadata = {'format': 'pt', 'earn_plugin': json.dumps(description)}
                file.write(save(copies, metadata if description else {'format': 'pt'}))
            else:
                torch.save(dict.fromkeys(nested, copies) | description if nested else copies, file)
    except (OSError, RuntimeError) as error:  # torch raises the latter for a full disk
        raise UserError(f'cannot write {path}: {error}') from error


def describe_network(label: str, opt: dict[str, Any]) -> dict[str, Any]:
    """The description of a network in its files: arch, all arguments (including the defaults), scale."""
    given = opt.get(label.replace('net_', 'network_'))
    if not given:
        return {}
    arguments = {key: value for key, value in given.items() if key != 'type'}
    parameters = inspect.signature(ARCH_REGISTRY.get(registered_name(given['type']))).parameters.values()
    defaults = {p.name: p.default for p in parameters if isinstance(p.default, DATA)}  # SwinIR's have classes
    return {'arch': given['type'], 'arguments': as_plain_data({**defaults, **arguments}), 'scale': opt.get('scale')}


def registered_name(arch: str) -> str:
    """The registry's key of a network: BasicSR's own may have a suffix."""
    return arch if arch in ARCH_REGISTRY else f'{arch}_basicsr'


def as_plain_data(value: Any) -> Any:
    """The value in types that a weights-only load accepts: NumPy scalars become Python's, other objects text."""
    if isinstance(value, dict):
        return {key: as_plain_data(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(as_plain_data(below) for below in value)
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, DATA) else str(value)


def load_torch_file(path: Path) -> dict[str, Any]:
    """A file written by torch.save, loaded on the CPU without executing code.

    Raises:
        UserError: missing, damaged, or with more than tensors and plain data.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise UserError(f'{path} does not exist') from None
    except Exception as error:  # torch may raise anything for damaged bytes
        if found := re.search(r'nsupported (?:global: )?GLOBAL (\S+)', str(error)):
            raise UserError(
                f'{path} is refused: it holds more than tensors and plain data ({found[1]}), and loading it could '
                'run code; save the weights alone with torch.save(network.state_dict(), …)'
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if 'weights_only' in reason:  # torch advises to run what is in the file
            reason = f'{type(error).__name__} in a weights-only load'
        raise UserError(f'{path} cannot be loaded: it is damaged, or not a checkpoint ({reason})') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} holds {type(content).__name__}, not a checkpoint')
    return content

"""Files of weights in all the forms in which they are passed around, read and written."""

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
NESTED = ('params_ema', 'params', 'state_dict', 'model')  # the average before what it is of
DESCRIPTION = ('arch', 'arguments', 'scale')
DATA = (bool, int, float, str, type(None), list, tuple, dict)


def read_weights(path: Path) -> tuple[Weights, dict[str, Any], str]:
    """The weights of a file on the CPU, what it says of itself (maybe nothing), and where in it they stood.

    Raises:
        UserError: missing, damaged, no file of weights, or one that would run code.
    """
    content: Any
    if path.suffix == '.safetensors':
        content, description = read_safetensors(path)
    else:
        content = load_torch_file(path)
        description = {key: content[key] for key in DESCRIPTION if key in content}
    if not is_description(description):  # others write an arch, too
        description = {}
    within = []
    while key := next((key for key in NESTED if isinstance(content.get(key), dict)), None):
        within.append(key)
        content = content[key]
    if not content or not all(isinstance(name, str) and isinstance(t, Tensor) for name, t in content.items()):
        odd = next((f'{name!r} is {type(t).__name__}' for name, t in content.items() if not isinstance(t, Tensor)), '')
        raise UserError(
            f'{path} holds no weights by name, neither itself nor in {", ".join(NESTED)} ({odd or "empty"})'
        )
    content = {name: tensor for name, tensor in content.items() if name != 'n_averaged'}  # torch's AveragedModel counts
    while content and all(name.startswith('module.') for name in content):  # saved from within DataParallel
        content = {name.removeprefix('module.'): tensor for name, tensor in content.items()}
    return content, description, '.'.join(within)


def is_description(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get('arch'), str) and isinstance(value.get('arguments'), dict)


def read_safetensors(path: Path) -> tuple[Weights, Any]:
    try:
        with safe_open(path, framework='pt') as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            description = json.loads((file.metadata() or {}).get('earn_plugin', '{}'))
    except FileNotFoundError:
        raise UserError(f'{path} does not exist') from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f'{path} cannot be loaded: it is damaged, or no safetensors file ({error})') from error
    return weights, description


def write_weights(path: Path, weights: Weights, description: dict[str, Any], nested: tuple[str, ...] = ()) -> None:
    """Write weights, as safetensors or as torch does, by the name's ending; the file is there whole or not at all.

    Args:
        nested: the keys under which a torch file has them, the same under each; none for the weights alone.

    Raises:
        UserError: the file cannot be written.
    """
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    try:
        with atomic_file(path) as file:
            if path.suffix == '.safetensors':
                metadata = {'format': 'pt', 'earn_plugin': json.dumps(description)}
                file.write(save(weights, metadata if description else {'format': 'pt'}))
            else:
                torch.save(dict.fromkeys(nested, weights) | description if nested else weights, file)
    except (OSError, RuntimeError) as error:  # torch makes the latter of a full disk
        raise UserError(f'cannot write {path}: {error}') from error


def describe_network(label: str, opt: dict[str, Any]) -> dict[str, Any]:
    """What a network file says of itself: arch, all arguments (those left to their defaults, too), scale."""
    given = opt.get(label.replace('net_', 'network_'))
    if not given:
        return {}
    arguments = {key: value for key, value in given.items() if key != 'type'}
    name = given['type'] if given['type'] in ARCH_REGISTRY else f'{given["type"]}_basicsr'
    parameters = inspect.signature(ARCH_REGISTRY.get(name)).parameters.values()
    defaults = {p.name: p.default for p in parameters if isinstance(p.default, DATA)}  # SwinIR's have classes
    return {'arch': given['type'], 'arguments': as_plain_data({**defaults, **arguments}), 'scale': opt.get('scale')}


def as_plain_data(value: Any) -> Any:
    """The value in types that a weights-only load takes: numpy's scalars become Python's, the rest text."""
    if isinstance(value, dict):
        return {key: as_plain_data(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(as_plain_data(below) for below in value)
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, DATA) else str(value)


def load_torch_file(path: Path) -> dict[str, Any]:
    """A file that torch.save wrote, on the CPU, with no code executed.

    Raises:
        UserError: missing, damaged, or holding more than data.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise UserError(f'{path} does not exist') from None
    except Exception as error:  # damage makes torch raise whatever the bytes suggest
        if found := re.search(r'nsupported (?:global: )?GLOBAL (\S+)', str(error)):
            raise UserError(
                f'{path} is refused: it holds more than tensors and plain data ({found[1]}), and loading that could '
                'run code; save the weights alone, with torch.save(network.state_dict(), …)'
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if 'weights_only' in reason:  # torch's advice to run what is in the file
            reason = f'{type(error).__name__} in a weights-only load'
        raise UserError(f'{path} cannot be loaded: it is damaged, or no checkpoint ({reason})') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} holds {type(content).__name__}, not a checkpoint')
    return content

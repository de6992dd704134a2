"""Files of weights in all the forms in which they are passed around, read and written."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from earn_plugin import checkpoint
from earn_plugin.errors import UserError
from earn_plugin.files import whole_file

Weights = dict[str, Tensor]
NESTED = ('params_ema', 'params', 'state_dict', 'model')  # the average before what it is of
DESCRIPTION = ('arch', 'arguments', 'scale')


def read(path: Path) -> tuple[Weights, dict[str, Any], str]:
    """The weights of a file on the CPU, what it says of itself (maybe nothing), and where in it they stood.

    Raises:
        UserError: missing, damaged, no file of weights, or one that would run code.
    """
    content: Any
    if path.suffix == '.safetensors':
        content, description = read_safetensors(path)
    else:
        content = checkpoint.load(path)
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


def write(path: Path, weights: Weights, description: dict[str, Any], nested: tuple[str, ...] = ()) -> None:
    """Write weights, as safetensors or as torch does, by the name's ending; the file is there whole or not at all.

    Args:
        nested: the keys under which a torch file has them, the same under each; none for the weights alone.

    Raises:
        UserError: the file cannot be written.
    """
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    try:
        with whole_file(path) as file:
            if path.suffix == '.safetensors':
                metadata = {'format': 'pt', 'earn_plugin': json.dumps(description)}
                file.write(save(weights, metadata if description else {'format': 'pt'}))
            else:
                torch.save(dict.fromkeys(nested, weights) | description if nested else weights, file)
    except (OSError, RuntimeError) as error:  # torch makes the latter of a full disk
        raise UserError(f'cannot write {path}: {error}') from error

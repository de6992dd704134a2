"""Files of weights, read in all their common forms and written atomically, with a description of their network."""

import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from earn_plugin.atomic_files import atomic_file
from earn_plugin.convert.seals import damage_of_archive, digest_of, seal_archive
from earn_plugin.errors import UserError
from earn_plugin.weights import absence, checkpoint_file

Weights = dict[str, Tensor]
NESTED = (
    'params_ema',
    'state_dict_ema',
    'model_ema',
    'ema',
    'params',
    'state_dict',
    'model',
    'net_g',
)  # averages first
DESCRIPTION = ('arch', 'arguments', 'scale')
MOST_KEYS = 6  # of a file that an error lists
DATA = (bool, int, float, str, type(None), list, tuple, dict)


def read_weights(path: Path) -> tuple[Weights, dict[str, Any], str]:
    """The weights of a file on the CPU, its description (empty if it has none), and the keys that they are nested in.

    Their names are those of the file; see ``possible_names``.

    Raises:
        UserError: missing, damaged, not a file of weights, or one that would run code.
    """
    content, description = read_file(path)
    weights, within = find_weights(path, content)
    return weights, description, within


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of a torch or safetensors file on the CPU, and its description, empty if it has none.

    Args:
        path: a file, or the name of an included network.

    Raises:
        UserError: missing, damaged, or one that would run code.
    """
    path = checkpoint_file(path)
    if path.suffix == '.safetensors':
        content, description = read_safetensors(path)
    else:
        content = load_torch_file(path)
        description = {key: content[key] for key in DESCRIPTION if key in content}
    return content, description if is_description(description) else {}  # other projects also write an arch


def find_weights(path: Path, content: dict[str, Any], remedy: str = 'save the weights alone') -> tuple[Weights, str]:
    """The weights in the content of a file, and the keys that they are nested in.

    Raises:
        UserError: there are none, or several under keys of which none is usual; ``remedy`` says what to do then.
    """
    within = _keys_of_weights(content)
    if within is None:
        if several := [str(key) for key, value in content.items() if is_weights(value)]:
            raise UserError(f'{path} holds weights under {", ".join(several)}; {remedy}')
        other = [f'{k!r} is {type(v).__name__}' for k, v in content.items() if not _is_weight(k, v)]
        keys = ', '.join(str(key) for key in list(content)[:MOST_KEYS])
        raise UserError(
            f'{path} holds no weights, neither itself nor in {", ".join(NESTED)} ({other[0] if other else "empty"}); '
            f'its keys are {keys or "none"}; {remedy}'
        )
    for key in within:
        content = content[key]
    weights = {name: value for name, value in content.items() if _is_weight(name, value)}
    return weights, '.'.join(map(str, within))


def _keys_of_weights(content: dict[str, Any]) -> list[Any] | None:
    """Where the weights are: under the first usual key, else under the only key with any, else next to other data."""
    if is_weights(content):
        return []
    for key in NESTED:
        if isinstance(content.get(key), dict) and (within := _keys_of_weights(content[key])) is not None:
            return [key, *within]
    if others := [key for key, value in content.items() if is_weights(value)]:
        return others if len(others) == 1 else None
    below = {key: _keys_of_weights(value) for key, value in content.items() if isinstance(value, dict)}
    if others := [[key, *within] for key, within in below.items() if within is not None]:
        return others[0] if len(others) == 1 else None
    return [] if any(_is_weight(*item) for item in content.items()) else None


def _is_weight(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def is_weights(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(_is_weight(*item) for item in value.items())


def possible_names(weights: Weights) -> list[Weights]:
    """The weights by the names that they may have in their network.

    These are without what wrappers add; their own; and without the attribute of the module that the network is in, as
    in Lightning's checkpoints, if that is the first part of all names or net_g.
    """
    bare = bare_names(weights)
    parts = {name.partition('.')[0] for name in bare}
    part = f'{parts.pop() if len(parts) == 1 else "net_g"}.'
    inner = {name.removeprefix(part): tensor for name, tensor in bare.items() if name.startswith(part)}
    return [bare, weights, *([bare_names(inner)] if inner else [])]


def bare_names(weights: Weights) -> Weights:
    """The weights without what DataParallel, torch.compile and AveragedModel add."""
    bare = {re.sub(r'(^|\.)_orig_mod\.', r'\1', n): t for n, t in weights.items() if n != 'n_averaged'}
    while bare and all(name.startswith('module.') for name in bare):
        bare = {name.removeprefix('module.'): tensor for name, tensor in bare.items()}
    return bare


def is_description(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get('arch'), str) and isinstance(value.get('arguments'), dict)


def read_safetensors(path: Path) -> tuple[Weights, Any]:
    try:
        with safe_open(path, framework='pt') as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
        digest = metadata.pop('sha256', None)
        if ('earn_plugin' in metadata) != (digest is not None):  # a flipped bit in a key must not hide it
            raise ValueError('its metadata has only one of earn_plugin and sha256')
        if digest is not None and digest != digest_of(weights, metadata):
            raise ValueError('its SHA-256 differs')
        description = json.loads(metadata.get('earn_plugin', '{}'))
    except FileNotFoundError:
        raise UserError(absence(path)) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f'{path} cannot be loaded: it is damaged, or not a safetensors file ({error})') from error
    return weights, description


def write_weights(path: Path, weights: Weights, description: dict[str, Any], nested: tuple[str, ...] = ()) -> None:
    """Write weights atomically, as safetensors if the path ends so, else with torch.save.

    Files with a description are sealed.

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
                metadata = {'format': 'pt'}
                if description:
                    metadata['earn_plugin'] = json.dumps(description)
                    metadata['sha256'] = digest_of(copies, metadata)
                file.write(save(copies, metadata))
            else:
                torch.save(dict.fromkeys(nested, copies) | description if nested else copies, file)
                if description:
                    seal_archive(file)
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
    """The registry's key of a network: where a project has its own of that name, BasicSR's or ours has a suffix."""
    names = (arch, f'{arch}_basicsr', arch.removesuffix('_basicsr'))
    if not any(name in ARCH_REGISTRY for name in names):
        import_module('basicsr')  # so far perhaps only its registry: see compat.registry_alone
    return next((name for name in names if name in ARCH_REGISTRY), names[1])


def published_name(arch: str) -> str:
    """The same for a network whose authors published checkpoints: ours or BasicSR's, even if a project has its own."""
    for package in ('earn_plugin', 'basicsr'):
        for name in (arch, f'{arch}_basicsr'):
            if name in ARCH_REGISTRY and ARCH_REGISTRY.get(name).__module__.partition('.')[0] == package:
                return name
    return registered_name(arch)


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
    """A file written by torch.save, verified and loaded on the CPU without executing code.

    Raises:
        UserError: missing, damaged, or with more than tensors and plain data.
    """
    try:
        with path.open('rb') as file:
            if damage := damage_of_archive(file):
                raise UserError(f'{path} cannot be loaded: it is damaged, or not a checkpoint ({damage})')
            file.seek(0)
            content = torch.load(file, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise UserError(absence(path)) from None
    except UserError:
        raise
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

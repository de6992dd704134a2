"""Builds a BasicSR model from completed options and reports what it cannot use in one sentence."""

import pickle
from pathlib import Path
from typing import Any

from basicsr.models import build_model
from basicsr.models.base_model import BaseModel

from earn_plugin.convert.weight_files import describe_network, is_description, load_torch_file
from earn_plugin.errors import UserError


def build_checked_model(opt: dict[str, Any]) -> BaseModel:
    """The model of the options; files to be loaded are compared with its networks first.

    Raises:
        UserError: the model cannot use an argument or a file.
    """
    check_pretrained(opt)
    try:
        return build_model(opt)
    except (ValueError, KeyError, AssertionError, RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
        raise UserError(f'the model {opt["model_type"]} cannot be built: {kind}{error}') from error


def check_pretrained(opt: dict[str, Any]) -> None:
    """Compare the metadata of the network files to be loaded with the networks of the options.

    Raises:
        UserError: a file is missing, damaged, or belongs to a different network.
    """
    for key, path in opt['path'].items():
        if not key.startswith('pretrain_network_') or path is None:
            continue
        label = key.removeprefix('pretrain_')
        if path.endswith('.safetensors'):
            raise UserError(f'path.{key}: BasicSR cannot read safetensors; first run basicsr convert {path} X.pth')
        content = load_torch_file(Path(path))
        wanted = describe_network(label.replace('network_', 'net_'), opt)
        if not is_description(content) or not wanted or not opt['path'].get(f'strict_load_{label[-1]}', True):
            continue
        has, asks = flatten(content['arguments']), flatten(wanted['arguments'])
        if content['arch'] != wanted['arch']:
            differing = [f'the file has {content["arch"]}, the options {wanted["arch"]}']
        else:
            differing = [
                f'{".".join(key)}: the file has {has[key]!r}, the options {asks[key]!r}'
                for key in sorted(has.keys() & asks.keys())
                if has[key] != asks[key]
            ]
        if differing:
            raise UserError(f'{path} belongs to a different {label}: {"; ".join(differing)}')


def flatten(opt: dict[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Place → value, for all that is not a mapping. Tuples become lists, as options files have them."""
    flat = {}
    for key, value in opt.items():
        if isinstance(value, dict):
            flat |= flatten(value, (*above, str(key)))
        else:
            flat[(*above, str(key))] = list(value) if isinstance(value, tuple) else value
    return flat

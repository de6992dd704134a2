"""Builds a BasicSR model from completed options and reports what it cannot use in one sentence."""

import pickle
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch import nn

from earn_plugin.convert.checkpoint_format import CheckpointFormat
from earn_plugin.convert.networks import MOST_NAMED, build, load_strictly, recognise
from earn_plugin.convert.weight_files import (
    Weights,
    describe_network,
    find_weights,
    is_weights,
    possible_names,
    read_file,
    registered_name,
)
from earn_plugin.errors import UsageError, UserError


def build_checked_model(opt: dict[str, Any]) -> BaseModel:
    """The model of the options; the files that it loads may have any common form.

    Raises:
        UserError: the model cannot use an argument or a file.
    """
    stock = BaseModel.load_network
    BaseModel.load_network = load_network
    try:
        return build_model(opt)
    except (ValueError, KeyError, AssertionError, RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
        is_usage = isinstance(error, ValueError | KeyError | AssertionError)  # what the options give; others: files
        raised = UsageError if is_usage else UserError
        raise raised(f'the model {opt["model_type"]} cannot be built: {kind}{error}') from error
    finally:
        BaseModel.load_network = stock


def load_network(
    model: BaseModel, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params'
) -> None:
    """In place of BaseModel's method: load a file of any form that ``load`` takes into a network of a model.

    Training may start from the same network of another scale: if the file's description differs in ``upscale`` alone,
    all weights that fit are loaded. The others keep their initial values; in a moving average, those of the network.

    Raises:
        UserError: the file is missing, damaged or belongs to a different network, its weights cannot be found, or they
            do not fit; if not ``strict``, none of them fits.
    """
    path, bare, logger = Path(load_path), model.get_bare_model(net), get_root_logger()
    attribute = next((name for name, value in vars(model).items() if value is net), 'net_g')
    label = attribute.removesuffix('_ema')
    content, description = read_file(path)
    wanted = describe_network(label, model.opt)
    is_other_scale = strict and differs_in_scale(path, label, description, wanted, is_allowed=model.is_train)
    weights, within = choose_weights(path, content, param_key, label, model.opt['path'])
    own = bare.state_dict()
    weights = max(possible_names(weights), key=lambda named: len(named.keys() & own.keys()))
    logger.info(f'loading {type(bare).__name__} from {path}' + (f' ({within})' if within else ''))
    fitting = [name for name, value in own.items() if name in weights and weights[name].shape == value.shape]
    official = recognise(weights)
    if official and len(fitting) < len(own) / 2:  # some authors' names are ours
        raise UserError(f'{path} is an official checkpoint of {official.title}; first run basicsr convert {path} X.pth')
    if strict:
        kind = CheckpointFormat()
        kind.title = type(bare).__name__
        # a file of another scale must be complete: then what does not fit is so because of the scale
        complete = build(path, description, [weights])[1] if is_other_scale else bare
        try:
            load_strictly(path, complete, weights, kind, {})
        except UserError as error:
            if description or not model.is_train:
                raise
            option = f'strict_load_{label.removeprefix("net_")}: false'
            raise UserError(f'{error}; to start with all that fit, set path: {option}') from error
    if strict and not is_other_scale:
        return
    if not fitting:
        raise UserError(
            f'{path} has no weight whose name and shape fit {type(bare).__name__}: its names begin with '
            f'{", ".join(list(weights)[:MOST_NAMED])}, those of the network with {", ".join(list(own)[:MOST_NAMED])}'
        )
    initial, unused = own.keys() - fitting, weights.keys() - fitting
    logger.warning(
        f'{path}: {len(fitting)} of the {len(own)} weights of {type(bare).__name__} fit and are loaded: '
        f'{by_prefix(fitting, own)}; initial values: {by_prefix(initial, own)}; unused: {by_prefix(unused, weights)}'
    )
    if attribute != label:
        own = model.get_bare_model(getattr(model, label, net)).state_dict()
    bare.load_state_dict({name: weights[name] if name in fitting else value for name, value in own.items()})


def by_prefix(names: Iterable[str], among: Iterable[str]) -> str:
    """How many names there are of each first part, and of how many: 'conv_first 2, upsample 2 of 4'."""
    counts, totals = (Counter(name.partition('.')[0] for name in some) for some in (names, among))
    parts = (f'{prefix} {counts[prefix]}' + f' of {n}' * (n > counts[prefix]) for prefix, n in totals.items())
    return ', '.join(part for prefix, part in zip(totals, parts, strict=True) if counts[prefix]) or 'none'


def choose_weights(
    path: Path, content: dict[str, Any], param_key: str | None, label: str, options: dict[str, Any]
) -> tuple[Weights, str]:
    """The weights that BasicSR would load, or else those that ``load`` would, and the keys that they are nested in.

    ``param_key`` is the key that a model asks for: ``path: param_key_g`` or params; params_ema for moving averages.
    """
    option = f'param_key_{label.removeprefix("net_")}'
    given = options.get(option, 'params')
    is_usual = given in ('params', 'params_ema')  # then any other form is taken, as BasicSR takes params for params_ema
    remedy = f'set path: {option}: KEY'
    for key in (param_key, given, *(('params', label) if is_usual else ())):
        if key is not None and isinstance(content.get(key), dict):
            weights, within = find_weights(path, content[key], remedy)
            return weights, '.'.join(filter(None, (key, within)))
    if not is_usual and not (given is None and is_weights(content)):
        keys = ', '.join(str(key) for key, value in content.items() if isinstance(value, dict))
        asked = 'weights without a key' if given is None else given
        has = f'it has {keys}: {remedy}' if keys else f'its weights have none: set path: {option}: ~'
        raise UsageError(f'{path} does not have what path: {option} asks for ({asked}); {has}')
    return find_weights(path, content, remedy)


def differs_in_scale(path: Path, label: str, found: dict[str, Any], wanted: dict[str, Any], is_allowed: bool) -> bool:
    """Compare the metadata of a network file with the network of the options; either may be empty.

    Returns:
        Whether they differ in ``upscale`` alone, if that ``is_allowed``.

    Raises:
        UserError: the file belongs to a different network.
    """
    if not found or not wanted:
        return False
    has, asks = flatten(found['arguments']), flatten(wanted['arguments'])
    if registered_name(found['arch']) != registered_name(wanted['arch']):
        differing = [f'the file has {found["arch"]}, the options {wanted["arch"]}']
    else:
        keys = [key for key in sorted(has.keys() & asks.keys()) if has[key] != asks[key]]
        if is_allowed and keys == [('upscale',)]:
            return True
        differing = [f'{".".join(key)}: the file has {has[key]!r}, the options {asks[key]!r}' for key in keys]
    if differing:
        network = label.replace('net_', 'network_')
        raise UserError(f'{path} belongs to a different {network}: {"; ".join(differing)}')
    return False


def flatten(opt: dict[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Place → value, for all that is not a mapping. Tuples become lists, as options files have them."""
    flat = {}
    for key, value in opt.items():
        if isinstance(value, dict):
            flat |= flatten(value, (*above, str(key)))
        else:
            flat[(*above, str(key))] = list(value) if isinstance(value, tuple) else value
    return flat

"""Writes checkpoints atomically: training states, and network files that describe themselves.

A training state, ``training_states/ITER.state``, is one file with all that ``resume`` needs: networks with their moving
averages, optimisers, schedulers, random number generators, position in the data, best metrics, options. A network file,
``models/net_g_ITER.pth``, is BasicSR's, plus the architecture, its arguments and the scale.
"""

import errno
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from torch import nn

from earn_plugin.atomic_files import atomic_file
from earn_plugin.convert.seals import seal_archive
from earn_plugin.convert.weight_files import as_plain_data, describe_network
from earn_plugin.errors import UserError
from earn_plugin.protocols import HasExtraState

Networks = dict[str, dict[str, nn.Module]]  # label → param key → network: {'net_g': {'params': …, 'params_ema': …}}


def networks_of(model: BaseModel) -> Networks:
    """Every network that a BasicSR model saves, found by intercepting its ``save``."""
    found: Networks = {}

    def record(nets, label, current_iter, param_key='params'):
        nets = nets if isinstance(nets, list) else [nets]
        keys = param_key if isinstance(param_key, list) else [param_key]
        found[label] = {key: model.get_bare_model(net) for key, net in zip(keys, nets, strict=True)}

    model.save_network = record
    model.save_training_state = lambda epoch, current_iter: None
    try:
        model.save(epoch=0, current_iter=0)
    finally:
        del model.save_network, model.save_training_state
    return found


def copy_to_cpu(value: Any) -> Any:
    """A copy that training does not change, with all tensors on the CPU; their strides are kept."""
    if isinstance(value, torch.Tensor):
        return value.detach().to('cpu', copy=True)
    if type(value) is dict:
        return {key: copy_to_cpu(below) for key, below in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(copy_to_cpu, value))
    return deepcopy(value)  # numbers, and classes of their own such as a scheduler's Counter


def weights_of(model: BaseModel) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    """Label → param key → copy of the state dict on the CPU."""
    return {
        label: {key: copy_to_cpu(dict(network.state_dict())) for key, network in by_key.items()}
        for label, by_key in networks_of(model).items()
    }


def save_networks(model: BaseModel, opt: dict[str, Any], name: str) -> None:
    """Write models/LABEL_NAME.pth for every network of the model, readable by stock BasicSR.

    Raises:
        UserError: a file cannot be written; earlier files are intact.
    """
    write_networks(weights_of(model), opt, name)


def write_networks(weights: dict[str, dict[str, dict[str, torch.Tensor]]], opt: dict[str, Any], name: str) -> None:
    for label, by_key in weights.items():
        contiguous = {key: {name: value.contiguous() for name, value in w.items()} for key, w in by_key.items()}
        save_file(Path(opt['path']['models'], f'{label}_{name}.pth'), contiguous | describe_network(label, opt))


def at_once(write: Callable[[], None]) -> None:
    write()


def save_state(
    model: BaseModel,
    opt: dict[str, Any],
    *,
    iteration: int,
    epoch: int,
    position: int,
    rngs: list[dict[str, Any]],
    validated_at: int = -1,
    with_networks: bool = False,
    run: Callable[[Callable[[], None]], None] = at_once,
) -> Path:
    """Write training_states/ITER.state and delete all but the latest ``logger: keep_states``.

    BasicSR counts iterations from 1, epochs from 0. ``position`` is the index of the stream's next sample; ``rngs`` has
    a state of the random number generators for each process; ``validated_at`` is the last iteration whose validation is
    in the best metrics; ``with_networks`` also writes the network files, before the state.

    The content is copied now, once for all files; ``run`` calls the function that writes them, now or later.

    Raises:
        UserError: by what ``run`` calls: a file cannot be written; earlier ones are intact.
    """
    content = {
        'epoch': epoch,
        'iter': iteration,
        'optimizers': [copy_to_cpu(optimizer.state_dict()) for optimizer in model.optimizers],
        'schedulers': [copy_to_cpu(scheduler.state_dict()) for scheduler in model.schedulers],
        'networks': weights_of(model),
        'rngs': rngs,
        'position': position,
        'validated_at': validated_at,
        'best_metric_results': as_plain_data(getattr(model, 'best_metric_results', {})),
        'options': as_plain_data(opt),
    }
    if isinstance(model, HasExtraState):
        content['extra_state'] = copy_to_cpu(model.extra_state())
    folder = Path(opt['path']['training_states'])
    path = folder / f'{iteration}.state'

    def write() -> None:
        try:
            if with_networks:
                write_networks(content['networks'], opt, str(iteration))
        finally:  # there may be space for one of them
            save_file(path, content)
        for old in states_in(folder)[opt['logger']['keep_states'] :]:
            if old != path:
                old.unlink()

    run(write)
    return path


def save_file(path: Path, content: dict[str, Any]) -> None:
    try:
        with atomic_file(path) as file:
            torch.save(content, file)
            seal_archive(file)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__ or error
        reason = str(error)
        if getattr(cause, 'errno', None) == errno.ENOSPC:
            reason = f'no space left ({shutil.disk_usage(path.parent).free / 2**20:.0f} MiB free)'
        raise UserError(
            f'cannot write {path}: {reason}. Earlier checkpoints are intact; free disk space, then --auto_resume'
        ) from error


def states_in(folder: Path) -> list[Path]:
    """The training states in a folder, latest first; other files are ignored."""
    found = [(int(m[1]), p) for p in folder.glob('*.state') if (m := re.fullmatch(r'(\d+)\.state', p.name))]
    return [path for _, path in sorted(found, reverse=True)]

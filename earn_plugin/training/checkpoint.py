"""Training states that hold everything and are always whole, and network files that describe themselves.

A state, ``training_states/ITER.state``, is one file: networks with their averages, optimisers, schedulers, random
number generators, position in the data, best metrics, options. A network file, ``models/net_g_ITER.pth``, is BasicSR's,
with the architecture, its arguments and the scale beside the weights.
"""

import errno
import re
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_time_str
from torch import nn

from earn_plugin.atomic_files import atomic_file
from earn_plugin.convert.weight_files import as_plain_data, describe_network, load_torch_file
from earn_plugin.errors import UserError

Networks = dict[str, dict[str, nn.Module]]  # label → param key → network: {'net_g': {'params': …, 'params_ema': …}}


def networks_of(model: BaseModel) -> Networks:
    """Every network that a BasicSR model saves, found by letting it save into this function."""
    found: Networks = {}

    def note(nets, label, current_iter, param_key='params'):
        nets = nets if isinstance(nets, list) else [nets]
        keys = param_key if isinstance(param_key, list) else [param_key]
        found[label] = {key: model.get_bare_model(net) for key, net in zip(keys, nets, strict=True)}

    model.save_network = note
    model.save_training_state = lambda epoch, current_iter: None
    try:
        model.save(epoch=0, current_iter=0)
    finally:
        del model.save_network, model.save_training_state
    return found


def on_cpu(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu() for key, value in network.state_dict().items()}


def save_networks(model: BaseModel, opt: dict[str, Any], name: str) -> None:
    """Write models/LABEL_NAME.pth for every network of the model; stock BasicSR reads them, too.

    Raises:
        UserError: they could not be written; what was there before is still there.
    """
    for label, by_key in networks_of(model).items():
        content = {key: on_cpu(network) for key, network in by_key.items()} | describe_network(label, opt)
        write(Path(opt['path']['models']) / f'{label}_{name}.pth', content)


def save_state(model: BaseModel, opt: dict[str, Any], iteration: int, epoch: int, position: int, rngs: list) -> Path:
    """Write training_states/ITER.state and remove all but the newest ``logger: keep_states``.

    Args:
        model: after ``iteration`` iterations.
        opt: the completed options.
        iteration, epoch: as BasicSR counts them.
        position: the first sample of the stream that was not used.
        rngs: the generators' states, one for each process.

    Raises:
        UserError: it could not be written; the states before it are still there.
    """
    content = {
        'epoch': epoch,
        'iter': iteration,
        'optimizers': [optimizer.state_dict() for optimizer in model.optimizers],
        'schedulers': [scheduler.state_dict() for scheduler in model.schedulers],
        'networks': {
            label: {key: on_cpu(network) for key, network in by_key.items()}
            for label, by_key in networks_of(model).items()
        },
        'rngs': rngs,
        'position': position,
        'best_metric_results': as_plain_data(getattr(model, 'best_metric_results', {})),
        'options': as_plain_data(opt),
    }
    folder = Path(opt['path']['training_states'])
    path = folder / f'{iteration}.state'
    write(path, content)
    for old in states_in(folder)[opt['logger']['keep_states'] :]:
        if old != path:
            old.unlink()
    return path


def write(path: Path, content: dict[str, Any]) -> None:
    try:
        with atomic_file(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        free = shutil.disk_usage(path.parent).free
        cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__ or error
        full = getattr(cause, 'errno', None) == errno.ENOSPC
        what = f'no space left ({free / 2**20:.0f} MiB free)' if full else str(error)
        raise UserError(
            f'cannot write {path}: {what}. The files saved before are whole; make room, and go on with --auto_resume'
        ) from error


def states_in(folder: Path) -> list[Path]:
    """The states in a folder, newest first; other files are left alone."""
    found = [(int(m[1]), p) for p in folder.glob('*.state') if (m := re.fullmatch(r'(\d+)\.state', p.name))]
    return [path for _, path in sorted(found, reverse=True)]


def load_state(path: Path) -> dict[str, Any]:
    """A state, every byte of which is as it was written: torch itself does not look at the archive's checksums.

    Raises:
        UserError: missing, damaged, holding more than data, or no state.
    """
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except Exception as error:  # zipfile has no list of what damage makes it raise
            damaged = f'{type(error).__name__}: {error}'
        if damaged:
            raise UserError(f'{path} cannot be loaded: it is damaged ({damaged})')
    state = load_torch_file(path)
    if missing := [key for key in ('iter', 'optimizers', 'schedulers') if key not in state]:
        raise UserError(f'{path} is no training state: it has no {missing[0]}')
    return state


def latest_valid_state(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest state that can be loaded, None if there is no state at all; and notes of those skipped.

    Raises:
        UserError: there are states, and none can be loaded.
    """
    notes = []
    states = states_in(folder)
    for path in states:
        try:
            return load_state(path), [*notes, f'resuming from {path}']
        except UserError as error:
            notes.append(f'skipped a broken state: {error}')
    if states:
        raise UserError(
            f'none of the {len(states)} states in {folder} can be loaded; move them away to start anew, or set '
            'path: pretrain_network_g to the newest network file beside them'
        )
    return None, notes


def check_same_networks(state: dict[str, Any], opt: dict[str, Any]) -> list[str]:
    """Compare the options that a state was saved with to those it is resumed with.

    Returns:
        Notes of other differences, which the resumed run then has.

    Raises:
        UserError: the networks differ.
    """
    saved = state.get('options')
    if saved is None:
        return []
    before, now = _flat(saved), _flat(opt)
    differing = _differing(saved, opt)
    networks = sorted(key for key in differing if key[0].startswith('network_') or key[0] == 'scale')
    if networks:
        listed = ', '.join(f'{".".join(key)}: {before.get(key)!r} → {now.get(key)!r}' for key in networks)
        raise UserError(
            f'the state of iteration {state["iter"]} is of another network ({listed}); resume with the options it was '
            'saved with, or give the new network a name of its own'
        )
    places = ('train', 'datasets', 'model_type', 'manual_seed', 'world_size')
    unlike = sorted(key for key in differing if key[0] in places and 'num_worker_per_gpu' not in key)
    return [
        f'resumed with another {".".join(key)}: {before.get(key)!r} → {now.get(key)!r}'
        for key in unlike
        if key != ('train', 'total_iter')
    ]


def _differing(saved: dict[str, Any], opt: dict[str, Any]) -> set[tuple[str, ...]]:
    before, now = _flat(saved), _flat(opt)
    return {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}


def _flat(opt: dict[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    flat = {}
    for key, value in opt.items():
        if isinstance(value, dict):
            flat |= _flat(value, (*above, str(key)))
        else:
            flat[(*above, str(key))] = list(value) if isinstance(value, tuple) else value
    return flat


def restore(model: BaseModel, state: dict[str, Any], opt: dict[str, Any]) -> None:
    """Put a state's networks, optimisers, schedulers and best metrics into a model.

    Where the options have other optimisers or another schedule than the state's, they hold from here on: the learning
    rate is what they give at this iteration.

    Raises:
        UserError: they do not fit the model.
    """
    try:
        for label, by_key in networks_of(model).items():
            for key, network in by_key.items():
                network.load_state_dict(state['networks'][label][key])
        if any(_is_of_schedule(key) for key in _differing(state['options'], opt)):
            state = {**state, **replayed(model, state)}
        model.resume_training(state)
    except (KeyError, RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f'the state of iteration {state["iter"]} does not fit this model: {error}') from error
    best = state['best_metric_results']
    if (opt.get('val') or {}).get('metrics'):  # which may be others now
        for dataset in best:
            model._initialize_best_metric_results(dataset)
            best[dataset] = model.best_metric_results[dataset] | best[dataset]
    if best:
        model.best_metric_results = best


def _is_of_schedule(key: tuple[str, ...]) -> bool:
    return key[0] == 'train' and key[1].startswith(('optim_', 'scheduler', 'warmup_iter'))


def replayed(model: BaseModel, state: dict[str, Any]) -> dict[str, list]:
    """The state's optimisers and schedulers with the hyperparameters that the model's options give it by then."""
    warmup = model.opt['train'].get('warmup_iter', -1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch misses the optimiser's steps between the scheduler's
        for iteration in range(1, state['iter'] + 1):
            model.update_learning_rate(iteration, warmup)
    optimizers = [
        {**optimizer.state_dict(), 'state': saved['state']}
        for optimizer, saved in zip(model.optimizers, state['optimizers'], strict=True)
    ]
    return {'optimizers': optimizers, 'schedulers': [scheduler.state_dict() for scheduler in model.schedulers]}


def rename_newer_states(folder: Path, iteration: int) -> list[str]:
    """Rename the states after an iteration that training goes back to; they are of another course. Returns notes."""
    aside = [path for path in states_in(folder) if int(path.stem) > iteration]
    for path in aside:
        path.rename(path.with_name(f'{path.name}_{get_time_str()}'))
    return [f'going back to iteration {iteration}: {path} is renamed, and not resumed from again' for path in aside]

"""Resumes training bit for bit from a training state that ``checkpoint`` wrote, or from one of stock BasicSR."""

from copy import deepcopy
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import check_resume, get_time_str
from torch import Tensor
from torch.optim import Optimizer

from earn_plugin import rng
from earn_plugin.convert.weight_files import load_torch_file
from earn_plugin.errors import UserError
from earn_plugin.protocols import HasExtraState
from earn_plugin.training.checkpoint import networks_of, states_in
from earn_plugin.training.model import build_checked_model, flatten

State = dict[str, Any]


def find_state(opt: dict[str, Any]) -> tuple[State | None, list[str]]:
    """The state to resume from, None to start from the beginning; and warnings.

    With --auto_resume, it is the latest of the run that can be loaded; else, or if the run has no states yet, it is
    ``path: resume_state``.

    Raises:
        UserError: the states exist, but none can be loaded.
    """
    warnings = []
    folder = Path(opt['path']['training_states'])
    states = states_in(folder) if opt['auto_resume'] else []
    for path in states:
        try:
            return load_state(path), [*warnings, f'resuming from {path}']
        except UserError as error:
            warnings.append(f'skipped an invalid state: {error}')
    if states:
        raise UserError(
            f'none of the {len(states)} states in {folder} can be loaded; move them away to start again, or set '
            'path: pretrain_network_g to the latest network file in models'
        )
    path = opt['path'].get('resume_state')
    return (load_state(Path(path)), [f'resuming from {path}']) if path else (None, [])


def load_state(path: Path) -> State:
    """Load a state, verified.

    Raises:
        UserError: the file is missing, damaged, holds more than data, or is not a training state.
    """
    state = load_torch_file(path)
    if missing := [key for key in ('iter', 'optimizers', 'schedulers') if key not in state]:
        raise UserError(f'{path} is not a training state: it has no {missing[0]}')
    return state


def check_resumed_options(state: State, opt: dict[str, Any]) -> list[str]:
    """Compare the options of a state with those it is resumed with.

    Returns:
        Warnings: differences that the resumed training has from here on.

    Raises:
        UserError: the networks differ, or which of their parameters are trained.
    """
    if 'options' not in state:
        return []
    changes = _changes(state['options'], opt)
    texts = {key: f'{".".join(key)}: {before!r} → {now!r}' for key, (before, now) in changes.items()}
    if networks := [text for key, text in texts.items() if key[0].startswith('network_') or key[0] == 'scale']:
        raise UserError(
            f'the state of iteration {state["iter"]} belongs to a different network ({", ".join(networks)}); resume '
            'with the options it was saved with, or choose a new name for the new network'
        )
    if any(changes.get(('train', 'freeze'), ())):  # none and an empty list are alike
        raise UserError(
            f'the optimiser of iteration {state["iter"]} has other parameters ({texts["train", "freeze"]}); resume '
            'with the same, or start a run of a new name from the network: path: pretrain_network_g'
        )
    sections = ('train', 'datasets', 'model_type', 'manual_seed', 'world_size', 'deterministic')
    return [
        f'resumed with a different {text}'
        for key, text in texts.items()
        if key[0] in sections and 'num_worker_per_gpu' not in key and key != ('train', 'total_iter')
    ]


def _changes(saved: dict[str, Any], opt: dict[str, Any]) -> dict[tuple[str, ...], tuple[Any, Any]]:
    """Place → values before and now, where they differ, sorted."""
    before, now = flatten(saved), flatten(opt)
    pairs = {key: (before.get(key), now.get(key)) for key in sorted(before.keys() | now.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def build_resumed_model(state: State, opt: dict[str, Any]) -> BaseModel:
    """The model as the state saved it; also sets this process's random number generators."""
    resumed = deepcopy(opt)
    if 'networks' in state:
        resumed['path'] = {k: None if k.startswith('pretrain_network') else v for k, v in opt['path'].items()}
        model = build_checked_model(resumed)
        restore(model, state, opt)
        rng.set_state(state['rngs'][opt['rank'] % len(state['rngs'])])
    else:  # a state of stock BasicSR, whose networks are in separate files
        resumed['path']['resume_state'] = opt['path'].get('resume_state') or 'auto'
        check_resume(resumed, state['iter'])
        model = build_checked_model(resumed)
        model.resume_training(state)
    return model


def restore(model: BaseModel, state: State, opt: dict[str, Any]) -> None:
    """Load a state's networks, optimisers, schedulers and best metrics into a model.

    If the options have other optimisers or another schedule than the state, those of the options hold from here on: the
    learning rate is what they give at this iteration.

    Raises:
        UserError: the state does not fit the model.
    """
    try:
        for label, by_key in networks_of(model).items():
            for key, network in by_key.items():
                saved = state['networks'][label]
                network.load_state_dict(saved['params' if key == 'params_ema' and key not in saved else key])
        schedule = ('optim_', 'scheduler', 'warmup_iter')
        if any(key[0] == 'train' and key[1].startswith(schedule) for key in _changes(state['options'], opt)):
            state = {**state, **_replay_schedule(model, state)}
        model.resume_training(state)
        for optimizer in model.optimizers:
            adapt_layouts(optimizer)
        if isinstance(model, HasExtraState) and 'extra_state' in state:
            model.load_extra_state(state['extra_state'])
    except (KeyError, RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f'the state of iteration {state["iter"]} does not fit this model: {error}') from error
    best = state['best_metric_results']
    if (opt.get('val') or {}).get('metrics'):  # some may be new
        for dataset in best:
            model._initialize_best_metric_results(dataset)
            best[dataset] = model.best_metric_results[dataset] | best[dataset]
    if best:
        model.best_metric_results = best


def adapt_layouts(optimizer: Optimizer) -> None:
    """Give an optimiser's tensors the strides of their parameters: fused kernels read both in the order of memory."""
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _replay_schedule(model: BaseModel, state: State) -> dict[str, list]:
    """The state's optimisers and schedulers with the hyperparameters of the model's options at this iteration."""
    warmup = model.opt['train'].get('warmup_iter', -1)
    with catch_warnings():
        simplefilter('ignore')  # torch warns that the scheduler steps without the optimiser
        for iteration in range(1, state['iter'] + 1):
            model.update_learning_rate(iteration, warmup)
    optimizers = [
        {**optimizer.state_dict(), 'state': saved['state']}
        for optimizer, saved in zip(model.optimizers, state['optimizers'], strict=True)
    ]
    return {'optimizers': optimizers, 'schedulers': [scheduler.state_dict() for scheduler in model.schedulers]}


def rename_newer_states(folder: Path, iteration: int) -> list[str]:
    """Rename the states after an iteration that training returns to, so that none is resumed. Returns warnings."""
    newer = [path for path in states_in(folder) if int(path.stem) > iteration]
    for path in newer:
        path.rename(path.with_name(f'{path.name}_{get_time_str()}'))
    return [f'returning to iteration {iteration}: renamed {path}, which is not resumed from again' for path in newer]

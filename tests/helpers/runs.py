"""A model and its steps; training states and logs: written, read back and compared."""

import copy
import re
from pathlib import Path

import torch
from basicsr.models import build_model

from earn_plugin import rng
from earn_plugin.training import checkpoint


def build(opt: dict, **train):
    """A model with changed options of training; its weights are always the same."""
    opt = copy.deepcopy(opt)
    opt['train'].update(train)
    torch.manual_seed(0)
    return build_model(opt)


def batch(seed: int = 0, shape: tuple[int, ...] = (2, 3, 16, 16)) -> dict[str, torch.Tensor]:
    """Random images ×2."""
    generator = torch.Generator().manual_seed(seed)
    lq = torch.rand(shape, generator=generator)
    return {'lq': lq, 'gt': torch.rand(*shape[:2], shape[2] * 2, shape[3] * 2, generator=generator)}


def step(model, iteration: int = 1, data: dict | None = None) -> None:
    model.update_learning_rate(iteration)
    model.feed_data(data or batch())
    model.optimize_parameters(iteration)


def save_state(model, opt: dict, iteration: int = 2) -> Path:
    """A training state of batches of 2."""
    rngs = [rng.get_state()]
    return checkpoint.save_state(model, opt, iteration=iteration, epoch=0, position=2 * iteration, rngs=rngs)


def state_of(folder: Path, iteration: int, name: str = 'tiny') -> dict:
    return torch.load(folder / f'experiments/{name}/training_states/{iteration}.state', weights_only=True)


def same(a, b) -> bool:
    """Whether nested values are equal, tensors bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def losses(folder: Path, name: str = 'tiny') -> dict[int, str]:
    """Iteration → learning rate and losses, from the log files."""
    found = {}
    for log in sorted((folder / f'experiments/{name}').glob('train_*.log')):
        for line in log.read_text().splitlines():
            match = re.search(r'iter: *([\d,]+), (lr:\(.*?\))\].*?\] (\w+: .*)', line)
            if match:
                found[int(match[1].replace(',', ''))] = f'{match[2]} {match[3]}'
    return found


def validations(folder: Path) -> list[str]:
    lines = [
        line.partition('INFO: ')[2]
        for log in sorted((folder / 'experiments/tiny').glob('train_*.log'))
        for line in log.read_text().splitlines()
        if 'bicubic' in line
    ]
    return sorted(set(lines))

"""Training states and logs: written, read back and compared."""

import re
from pathlib import Path

import torch

from earn_plugin import rng
from earn_plugin.training import checkpoint


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

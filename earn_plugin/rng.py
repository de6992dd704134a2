"""Saves, restores and seeds all random number generators that training uses: Python's, numpy's and torch's."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def get_state() -> dict[str, Any]:
    """The states of all generators, as tensors and plain values only, so that a weights-only load accepts them."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        'python': random.getstate(),
        'numpy': (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state_all()
    return state


def set_state(state: dict[str, Any]) -> None:
    random.setstate(state['python'])
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state['cuda'][: torch.cuda.device_count()])


@contextmanager
def preserved() -> Iterator[None]:
    """Restore all generators afterwards."""
    state = get_state()
    try:
        yield
    finally:
        set_state(state)


def seed(*key: int) -> None:
    """Seed Python's, numpy's and torch's CPU generator with integers."""
    random.seed(' '.join(map(str, key)))  # hashes the text, faster than numpy's SeedSequence
    np.random.seed(random.getrandbits(32))
    torch.default_generator.manual_seed(random.getrandbits(64))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the generators and restore them afterwards."""
    with preserved():
        seed(*key)
        yield

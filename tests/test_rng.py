import random

import numpy as np
import torch

from earn_plugin import rng


def draw():
    return random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist(), random.gauss(0, 1), np.random.randn()


def test_a_state_survives_a_weights_only_load(tmp_path):
    draw()
    torch.save(rng.get_state(), tmp_path / 'state')
    expected = draw()
    draw()
    rng.set_state(torch.load(tmp_path / 'state', weights_only=True))
    assert draw() == expected


def test_preserved_restores_even_after_an_exception():
    state = rng.get_state()
    expected = draw()
    rng.set_state(state)
    try:
        with rng.preserved():
            draw()
            raise KeyError
    except KeyError:
        pass
    assert draw() == expected


def test_seeded_depends_on_the_key_and_restores():
    state = rng.get_state()
    expected = draw()
    rng.set_state(state)
    seen = []
    for key in ((1, 2), (1, 3), (2, 2), (1, 2), (-1, 2**70)):
        with rng.seeded(*key):
            seen.append(draw())
    assert seen[0] == seen[3]
    assert len({str(s) for s in seen}) == 4
    assert draw() == expected

"""Fixtures: a tiny model after two iterations, and the basicsr command in this process, which starts faster."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.helpers.command import command_here
from tests.helpers.options import completed
from tests.helpers.runs import build, step


@pytest.fixture
def opt(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return completed(tmp_path, tiny)


@pytest.fixture
def model(opt):
    model = build(opt)
    for iteration in (1, 2):
        step(model, iteration)
    model.best_metric_results = {'held_out': {'psnr': {'better': 'higher', 'val': np.float64(3.5), 'iter': 1}}}
    return model


@pytest.fixture
def run_here(capsys, monkeypatch) -> Callable[..., str]:
    """``command`` in this process."""

    def run(*arguments, cwd, expect=0) -> str:
        monkeypatch.chdir(cwd)
        return command_here(*arguments, capsys=capsys, expect=expect)

    return run

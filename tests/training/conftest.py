"""Fixtures: a tiny model after two iterations, and the basicsr command in this process, which starts faster."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from basicsr.models import build_model

from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.options_file import read_options
from tests.helpers.command import command_here
from tests.helpers.options import write_options
from tests.models.test_earn_model import step


@pytest.fixture
def opt(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return fill_defaults(read_options(write_options(tmp_path, tiny)), is_train=True)


@pytest.fixture
def model(opt):
    torch.manual_seed(0)
    model = build_model(opt)
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

"""Writes checkpoints, and what loading them says."""

from pathlib import Path

import pytest
import torch

from earn_plugin.convert import load
from earn_plugin.errors import UserError


def write(path: Path, weights: dict) -> Path:
    torch.save({name: tensor.float() for name, tensor in weights.items()}, path)
    return path


def message_of(tmp_path: Path, weights: dict, **arguments) -> str:
    torch.save(weights, tmp_path / 'x.pth')
    with pytest.raises(UserError) as error:
        load(tmp_path / 'x.pth', **arguments)
    assert str(error.value).startswith(str(tmp_path / 'x.pth')) or arguments
    return str(error.value)

"""The golden cases: what the original networks give, in float64."""

import json
import zlib

import numpy as np
import torch

from tests.helpers.places import GOLDEN


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    return ((output - expected).abs().max() / expected.abs().max()).item()


class Golden:
    """Reference input and output of an original network, and its weights under the authors' names, in float64."""

    def __init__(self, name: str):
        described = json.loads((GOLDEN / f'{name}.json').read_text())
        arrays = np.load(GOLDEN / f'{name}.npz')
        self.input_range = described['input_range']
        self.input = torch.from_numpy(arrays['input']).double()
        self.output = torch.from_numpy(arrays['output'])
        skipped = tuple(described['not_filled'])
        self.weights = {
            key: self.fill(key, shape)
            for key, shape in described['keys'].items()
            if not (skipped and key.startswith(skipped))
        }

    @staticmethod
    def fill(key: str, shape: list[int]) -> torch.Tensor:
        values = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
        fan_in = np.prod(shape[1:]) if len(shape) >= 2 else 1
        values = values / np.sqrt(fan_in) if fan_in > 1 else values * 0.1
        return torch.from_numpy(values.astype(np.float32)).double()

    def error(self, output: torch.Tensor) -> float:
        return relative_error(output, self.output)

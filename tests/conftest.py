"""Shared by the tests: golden cases, tiny data sets on disk, options of a tiny network, the command in a process."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # the tests themselves run side by side; read when torch is imported

import copy
import json
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

import earn_plugin  # noqa: F401  (before basicsr, as users are told)

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / 'golden'
SHARED = ROOT.parent / 'shared'


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Benchmark images that cannot be in the repository."""
    if not (SHARED / 'data').is_dir():
        pytest.skip('the benchmark images are not on this machine')
    return SHARED / 'data'


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
        return ((output - self.output).abs().max() / self.output.abs().max()).item()


@pytest.fixture
def golden():
    return Golden


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """H×W×3 uint8 with edges and gradients; another for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(2, 20) + y / rng.uniform(2, 20) + rng.uniform(0, 6)) for _ in range(3)]
    image = 128 + 60 * np.stack(waves, -1) + 40 * (x + y > rng.uniform(20, 60))[..., None]
    return image.clip(0, 255).astype(np.uint8)


def write_pairs(root: Path, count: int, scale: int = 2, size: tuple[int, int] = (24, 28)) -> Path:
    """root/HR and root/LR with images of scale·size and size."""
    from earn_plugin.data.bicubic import imresize

    for folder in ('HR', 'LR'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = photograph(size[0] * scale, size[1] * scale, index)
        cv2.imwrite(str(root / f'HR/im{index:02d}.png'), image)
        cv2.imwrite(str(root / f'LR/im{index:02d}.png'), imresize(image, Fraction(1, scale)))
    return root


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Six pairs ×2, as folders and as LMDBs (HR.lmdb, LR.lmdb)."""
    from earn_plugin.data.prepare import make_lmdb

    root = write_pairs(tmp_path / 'data', 6)
    for folder in ('HR', 'LR'):
        make_lmdb(root / folder, root / f'{folder}.lmdb')
    return root


TINY = {
    'name': 'tiny',
    'model_type': 'EARNModel',
    'scale': 2,
    'num_gpu': 0,
    'manual_seed': 3,
    'datasets': {
        'train': {
            'name': 'train',
            'type': 'PairedImageDataset',
            'io_backend': {'type': 'lmdb'},
            'gt_size': 32,
            'use_hflip': True,
            'use_rot': True,
            'num_worker_per_gpu': 0,
            'batch_size_per_gpu': 2,
        },
        'val': {'name': 'held_out', 'type': 'PairedImageDataset', 'io_backend': {'type': 'lmdb'}},
    },
    'network_g': {'type': 'EARN', 'num_feat': 16, 'num_block': 1, 'upscale': 2},
    'path': {},
    'train': {
        'ema_decay': 0.9,
        'optim_g': {'type': 'Adam', 'lr': 1e-3},
        'scheduler': {'type': 'MultiStepLR', 'milestones': [4, 8], 'gamma': 0.5},
        'total_iter': 6,
        'losses': {'pix': {'type': 'L1Loss'}, 'ssim': {'type': 'SSIMLoss', 'loss_weight': 0.5}},
    },
    'val': {
        'val_freq': 3,
        'save_img': False,
        'metrics': {
            'psnr': {'type': 'calculate_psnr', 'crop_border': 2, 'test_y_channel': True},
            'ssim': {'type': 'calculate_ssim', 'crop_border': 2, 'test_y_channel': True},
        },
    },
    'logger': {'print_freq': 1, 'save_checkpoint_freq': 3, 'use_tb_logger': False},
}


@pytest.fixture
def tiny(pairs: Path) -> dict[str, Any]:
    """Options that train a tiny EARN ×2 on ``pairs``; the same LMDB serves training and validation."""
    options = copy.deepcopy(TINY)
    for dataset in options['datasets'].values():
        dataset.update(dataroot_gt=str(pairs / 'HR.lmdb'), dataroot_lq=str(pairs / 'LR.lmdb'))
    return options


def write_options(folder: Path, options: dict[str, Any], name: str = 'options.yml') -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path


def start(*arguments: str | Path, cwd: Path, **keywords: Any) -> subprocess.Popen:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, '-m', 'earn_plugin', *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **keywords,
    )


def command(*arguments: str | Path, cwd: Path, expect: int = 0, timeout: float = 300) -> str:
    """Run the command to its end; returns what it printed."""
    process = start(*arguments, cwd=cwd)
    output = process.communicate(timeout=timeout)[0]
    assert process.returncode == expect, output
    assert 'Traceback' not in output, output
    return output


def command_here(*arguments: str | Path, capsys: pytest.CaptureFixture, expect: int = 0) -> str:
    """The same in this process and its working directory, without the seconds that a new one takes to import torch."""
    from earn_plugin.cli import main

    capsys.readouterr()
    assert main([*map(str, arguments)]) == expect
    printed = capsys.readouterr()
    return printed.out + printed.err

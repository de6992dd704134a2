"""The options of a tiny network, options files, and options as training reads them."""

from pathlib import Path
from typing import Any

import yaml

from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.options_file import read_options

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


def completed(folder: Path, options: dict[str, Any], is_train: bool = True, **settings: Any) -> dict[str, Any]:
    """The options as training reads them, from a file."""
    return fill_defaults(read_options(write_options(folder, options)), is_train, **settings)


def write_options(folder: Path, options: dict[str, Any], name: str = 'options.yml') -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path

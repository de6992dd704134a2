"""Fills in what BasicSR derives from an options file before it starts: phases, paths, devices, default values."""

from itertools import count
from pathlib import Path
from typing import Any

import torch

from earn_plugin.options.options_file import Options
from earn_plugin.options.valid_values import OPTIONS

LOGGER = {'print_freq': 100, 'save_checkpoint_freq': 5000, 'use_tb_logger': False, 'keep_states': 3}


def fill_defaults(
    options: Options,
    is_train: bool,
    *,
    auto_resume: bool = False,
    debug: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, Any]:
    """The options as BasicSR's models and data sets expect them, with paths under the working directory.

    Changes the given options. Those missing or ~ get BasicSR's usual values. Without CUDA, everything runs on the CPU
    whatever num_gpu is. With ``debug``, every iteration is logged and every eighth saved and validated.
    """
    opt: dict[str, Any] = options.data
    opt.update(is_train=is_train, auto_resume=auto_resume, root_path=str(Path.cwd()))
    opt.update(dist=world_size > 1, rank=rank, world_size=world_size)
    if debug and not opt['name'].startswith('debug'):
        opt['name'] = f'debug_{opt["name"]}'
    if opt.get('num_gpu', 'auto') == 'auto' or not torch.cuda.is_available():
        opt['num_gpu'] = torch.cuda.device_count() if torch.cuda.is_available() else 0
    opt.setdefault('manual_seed', None)

    for section in ('train', 'val', 'logger'):
        if opt.get(section) is not None:  # ~ stands for the default
            opt[section] = {key: value for key, value in opt[section].items() if value is not None}
    fill_dataset_defaults(opt)
    path = opt['path'] = opt.get('path') or {}
    for key, value in path.items():
        if value is not None and ('resume_state' in key or 'pretrain_network' in key):
            path[key] = str(Path(value).expanduser())
    root = Path.cwd() / ('experiments' if is_train else 'results') / opt['name']
    path['experiments_root' if is_train else 'results_root'] = str(root)
    path['log'] = str(root)
    path['visualization'] = str(root / 'visualization')

    has_val = opt.get('val') is not None
    if has_val or not is_train:
        opt['val'] = {'save_img': False, 'suffix': None, **(opt.get('val') or {})}
    if is_train:
        path['models'] = str(root / 'models')
        path['training_states'] = str(root / 'training_states')
        opt['train']['total_iter'] = int(opt['train']['total_iter'])
        opt['logger'] = LOGGER | (opt.get('logger') or {})
        if has_val:
            opt['val'].setdefault('val_freq', opt['logger']['save_checkpoint_freq'])
        if 'debug' in opt['name']:
            opt['logger'].update(print_freq=1, save_checkpoint_freq=8)
            if has_val:
                opt['val']['val_freq'] = 8
    return opt


def fill_dataset_defaults(opt: dict[str, Any]) -> list[dict[str, Any]]:
    """Set phase and scale of each data set; returns the data sets that are not left out with ~."""
    opt['datasets'] = {phase: dataset for phase, dataset in opt['datasets'].items() if dataset is not None}
    for phase, (name, _) in distinct_names(opt['datasets']).items():
        opt['datasets'][phase]['name'] = name
    pixels = smallest_image((opt.get('val') or {}).get('metrics') or {})
    for phase, dataset in opt['datasets'].items():
        for key in [key for key in dataset.keys() & OPTIONS if dataset[key] is None]:
            del dataset[key]  # ~ stands for the default
        dataset['phase'] = phase.partition('_')[0]
        if dataset['phase'] != 'train' and pixels > 1:
            dataset['smallest'] = pixels
        if dataset.get('part') == 'val' and 'gt_size' in opt['datasets'].get('train', {}):
            dataset['gt_size'] = opt['datasets']['train']['gt_size']  # both are parts of the images of this size
        if opt.get('scale') is not None:
            dataset['scale'] = opt['scale']
        for key in ('dataroot_gt', 'dataroot_lq'):
            if dataset.get(key) is not None:
                dataset[key] = str(Path(dataset[key]).expanduser())
    return list(opt['datasets'].values())


def distinct_names(datasets: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Names for the validation sets whose name an earlier one has: phase → (new name, the earlier one's phase).

    Results, best metrics and images are stored under the name. Names that differ only in case are not distinct.
    """
    names = {
        phase: dataset['name']
        for phase, dataset in datasets.items()
        if isinstance(dataset, dict) and isinstance(dataset.get('name'), str) and not str(phase).startswith('train')
    }
    taken, first, renamed = {name.casefold() for name in names.values()}, {}, {}
    for phase, name in names.items():
        earlier = first.setdefault(name.casefold(), phase)
        if earlier != phase:
            new = next(new for number in count(2) if (new := f'{name}_{number}').casefold() not in taken)
            taken.add(new.casefold())
            renamed[phase] = new, earlier
    return renamed


def smallest_image(metrics: dict[str, dict[str, Any]]) -> int:
    """The pixels that all metrics need on an image's shorter side: both borders, and a window of SSIM."""
    windows = {'calculate_ssim': 11}
    return max(
        (2 * metric.get('crop_border', 0) + windows.get(metric['type'], 1) for metric in metrics.values()), default=1
    )

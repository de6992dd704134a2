"""The values that BasicSR derives from an options file before it starts: phases, paths, devices, the seed."""

from pathlib import Path
from typing import Any

import torch

from earn_plugin.options.options_file import Options


def fill_defaults(
    options: Options,
    is_train: bool,
    *,
    auto_resume: bool = False,
    debug: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, Any]:
    """The options as BasicSR's models and data sets expect them, under the working directory.

    What a file may leave out gets BasicSR's usual value. Without CUDA everything runs on the CPU, whatever num_gpu
    says.
    """
    opt: dict[str, Any] = options.data
    opt.update(
        is_train=is_train,
        auto_resume=auto_resume,
        dist=world_size > 1,
        rank=rank,
        world_size=world_size,
        root_path=str(Path.cwd()),
    )
    if debug and not opt['name'].startswith('debug'):
        opt['name'] = f'debug_{opt["name"]}'
    if opt.get('num_gpu', 'auto') == 'auto' or not torch.cuda.is_available():
        opt['num_gpu'] = torch.cuda.device_count() if torch.cuda.is_available() else 0
    opt.setdefault('manual_seed', None)

    fill_dataset_defaults(opt)
    path = opt['path'] = opt.get('path') or {}
    for key, value in path.items():
        if value is not None and ('resume_state' in key or 'pretrain_network' in key):
            path[key] = str(Path(value).expanduser())
    root = Path.cwd() / ('experiments' if is_train else 'results') / opt['name']
    path['experiments_root' if is_train else 'results_root'] = str(root)
    path['log'] = str(root)
    path['visualization'] = str(root / 'visualization')

    val = opt.get('val')
    if val is not None:
        val.setdefault('save_img', False)
        val.setdefault('suffix', None)
    if is_train:
        path.setdefault('resume_state', None)
        path['models'] = str(root / 'models')
        path['training_states'] = str(root / 'training_states')
        opt['logger'] = {
            'print_freq': 100,
            'save_checkpoint_freq': 5000,
            'use_tb_logger': False,
            'keep_states': 3,
            **(opt.get('logger') or {}),
        }
        opt['train']['total_iter'] = int(opt['train']['total_iter'])
        if val is not None:
            val.setdefault('val_freq', opt['logger']['save_checkpoint_freq'])
        if 'debug' in opt['name']:
            opt['logger'].update(print_freq=1, save_checkpoint_freq=8)
            if val is not None:
                val['val_freq'] = 8
    else:
        opt['val'] = val if val is not None else {'save_img': False, 'suffix': None}
    return opt


def fill_dataset_defaults(opt: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the data sets of options their phase and scale; returns those that are not left out with ~."""
    opt['datasets'] = {phase: dataset for phase, dataset in opt['datasets'].items() if dataset is not None}
    for phase, dataset in opt['datasets'].items():
        dataset['phase'] = phase.partition('_')[0]
        if 'scale' in opt:
            dataset['scale'] = opt['scale']
        for key in ('dataroot_gt', 'dataroot_lq'):
            if dataset.get(key) is not None:
                dataset[key] = str(Path(dataset[key]).expanduser())
    return list(opt['datasets'].values())

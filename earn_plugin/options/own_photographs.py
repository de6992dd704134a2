"""``train --hr``: any recipe on a folder of the user's own photographs, in place of its data sets."""

import os
from pathlib import Path
from typing import Any

from earn_plugin.errors import UsageError
from earn_plugin.options.options_file import Options
from earn_plugin.options.valid_values import LONGEST_NAME

OF_IMAGES = ('color', 'mean', 'std', 'border')  # in training and in validation
OF_TRAINING = ('gt_size', 'use_hflip', 'use_rot', 'num_worker_per_gpu', 'batch_size_per_gpu')
OF_TRAINING += ('prefetch_mode', 'num_prefetch_queue', 'pin_memory', 'persistent_workers')
# BasicSR's data sets whose samples are not an HR and an LR image, which the models of such options need
NOT_PAIRS = ('RealESRGANDataset', 'FFHQDataset', 'REDSDataset', 'REDSRecurrentDataset', 'Vimeo90KDataset')
NOT_PAIRS += ('Vimeo90KRecurrentDataset',)
CENTER_CROP = 1024  # photographs may have many more pixels than fit in memory as a network's features


def use_photographs(options: Options, hr: str, val: str | None = None) -> None:
    """Train on a folder or an LMDB of HR images with the crops and batches of the options, under a name of its own.

    The options then have two BicubicPairDatasets. Without ``val``, a part of the photographs is held out for
    validation. The folders are checked with the options.

    Raises:
        UsageError: ``val`` is the same folder, the options do not validate, or they do not train on pairs of images.
    """
    data, roots = options.data, {'--hr': hr, '--val': val}
    validates = isinstance(data.get('val'), dict)
    if val is not None and os.path.realpath(val) == os.path.realpath(hr):
        raise UsageError(
            f'--val {val} is the folder of --hr, so it would be trained on: give other photographs, or leave --val '
            'out: then a part of those of --hr is held out'
        )
    if val is not None and not validates:
        raise UsageError(f'--val {val} has no effect: {options.file} has no section val: with val_freq and metrics')
    sets = data.get('datasets') if isinstance(data.get('datasets'), dict) else {}
    recipe = sets.get('train') if isinstance(sets.get('train'), dict) else {}
    if recipe.get('type') in NOT_PAIRS:
        raise UsageError(
            f'--hr {hr} makes pairs of images, but {options.file} trains on {recipe["type"]}: change its dataroot_gt'
        )
    of_images = {key: recipe[key] for key in OF_IMAGES if key in recipe}
    of_training = {key: recipe[key] for key in OF_TRAINING if key in recipe}
    train = {**photographs(hr), **of_images, **of_training, 'dataset_enlarge_ratio': 'auto'}
    data['datasets'] = {'train': train}
    if validates:
        held_out = {**photographs(val or hr), **of_images, 'center_crop': CENTER_CROP}
        if val is None:
            train['part'] = 'train'
            held_out |= {'name': 'held_out', 'part': 'val'}
        data['datasets']['val'] = held_out
    for phase, flag in (('train', '--hr'), ('val', '--hr' if val is None else '--val')):
        options.overrides |= {
            ('datasets', phase, key): f'{flag} {roots[flag]:.200}' for key in ('name', 'type', 'dataroot_gt')
        }
    if isinstance(data.get('name'), str):
        data['name'] = shortened(f'{data["name"]}_{name_of(hr)}')


def photographs(root: str) -> dict[str, Any]:
    """Options of a data set of a folder or an LMDB."""
    path = Path(os.path.expanduser(root))  # noqa: PTH111 (Path's raises for an unknown user)
    is_lmdb = path.suffix == '.lmdb' or os.path.isfile(path / 'data.mdb')  # noqa: PTH113 (Path's raises for long names)
    backend = {'type': 'lmdb' if is_lmdb else 'disk'}
    name = {'name': name_of(root), 'type': 'BicubicPairDataset'}
    return {**name, 'dataroot_gt': str(path) if root else '', 'io_backend': backend, 'skip_unsuitable': True}


def name_of(root: str) -> str:
    """A folder's name as a part of the names of files, without .lmdb."""
    path = os.path.abspath(os.path.expanduser(root))  # noqa: PTH100, PTH111 (Path's does not shorten a/..)
    name = Path(path).name.removesuffix('.lmdb').lstrip('.')
    name = ''.join(c if c.isprintable() and c not in '/\\' else '_' for c in name).strip()
    return shortened(name) or 'photographs'


def shortened(name: str) -> str:
    return name.encode()[:LONGEST_NAME].decode(errors='ignore')

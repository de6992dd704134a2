"""The demo data set: real photographs that are on the machine already, inside scikit-image's wheel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from skimage import data

from earn_plugin.atomic_files import atomic_folder
from earn_plugin.data.bicubic import crop_to_multiple
from earn_plugin.data.image_files import write_image
from earn_plugin.errors import UserError
from earn_plugin.prepare import lmdb as prepare

ROOT = Path('datasets/demo')
SCALES = (2, 3, 4)
SUB_SIZE, SUB_STEP = 240, 120  # of the HR sub-images; 2, 3 and 4 divide both

TRAIN = {
    'astronaut': data.astronaut,
    'hubble': data.hubble_deep_field,
    'immunohistochemistry': data.immunohistochemistry,
    'motorcycle_left': lambda: data.stereo_motorcycle()[0],
    'motorcycle_right': lambda: data.stereo_motorcycle()[1],
    'retina': data.retina,
    'rocket': data.rocket,
}
HELD_OUT = {'cat': data.chelsea, 'coffee': data.coffee}


def make_demo(root: Path = ROOT) -> bool:
    """Make the demo data set; False where it is there already. No network.

    root/train/HR, train/LR_bicubic/X2…X4: the training photographs; train/HR_sub.lmdb, train/LR_bicubic_X4_sub.lmdb, …:
    their sub-images as LMDBs; val/HR, val/LR_bicubic/X2…X4: the held-out photographs.

    Raises:
        UserError: this scikit-image does not ship one of the photographs; the folder may not be written to.
    """
    if root.exists():
        return False
    try:
        _make(root)
    except OSError as error:
        if not root.is_dir():  # else another process has made it in the meantime
            raise UserError(f'{root} could not be made: {error}') from error
    return True


def make_missing_demo(options: dict[str, Any]) -> None:
    """Make the demo data set if an options file reads from it and it is not there."""
    datasets = options.get('datasets')
    roots = [
        Path(root)
        for dataset in (datasets.values() if isinstance(datasets, dict) else ())
        for key, root in (dataset.items() if isinstance(dataset, dict) else ())
        if str(key).startswith('dataroot') and isinstance(root, str)
    ]
    if any(ROOT in root.parents for root in roots) and not ROOT.exists():
        print(f'making the demo data set in {ROOT}', flush=True)
        make_demo()


def would_create(path: Path) -> bool:
    """Whether ``make_missing_demo`` would create a path: the demo data set does not exist, and this is one of its."""
    created = {
        ROOT / part / folder for part in ('train', 'val') for folder in ('HR', *(f'LR_bicubic/X{s}' for s in SCALES))
    }
    created |= {ROOT / 'train' / f'{name}_sub.lmdb' for name in ('HR', *(f'LR_bicubic_X{s}' for s in SCALES))}
    return not ROOT.exists() and path in created


def _make(root: Path) -> None:
    with atomic_folder(root) as made:
        for part, photographs in (('train', TRAIN), ('val', HELD_OUT)):
            for name, photograph in photographs.items():
                write_image(made / part / 'HR' / f'{name}.png', _read(name, photograph))
            for scale in SCALES:
                prepare.make_lr(made / part / 'HR', made / part / f'LR_bicubic/X{scale}', scale)
        train = made / 'train'
        _sub_lmdb(train / 'HR', train / 'HR_sub.lmdb', 1)
        for scale in SCALES:
            _sub_lmdb(train / f'LR_bicubic/X{scale}', train / f'LR_bicubic_X{scale}_sub.lmdb', scale)


def _read(name: str, photograph: Callable[[], np.ndarray]) -> np.ndarray:
    """BGR, cut to a multiple of 12, so that the LR of every scale covers the whole photograph."""
    try:
        image = photograph()
    except Exception as error:
        raise UserError(
            f'scikit-image does not give its photograph {name} ({error}); reinstall it: pip install scikit-image'
        ) from error
    return np.ascontiguousarray(crop_to_multiple(image, 12)[..., ::-1])


def _sub_lmdb(folder: Path, lmdb: Path, scale: int) -> None:
    prepare.make_lmdb(folder, lmdb, SUB_SIZE // scale, SUB_STEP // scale)

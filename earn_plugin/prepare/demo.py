"""The demo data set: photographs that are on the machine already, in scikit-image's wheel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from skimage import data

from earn_plugin.atomic_files import atomic_folder
from earn_plugin.data.bicubic import crop_to_multiple
from earn_plugin.data.image_files import write_image
from earn_plugin.errors import UserError
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.lr import make_lr
from earn_plugin.prepare.resumable_folder import MANIFEST, check_complete
from earn_plugin.prepare.subimages import SubImages

ROOT = Path('datasets/demo')
SCALES = (2, 3, 4)
SIZE, STEP = 240, 120  # of the HR sub-images; 2, 3 and 4 divide both

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
PARTS = {'train': TRAIN, 'val': HELD_OUT}
FOLDERS = {part: {1: f'{part}/HR', **{s: f'{part}/LR_bicubic/X{s}' for s in SCALES}} for part in PARTS}
SUB_LMDBS = {1: 'train/HR_sub.lmdb', **{s: f'train/LR_bicubic_X{s}_sub.lmdb' for s in SCALES}}


def make_demo(root: Path = ROOT) -> bool:
    """Make the demo data set without network access. False if it exists already.

    root/train/HR, train/LR_bicubic/X2…X4: the training photographs; train/HR_sub.lmdb, train/LR_bicubic_X4_sub.lmdb, …:
    their sub-images as LMDBs; val/HR, val/LR_bicubic/X2…X4: the held-out photographs.

    Raises:
        UserError: this scikit-image does not have one of the photographs; the folder is not writable.
    """
    if root.exists():
        for manifest in root.rglob(MANIFEST):
            check_complete(manifest.parent)
        return False
    try:
        with atomic_folder(root) as new:
            for part, photographs in PARTS.items():
                folders = FOLDERS[part]
                for name, photograph in photographs.items():
                    write_image(new / folders[1] / f'{name}.png', _read(name, photograph))
                for scale in SCALES:
                    make_lr(new / folders[1], new / folders[scale], scale)
            for scale, lmdb in SUB_LMDBS.items():
                make_lmdb(new / FOLDERS['train'][scale], new / lmdb, SubImages(SIZE // scale, STEP // scale))
    except OSError as error:
        if not root.is_dir():  # else another process has created it in the meantime
            raise UserError(f'{root} could not be created: {error}') from error
    return True


def would_create(path: str | Path) -> bool:
    """Whether the demo data set does not exist yet and ``path`` is one of its folders and LMDBs."""
    outputs = [*SUB_LMDBS.values(), *(folder for folders in FOLDERS.values() for folder in folders.values())]
    return not ROOT.exists() and Path(path) in [ROOT / output for output in outputs]


def make_missing_demo(options: dict[str, Any]) -> None:
    """Make the demo data set if checked options read from it and it does not exist."""
    datasets = [dataset for dataset in options['datasets'].values() if dataset]
    roots = [dataset.get(key) for dataset in datasets for key in ('dataroot_gt', 'dataroot_lq')]
    if any(root and would_create(root) for root in roots):
        print(f'creating the demo data set in {ROOT}', flush=True)
        make_demo()


def _read(name: str, photograph: Callable[[], np.ndarray]) -> np.ndarray:
    """BGR, cropped to a multiple of 12, so that the LR of every scale covers the complete photograph."""
    try:
        image = photograph()
    except Exception as error:
        hint = 'reinstall it: pip install scikit-image'
        raise UserError(f'scikit-image cannot read its photograph {name} ({error}); {hint}') from error
    return np.ascontiguousarray(crop_to_multiple(image, 12)[..., ::-1])

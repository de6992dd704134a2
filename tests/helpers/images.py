"""Images made from a seed, alone and as pairs on disk; and what folders and LMDBs contain."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
from basicsr.utils import scandir

from earn_plugin.data.bicubic import imresize


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """H×W×3 uint8 with edges and gradients; different for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(2, 20) + y / rng.uniform(2, 20) + rng.uniform(0, 6)) for _ in range(3)]
    image = 128 + 60 * np.stack(waves, -1) + 40 * (x + y > rng.uniform(20, 60))[..., None]
    return image.clip(0, 255).astype(np.uint8)


def write_pairs(root: Path, count: int, scale: int = 2, size: tuple[int, int] = (24, 28)) -> Path:
    """root/HR and root/LR, with images of scale·size and size."""
    for folder in ('HR', 'LR'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = photograph(size[0] * scale, size[1] * scale, index)
        cv2.imwrite(str(root / f'HR/im{index:02d}.png'), image)
        cv2.imwrite(str(root / f'LR/im{index:02d}.png'), imresize(image, Fraction(1, scale)))
    return root


def make_lmdbs(root: Path) -> None:
    """root/HR.lmdb and root/LR.lmdb of the folders of pairs."""
    from earn_plugin.prepare.lmdb import make_lmdb

    for folder in ('HR', 'LR'):
        make_lmdb(root / folder, root / f'{folder}.lmdb')


def pair_options(root: Path, phase: str = 'train', backend: str = 'disk', **more: Any) -> dict[str, Any]:
    """Options of a PairedImageDataset ×2 with root/HR and root/LR, or their LMDBs."""
    ending = '.lmdb' if backend == 'lmdb' else ''
    roots = {'dataroot_gt': str(root / f'HR{ending}'), 'dataroot_lq': str(root / f'LR{ending}')}
    crop = {'gt_size': 32, 'use_hflip': True, 'use_rot': True}
    kind = {'name': 'set', 'type': 'PairedImageDataset', 'phase': phase, 'scale': 2, 'io_backend': {'type': backend}}
    return {**kind, **roots, **crop, **more}


def names_in(folder: Path) -> list[str]:
    """The names in a folder as BasicSR lists them, without hidden files."""
    return sorted(scandir(str(folder)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != 'lock.mdb'}


def lmdb_values(folder: Path) -> dict[str, bytes]:
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}

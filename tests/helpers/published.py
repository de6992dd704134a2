"""Small data sets, packed as their authors pack them, and helpers for the tree that the commands make of them."""

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np

from earn_plugin.data.image_files import write_image
from earn_plugin.prepare.lr import make_lr
from tests.helpers.command import command_here
from tests.helpers.images import photograph

Images = dict[int, np.ndarray]

TRAIN = {1: photograph(480, 492, 1), 2: photograph(492, 480, 2), 3: photograph(480, 480, 3)}
VALID = {801: photograph(36, 48, 4), 802: photograph(48, 36, 5)}
HR = {f'im{i}': photograph(53 + i, 61, i) for i in range(2)}
FLICKR = {1: photograph(480, 480, 6), 2: photograph(480, 492, 7)}


def publish(
    root: Path,
    *,
    train: Images | None = None,
    valid: Images | None = None,
    flickr: Images | None = None,
    benchmark: dict[str, dict[str, np.ndarray]] | None = None,
    voc: dict[str, np.ndarray] | None = None,
) -> Path:
    """The archives in root/Downloads, packed from folders in root/published."""
    here, downloads = root / 'published', root / 'Downloads'
    for stem, images, digits in (('DIV2K_train', train, 4), ('DIV2K_valid', valid, 4), ('Flickr2K', flickr, 6)):
        where = here / stem if stem == 'Flickr2K' else here
        for number, image in (images or {}).items():
            write_image(where / f'{stem}_HR/{number:0{digits}d}.png', image)
        for scale in (2, 3, 4) if images else ():
            make_lr(where / f'{stem}_HR', where / f'{stem}_LR_bicubic/X{scale}', scale, suffix=f'x{scale}')
    for name, images in (benchmark or {}).items():
        for stem, image in images.items():
            write_image(here / f'benchmark/{name}/HR/{stem}.png', image)
    for stem, image in (voc or {}).items():
        (here / 'VOCdevkit/VOC2012/JPEGImages').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(here / f'VOCdevkit/VOC2012/JPEGImages/{stem}.jpg'), image)
    for manifest in here.rglob('.manifest.json'):
        manifest.unlink()

    def pack(archive: str, folder: str, kind: str = 'zip') -> None:
        if (here / folder).is_dir():
            shutil.make_archive(str(downloads / archive), kind, here, folder)

    for part in ('train', 'valid'):
        pack(f'DIV2K_{part}_HR', f'DIV2K_{part}_HR')
        for scale in (2, 3, 4):
            pack(f'DIV2K_{part}_LR_bicubic_X{scale}', f'DIV2K_{part}_LR_bicubic/X{scale}')
    pack('Flickr2K', 'Flickr2K', 'tar')
    pack('benchmark', 'benchmark', 'tar')
    pack('VOCtrainval_11-May-2012', 'VOCdevkit', 'tar')
    return downloads


def prepare(*arguments, capsys, expect: int = 0) -> str:
    return command_here('prepare', *arguments, capsys=capsys, expect=expect)


def lmdb_lines(lmdb: str) -> list[str]:
    """The lines of meta_info.txt of an LMDB in datasets/."""
    return Path('datasets', lmdb, 'meta_info.txt').read_text().splitlines()


def tree(root: Path = Path('datasets')) -> dict[str, str]:
    """Every file that is not hidden, with a hash of its content."""
    files = [p for p in root.rglob('*') if p.is_file() and not any(part.startswith('.') for part in p.parts)]
    return {p.as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.name != 'lock.mdb'}


def unpack(downloads: Path, *names: str) -> None:
    for name in names:
        packed = next(downloads.glob(f'{name}.*'))
        if packed.suffix == '.zip':
            shutil.unpack_archive(packed, downloads)
        else:
            with tarfile.open(packed) as archive:
                archive.extractall(downloads, filter='data')
        packed.unlink()


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)

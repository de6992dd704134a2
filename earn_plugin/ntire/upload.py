"""The upload: the upscaled test images and readme.txt, flat in a zip, read back before it gets its name."""

import glob
import math
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import BinaryIO

import cv2
import numpy as np
import torch
from tqdm import tqdm

from earn_plugin.atomic_files import atomic_file
from earn_plugin.convert.networks import FoundNetwork
from earn_plugin.data.folder_or_lmdb import first_few
from earn_plugin.data.image_headers import read_header
from earn_plugin.errors import UsageError, UserError
from earn_plugin.metrics.ntire_metrics import SCALE
from earn_plugin.ntire.image_pairs import NAMED
from earn_plugin.ntire.network_checks import check_network
from earn_plugin.ntire.official_run import read_bgr, time_pass, to_image, to_tensor

HR_NAME = re.compile(r'(HR|GT|(^|[^a-zA-Z])(hr|gt))$|^(HR|GT|hr|gt)[^a-zA-Z]')  # of a folder
LARGE = 1000  # pixels: the official LR images are smaller, the HR images larger
ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')


@dataclass(frozen=True)
class Upload:
    """What to write.

    Raises:
        UsageError: an output that is not a zip, or values that readme.txt cannot have.
    """

    lr_dir: Path  # of the LR test images
    out: Path  # the zip
    device: torch.device
    names: str = 'lr'  # 'lr' for the names of the LR files, 'hr' for those without x4: 0901x4.png → 0901.png
    data_range: float = 1.0  # of the network's input and output
    trained: bool = True  # whether the weights are, so that a wrong data range can be seen in the output
    runtime: float | None = None  # seconds per image for readme.txt; None to measure it
    extra_data: bool = False  # whether the network was trained on extra data, for readme.txt
    description: str = ''  # the last line of readme.txt

    def __post_init__(self):
        if self.out.suffix != '.zip':
            raise UsageError(f'--out {self.out}: the upload is a zip; name it FILE.zip')
        if self.description != ''.join(self.description.splitlines()):
            raise UsageError('--description must be one line: the scorer reads the fourth line of readme.txt')
        if self.runtime is not None and not 0 < self.runtime < math.inf:
            raise UsageError(f'--runtime must be the seconds per image, such as 0.008, got {self.runtime:g}')

    def readme(self, runtime: float) -> str:
        """Four lines, in the order in which the scorer reads them."""
        return (
            f'runtime per image [s] : {runtime:.4f}\n'
            f'CPU[1] / GPU[0] : {int(self.device.type == "cpu")}\n'
            f'Extra Data [1] / No Extra Data [0] : {int(self.extra_data)}\n'
            f'Other description : {self.description}\n'
        )


def write_upload(found: FoundNetwork, upload: Upload) -> str:
    """Upscale a folder of LR images and write the zip; returns what was done.

    Raises:
        UserError: the network does not fit, an image cannot be read, or the zip is not as it must be.
    """
    network = found.network.float()
    check_network(network, upload.data_range, upload.trained)
    images = names_in_zip(upload.lr_dir, upload.names)
    untrained = [] if upload.trained else ['not a checkpoint: these are initial weights; choose a checkpoint to submit']
    for warning in untrained + check_lr(upload.lr_dir, images):
        print(f'warning: {warning}', file=sys.stderr)  # now, as upscaling takes its time
    sizes, times = {}, []
    network.to(upload.device)
    try:
        with atomic_file(upload.out) as file, tempfile.TemporaryFile() as packed:
            with zipfile.ZipFile(packed, 'w') as archive, torch.no_grad():  # PNGs are compressed already
                for path, name in tqdm(images.items(), unit='image', disable=None):
                    image = read_bgr(path)
                    x = to_tensor(image, upload.data_range, upload.device)
                    output, milliseconds = time_pass(network, x, path)
                    times.append(milliseconds / 1000)
                    sizes[name] = SCALE * image.shape[0], SCALE * image.shape[1]
                    archive.writestr(name, cv2.imencode('.png', to_image(output, upload.data_range))[1].tobytes())
                readme = upload.readme(upload.runtime or mean(times))
                archive.writestr('readme.txt', readme)
            verify(packed, sizes, readme)
            packed.seek(0)
            shutil.copyfileobj(packed, file)
    except OSError as error:
        raise UserError(f'cannot write {upload.out}: {error}') from error
    where, first = upload.device.type, f'the first {times[0]:.4f} s, the median {median(times):.4f} s'
    return (
        f'{found.arch}, {found.form}, on {len(images)} images of {upload.lr_dir}: {mean(times):.4f} s per image on '
        f'{where}, {first}\n'
        f'{upload.out}: {len(sizes)} PNGs and readme.txt, verified: number, names and sizes\n{readme.rstrip()}'
    )


def names_in_zip(lr_dir: Path, names: str) -> dict[Path, str]:
    """LR image → its name in the upload.

    Raises:
        UserError: there are none, or two would have the same name.
    """
    if not lr_dir.is_dir():
        raise UserError(f'{lr_dir} is not a folder; --lr-dir must contain the LR test images')
    found = {}
    for path in sorted(lr_dir.iterdir()):
        if path.suffix.lower() in ENDINGS and not path.name.startswith('.'):
            stem = path.stem.removesuffix(f'x{SCALE}') if names == 'hr' else path.stem
            if f'{stem}.png' in found.values():
                raise UserError(f'{lr_dir}: two images would be {stem}.png in the upload, one of them is {path.name}')
            found[path] = f'{stem}.png'
    if not found:
        raise UserError(f'{lr_dir} has no images ({", ".join(ENDINGS)}); --lr-dir must contain the images themselves')
    return found


def check_lr(lr_dir: Path, images: Iterable[Path]) -> list[str]:
    """Warnings of files that are left out, and of images that are so large that they may be the HR images.

    Raises:
        UsageError: by the name of the folder, or by the images of a folder next to it, these are the HR images.
    """
    paths, warnings = list(images), []
    first, folder = paths[0], lr_dir.resolve()
    if not any(path.stem.endswith(f'x{SCALE}') for path in paths):
        size = size_of(first)
        same = sorted(folder.parent.glob(f'*/{glob.escape(first.stem)}*'))  # 0901.png or 0901x4.png next to it
        lr = [path for path in same if np.abs(np.subtract(size, np.multiply(SCALE, size_of(path)))).max() < SCALE]
        if lr or HR_NAME.search(folder.name):
            hint = f'such as {lr_dir.parent / lr[0].parent.name}' if lr else 'whose names end in x4'
            raise UsageError(f'--lr-dir {lr_dir} seems to have the HR images; give the folder of the LR images, {hint}')
        if max(size) > LARGE:
            large = (
                f'{first} is {size[0]}×{size[1]}, large for an LR image, and its output will be {SCALE} times as large'
            )
            warnings.append(f'{large}: does --lr-dir have the HR images?')
    others = [path.name for path in sorted(lr_dir.iterdir()) if path not in paths and not path.name.startswith('.')]
    if others:
        listed = ', '.join(first_few(others, NAMED))
        warnings.append(f'left out of the upload: {listed} in {lr_dir}; it has only {", ".join(ENDINGS)} there')
    return warnings


def size_of(path: Path) -> tuple[int, int]:
    """Height and width; 0×0 if the file cannot be read, which reports when it is upscaled."""
    try:
        return read_header(path)[:2]
    except (OSError, ValueError):
        return 0, 0


def verify(packed: BinaryIO, sizes: dict[str, tuple[int, int]], readme: str) -> None:
    """Read the zip as the scorer does.

    Raises:
        UserError: it is not flat, a name, a size or the readme is wrong, or it is damaged.
    """
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        expected = [*sizes, 'readme.txt']
        if sorted(names) != sorted(expected):
            odd = sorted(set(names) ^ set(expected)) or sorted(name for name in names if names.count(name) > 1)
            raise UserError(f'the zip does not have the expected files: see {", ".join(odd[:3])}')
        for name, size in sizes.items():
            content = np.frombuffer(archive.read(name), np.uint8)  # zipfile compares the checksum
            shape = getattr(cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None, 'shape', None)
            if shape != (*size, 3):
                raise UserError(f'{name} in the zip must be {(*size, 3)}, got {shape}')
        if archive.read('readme.txt').decode() != readme:
            raise UserError('readme.txt in the zip does not have its four lines')

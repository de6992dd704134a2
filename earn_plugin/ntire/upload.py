"""The upload: the upscaled test images and readme.txt, flat in a zip, read back before it is called done."""

import math
import shutil
import tempfile
import zipfile
from pathlib import Path
from statistics import mean, median
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import torch
from tqdm import tqdm

from earn_plugin.atomic_files import atomic_file
from earn_plugin.convert.networks import FoundNetwork
from earn_plugin.errors import UsageError, UserError
from earn_plugin.metrics.ntire_metrics import SCALE
from earn_plugin.ntire.export import check_data_range, check_scale
from earn_plugin.ntire.official_run import read_bgr, timed, to_image, to_tensor

IMAGES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')


class Readme(NamedTuple):
    """What readme.txt tells; a runtime of None is measured."""

    runtime: float | None = None  # seconds an image
    extra_data: bool = False
    description: str = ''

    def text(self, device: torch.device) -> str:
        """Four lines, in the order in which the scorer reads them."""
        return (
            f'runtime per image [s] : {self.runtime:.4f}\n'
            f'CPU[1] / GPU[0] : {int(device.type == "cpu")}\n'
            f'Extra Data [1] / No Extra Data [0] : {int(self.extra_data)}\n'
            f'Other description : {self.description}\n'
        )


def pack(
    found: FoundNetwork,
    lr_dir: Path,
    out: Path,
    readme: Readme,
    names: str,
    data_range: float,
    device: torch.device,
    trained: bool = True,
) -> str:
    """Upscale a folder of LR images and write the upload; returns what was done.

    Args:
        names: 'lr' for the names of the LR files, 'hr' for those without x4: 0901x4.png → 0901.png.
        data_range: what the network takes and gives.
        trained: whether its weights can tell a wrong data range.

    Raises:
        UserError: the network does not fit, an image cannot be read, or the zip is not what it has to be.
    """
    if out.suffix != '.zip':
        raise UsageError(f'--out {out}: the upload is a zip; name it FILE.zip')
    if '\n' in readme.description:
        raise UsageError('--description has more than one line, and the scorer reads the fourth line of readme.txt')
    if readme.runtime is not None and not 0 < readme.runtime < math.inf:
        raise UsageError(f'--runtime {readme.runtime:g}: give the seconds of an image, such as 0.008')
    network = found.network.float()
    check_scale(network, data_range)
    if trained:
        check_data_range(network, data_range)
    images = targets(lr_dir, names)
    sizes, times = {}, []
    network.to(device)
    try:
        with atomic_file(out) as file, tempfile.TemporaryFile() as packed:
            with zipfile.ZipFile(packed, 'w') as archive, torch.no_grad():  # PNGs are small already
                for path, name in tqdm(images.items(), unit='image', disable=None):
                    image = read_bgr(path)
                    output, milliseconds = timed(network, to_tensor(image, data_range, device), path)
                    times.append(milliseconds / 1000)
                    sizes[name] = SCALE * image.shape[0], SCALE * image.shape[1]
                    archive.writestr(name, cv2.imencode('.png', to_image(output, data_range))[1].tobytes())
                told = readme if readme.runtime is not None else readme._replace(runtime=mean(times))
                archive.writestr('readme.txt', told.text(device))
            verify(packed, sizes)
            packed.seek(0)
            shutil.copyfileobj(packed, file)
    except OSError as error:
        raise UserError(f'cannot write {out}: {error}') from error
    measured = (
        f'{mean(times):.4f} s an image on {device.type}, the first {times[0]:.4f} s, the median {median(times):.4f} s'
    )
    return '\n'.join(
        [
            f'{found.arch}, {found.form}, on {len(images)} images of {lr_dir}: {measured}',
            f'{out}: {len(sizes)} PNGs and readme.txt, read back: number, names and sizes are as they have to be',
            told.text(device).rstrip(),
        ]
    )


def targets(lr_dir: Path, names: str) -> dict[Path, str]:
    """LR image → its name in the upload.

    Raises:
        UserError: there are none, or two would have one name.
    """
    if not lr_dir.is_dir():
        raise UserError(f'{lr_dir} is no folder; --lr-dir names the one with the LR test images')
    found = {}
    for path in sorted(lr_dir.iterdir()):
        if path.suffix.lower() in IMAGES and not path.name.startswith('.'):
            stem = path.stem.removesuffix(f'x{SCALE}') if names == 'hr' else path.stem
            if f'{stem}.png' in found.values():
                raise UserError(f'{lr_dir}: two images would be {stem}.png in the upload, {path.name} is one')
            found[path] = f'{stem}.png'
    if not found:
        raise UserError(f'{lr_dir} has no images ({", ".join(IMAGES)}); --lr-dir names the folder that has them itself')
    return found


def verify(packed: BinaryIO, sizes: dict[str, tuple[int, int]]) -> None:
    """Read a zip as the scorer does.

    Raises:
        UserError: it is not flat, a name or a size is wrong, or it is damaged.
    """
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        expected = [*sizes, 'readme.txt']
        if sorted(names) != sorted(expected):
            odd = sorted(set(names) ^ set(expected)) or sorted(name for name in names if names.count(name) > 1)
            raise UserError(f'the zip has not the files that it has to have: see {", ".join(odd[:3])}')
        for name, size in sizes.items():
            content = np.frombuffer(archive.read(name), np.uint8)  # zipfile compares the checksum
            image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
            shape = getattr(image, 'shape', None)
            if shape != (*size, 3):
                raise UserError(f'{name} in the zip is {shape}, and has to be {(*size, 3)}')
        lines = archive.read('readme.txt').decode().splitlines()
        starts = ('runtime per image [s] : ', 'CPU[1] / GPU[0] : ', 'Extra Data [1]', 'Other description : ')
        if len(lines) != len(starts) or not all(map(str.startswith, lines, starts)):
            raise UserError('readme.txt in the zip has not its four lines')

"""The image files of a comparison: HR images, and the results that belong to them by their names."""

import re
from pathlib import Path

import cv2
import numpy as np

from earn_plugin.data.folder_or_lmdb import Folder, first_few
from earn_plugin.data.image_files import decode
from earn_plugin.data.image_headers import read_header
from earn_plugin.errors import UserError

NAMED = 3  # file names that a message lists


def read_as_basicsr(path: Path) -> np.ndarray:
    """An image as BasicSR's data sets read it: H×W×3, BGR, uint8; what is not 8-bit RGB is converted, with a warning.

    Raises:
        UserError: it cannot be decoded.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    try:
        kind = read_header(path).kind
        image = decode(content, cv2.IMREAD_COLOR)
    except ValueError as error:
        raise UserError(f'{path} {error}') from error
    if kind:
        print(f'warning: {path} is {kind}: read as 8-bit RGB')
    return image


def shown_size(image: np.ndarray) -> str:
    """Width×height, for messages."""
    return f'{image.shape[1]}×{image.shape[0]}'


def find_result(folder: Path, hr: Path, scale: int) -> Path:
    """The file in a folder that belongs to an HR image: its name may end in x4 and in _ANYTHING, as BasicSR's do.

    For baby.png these are baby.png, babyx4.png, baby_test_EARN_x4.png, babyx4_test_EARN_x4.png, in this order. What
    belongs to a longer name next to the HR image, such as baby_2.png, is not baby's.

    Raises:
        UserError: there is none, or there are several that are equally likely.
    """
    names = Folder(folder).names
    own = {hr.stem, f'{hr.stem}x{scale}'}  # the second may be LR
    longer = {path.stem for path in hr.parent.iterdir() if path.stem.startswith(hr.stem)} - own
    possible = [name for name in names if _matches(name, hr.stem, scale)]
    found = [name for name in possible if not any(_matches(name, stem, scale) for stem in longer)]
    if possible and not found:
        raise UserError(
            f'{folder} has no image for {hr.name}: {possible[0]} belongs to another image next to it; otherwise name '
            'that file rather than the folder'
        )
    if not found:
        listed = ', '.join(first_few(names, NAMED)) or 'no files'
        raise UserError(
            f'{folder} has no image for {hr.name}: its name would be {hr.stem}, {hr.stem}x{scale} or '
            f'{hr.stem}_ANYTHING; there are {listed} (subfolders are not searched)'
        )
    exactness = {name: (not _ending(name, hr.stem), _ending(name, hr.stem) == f'x{scale}') for name in found}
    best = [name for name in found if exactness[name] == max(exactness.values())]
    if len(best) > 1:
        raise UserError(
            f'{folder} has several images for {hr.name}: {", ".join(first_few(best, NAMED))}; name one file'
        )
    return folder / best[0]


def _ending(name: str, stem: str) -> str:
    return Path(name).stem.removeprefix(stem)


def _matches(name: str, stem: str, scale: int) -> bool:
    return re.fullmatch(rf'{re.escape(stem)}(x{scale})?(_.+)?', Path(name).stem) is not None

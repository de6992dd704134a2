"""LR images as MATLAB's bicubic makes them."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from earn_plugin.data.bicubic import BORDERS, crop_to_multiple, imresize
from earn_plugin.errors import UsageError, UserError
from earn_plugin.prepare.png_folder import NamedImage, check_positive, make_png_folder


def make_lr(
    hr_folder: Path,
    lr_folder: Path,
    scale: int,
    *,
    border: str = 'replicate',
    suffix: str = '',
    jobs: int | None = None,
) -> bool:
    """LR images by MATLAB's bicubic: NAME.png → NAMEsuffix.png. False if they exist already.

    Args:
        hr_folder: 8-bit images; each is first cropped to a multiple of the scale, at the right and the bottom.
        scale: 2, 3, …
        border: 'replicate' or 'symmetric', see ``imresize``.
        jobs: threads; all cores by default.

    Raises:
        UserError: lists all images that cannot be read; or ``lr_folder`` is something else.
    """
    check_positive(scale=scale, jobs=jobs)
    if border not in BORDERS:
        raise UsageError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    if '/' in suffix or os.sep in suffix or not suffix.isprintable():
        raise UsageError(f'suffix is the end of a file name: no folder, no control characters, got {suffix!r}')

    def shrink(path: Path, image: np.ndarray) -> Iterator[NamedImage]:
        image = crop_to_multiple(image, scale)
        try:
            yield f'{path.stem}{suffix}', imresize(image, Fraction(1, scale), border)
        except ValueError as error:
            raise UserError(f'{path}: {error}') from error

    settings = {'what': 'LR', 'scale': scale, 'border': border, 'suffix': suffix}
    return make_png_folder(hr_folder, lr_folder, shrink, settings, jobs, smallest=scale, only_8_bit=True)

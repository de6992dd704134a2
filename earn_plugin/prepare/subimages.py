"""Sub-images: the square crops on a grid that training reads instead of large images."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earn_plugin.data.bicubic import crop_to_multiple
from earn_plugin.errors import UsageError
from earn_plugin.prepare.png_folder import NamedImage, check_positive, make_png_folder


@dataclass(frozen=True)
class SubImages:
    """How images are cut. Without size and step, they stay complete.

    Raises:
        UsageError: a number below 1, or only one of size and step.
    """

    size: int | None = None  # side of the sub-images, in pixels
    step: int | None = None  # from one to the next; the last ones lie flush with the right and the bottom
    suffix: str = ''  # is stripped from the names of the images
    multiple: int = 1  # images are first cropped to it, so that the last sub-images of HR and LR pair
    skip_small: bool = False  # skip images smaller than ``size``

    def __post_init__(self):
        if (self.size is None) != (self.step is None):
            raise UsageError(f'size and step belong together, got {self.size} and {self.step}')
        check_positive(size=self.size, step=self.step, multiple=self.multiple)

    @property
    def needs(self) -> dict[str, Any]:
        """See ``usable_images``."""
        smallest = -(-(self.size or 1) // self.multiple) * self.multiple
        return {'smallest': smallest, 'skip_small': self.skip_small, 'suffix': self.suffix}

    def cut(self, stem: str, image: np.ndarray) -> Iterator[NamedImage]:
        """NAME_s001, NAME_s002, … with their sub-images, as BasicSR's script names them; or NAME with the image."""
        name, image = stem.removesuffix(self.suffix), crop_to_multiple(image, self.multiple)
        if self.size is None:
            yield name, image
        else:
            for number, sub_image in enumerate(subimages(image, self.size, self.step), 1):
                yield f'{name}_s{number:03d}', sub_image


def subimages(image: np.ndarray, size: int, step: int) -> Iterator[np.ndarray]:
    """The sub-images of side ``size`` at every ``step``, and those flush with the right and the bottom; row by row."""

    def starts(length: int) -> list[int]:
        return sorted({*range(0, length - size + 1, step), length - size}) if length >= size else []

    for top in starts(image.shape[0]):
        for left in starts(image.shape[1]):
            yield image[top : top + size, left : left + size]


def make_subimages(folder: Path, sub_folder: Path, settings: SubImages, jobs: int | None = None) -> bool:
    """Sub-images of a folder of images: NAMEsuffix.png → NAME_s001.png, NAME_s002.png, … False if they exist already.

    HR with size 480 and step 240, and LR ×4 with 120, 60 and the LR's suffix, get the same names.

    Raises:
        UserError: an image is smaller than the size, or as ``make_lr``.
    """
    check_positive(jobs=jobs)
    recipe = {'what': 'sub-images', **asdict(settings)}

    def convert(path: Path, image: np.ndarray) -> Iterator[NamedImage]:
        return settings.cut(path.stem, image)

    return make_png_folder(folder, sub_folder, convert, recipe, jobs, **settings.needs)

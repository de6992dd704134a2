"""Sub-images: the square crops on a grid that training reads instead of large images."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from earn_plugin.data.bicubic import crop_to_multiple
from earn_plugin.data.image_files import read_image
from earn_plugin.errors import UsageError
from earn_plugin.prepare.png_folder import NamedImage, Requirements, check_positive, make_png_folder


@dataclass(frozen=True)
class SubImages:
    """How images are cut.

    Attributes:
        size, step: side of the sub-images and distance from one to the next, in pixels; the last ones lie flush with
            the right and the bottom. Without them, images stay complete.
        suffix: is stripped from the names of the images.
        multiple: images are first cropped to a multiple of it; needed if the scale does not divide HR, so that the last
            sub-images of HR and LR fit.
        skip_small: skip images smaller than ``size``.

    Raises:
        UsageError: a number below 1, or only one of size and step.
    """

    size: int | None = None
    step: int | None = None
    suffix: str = ''
    multiple: int = 1
    skip_small: bool = False

    def __post_init__(self):
        if (self.size is None) != (self.step is None):
            raise UsageError(f'size and step belong together, got {self.size} and {self.step}')
        check_positive(size=self.size, step=self.step, multiple=self.multiple)

    @property
    def needs(self) -> Requirements:
        smallest = -(-(self.size or 1) // self.multiple) * self.multiple
        return Requirements(smallest, skip_small=self.skip_small, suffix=self.suffix)

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
    return make_png_folder(
        folder,
        sub_folder,
        lambda path: settings.cut(path.stem, read_image(path)),
        {'what': 'sub-images', **asdict(settings)},
        needs=settings.needs,
        jobs=jobs,
    )

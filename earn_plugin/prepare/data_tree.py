"""The recipes' tree of data sets, made from downloads: existing parts stay, problems are listed at the end."""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from earn_plugin.data.bicubic import crop_to_multiple
from earn_plugin.data.folder_or_lmdb import first_few
from earn_plugin.data.image_files import decode, encode
from earn_plugin.errors import UserError
from earn_plugin.prepare.archives import SourceImage, find_images
from earn_plugin.prepare.lr import make_lr
from earn_plugin.prepare.png_folder import check_positive
from earn_plugin.prepare.resumable_folder import check_complete
from earn_plugin.signals import Stopped

INTERMEDIATE = '.intermediate'  # holds what no recipe reads: a run after a kill uses it, the end of a run removes it


@dataclass
class DataTree:
    """The tree at ``root``, the images found in the user's ``place`` (files first, then archives), and the settings."""

    place: Path
    root: Path
    images: list[SourceImage]
    border: str = 'replicate'  # of the bicubic kernel, see ``bicubic.imresize``
    make_lr: bool = False  # make DIV2K's and Flickr2K's LR images if their archive is missing
    allow_missing: bool = False  # make a data set of the images that exist
    jobs: int | None = None  # threads; all cores by default
    problems: list[str] = field(default_factory=list)

    def __post_init__(self):
        check_positive(jobs=self.jobs)

    def make_once(self, path: Path, function: Callable[..., bool], **arguments: Any) -> bool:
        """As ``make``, but an existing path is only compared with its own manifest."""

        def make() -> bool:
            if path.exists():
                check_complete(path)
                return False
            return function(**arguments)

        return self.make(path, make)

    def make(self, path: Path, function: Callable[..., bool], **arguments: Any) -> bool:
        """Make ``path`` by a function that returns False if it exists. Its UserError becomes a problem; False then."""
        try:
            is_new = function(**arguments)
        except Stopped:
            raise
        except UserError as error:
            self.problems.append(str(error) if str(error).startswith(str(path)) else f'{path}: {error}')
            return False
        print(f'{path} {"created" if is_new else "already exists"}')
        return True

    def check_names(self, path: Path, found: Iterable[str], expected: Iterable[str], if_empty: str) -> None:
        """Check that the images found for ``path`` are those of the data set.

        Raises:
            UserError: ``if_empty``, or names the images that are missing or do not belong to the data set.
        """
        found, expected = set(found), set(expected)
        missing, unknown = sorted(expected - found), sorted(found - expected)
        if not found:
            raise UserError(if_empty)
        if unknown:
            names = ', '.join(first_few(unknown, 5))
            raise UserError(f'{len(unknown)} images do not belong to this set, move them: {names}')
        if missing and not self.allow_missing:
            hint = '; move the folder away to have it created again' if path.is_dir() else ''
            names = ', '.join(first_few(missing, 5))
            raise UserError(f'{len(missing)} of {len(expected)} images are missing: {names}{hint}')

    def matching(self, pattern: str) -> dict[str, SourceImage]:
        """The images whose names match a pattern: its group ``name``, in lower case → image."""
        images = {}
        for image in self.images:
            match = re.search(pattern, image.name, re.IGNORECASE)
            if match:
                images.setdefault(match['name'].lower(), image)
        return images

    def lr(self, hr: Path, lr: Path, scale: int, suffix: str = '') -> bool:
        return make_lr(hr, lr, scale, border=self.border, suffix=suffix, jobs=self.jobs)


@contextmanager
def data_tree(place: Path, root: Path, archives: str, **settings: Any) -> Iterator[DataTree]:
    """Search ``place``; then the ``with`` block makes all that can be made.

    Args:
        archives: pattern of the names of the archives to search.
        settings: of ``DataTree``.

    Raises:
        UserError: no such place; another run works in ``root``; at the end, lists all problems.
    """
    images, damaged = find_images(place, re.compile(archives, re.IGNORECASE).match)
    tree = DataTree(place, root, sorted(images, key=lambda image: bool(image.member)), **settings)
    lock = FileLock(root / '.prepare.lock', timeout=0)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with lock:
            yield tree
            for folder in root.glob(f'*/{INTERMEDIATE}'):  # renamed first, so that a part is never taken for all of it
                folder.rename(folder.with_name(f'{INTERMEDIATE}.removed'))
            for folder in root.glob(f'*/{INTERMEDIATE}.removed'):
                shutil.rmtree(folder)
        Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        raise UserError(f'another basicsr prepare works in {root}; wait until it has ended, or stop it') from None
    except OSError as error:
        raise UserError(f'{error.filename or root}: {error.strerror or error}') from error
    if tree.problems:
        raise UserError('\n  '.join(['not everything could be created:', *damaged, *tree.problems]))
    for problem in damaged:
        print(f'not needed, but {problem}')


@dataclass(frozen=True)
class CroppedPNG:
    """A file's content → a PNG, cropped to a multiple; None if a side is then shorter than ``smallest``."""

    multiple: int
    smallest: int = 1

    def __call__(self, content: bytes) -> bytes | None:
        image = crop_to_multiple(decode(content), self.multiple)
        return encode(image) if min(image.shape[:2]) >= self.smallest else None

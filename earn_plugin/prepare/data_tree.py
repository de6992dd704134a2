"""The recipes' tree of data sets, made from downloads: existing parts stay, problems are listed at the end."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from earn_plugin.data.bicubic import crop_to_multiple
from earn_plugin.data.folder_or_lmdb import first_few
from earn_plugin.data.image_files import decode, encode
from earn_plugin.errors import UserError
from earn_plugin.prepare.archives import SourceImage, find_images, gather
from earn_plugin.prepare.lr import make_lr
from earn_plugin.prepare.png_folder import check_positive
from earn_plugin.signals import Stopped


@dataclass(frozen=True)
class TreeSettings:
    """How a tree is made."""

    border: str = 'replicate'  # of the bicubic kernel, see ``bicubic.imresize``
    make_lr: bool = False  # make DIV2K's and Flickr2K's LR images if their archive is missing
    allow_missing: bool = False  # make a data set of the images that exist
    jobs: int | None = None  # threads; all cores by default


@dataclass
class DataTree:
    """The tree at ``root``, the images found in the user's ``place`` (files first, then archives), and the problems."""

    place: Path
    root: Path
    images: list[SourceImage]
    settings: TreeSettings = TreeSettings()
    problems: list[str] = field(default_factory=list)

    def make_once(self, path: Path, make: Callable[[], bool]) -> bool:
        """As ``make``, but an existing path is not compared with what would be made."""
        return self.make(path, lambda: not path.exists() and make())

    def make(self, path: Path, make: Callable[[], bool]) -> bool:
        """Make ``path`` by a function that returns False if it exists. A failure becomes a problem; False then."""
        try:
            is_new = make()
        except Stopped:
            raise
        except UserError as error:
            self.add_problem(path, str(error))
            return False
        print(f'{path} {"created" if is_new else "already exists"}')
        return True

    def add_problem(self, path: Path, problem: str) -> None:
        self.problems.append(problem if problem.startswith(str(path)) else f'{path}: {problem}')

    def has_all(self, path: Path, found: Iterable[str], expected: Sequence[str], if_empty: str) -> bool:
        """Whether the images found for ``path`` are those of the data set; if not, a problem is added."""
        found = set(found)
        missing, unknown = sorted(set(expected) - found), sorted(found - set(expected))
        if not found:
            self.add_problem(path, if_empty)
        elif unknown:
            self.add_problem(path, f'{len(unknown)} images do not belong to this set, move them: {_names(unknown)}')
        elif missing and not self.settings.allow_missing:
            hint = '; move the folder away to have it created again' if path.is_dir() else ''
            self.add_problem(path, f'{len(missing)} of {len(expected)} images are missing: {_names(missing)}{hint}')
        else:
            return True
        return False

    def matching(self, pattern: str) -> dict[str, SourceImage]:
        """The images whose names match a pattern: its group ``name``, in lower case → image."""
        images = {}
        for image in self.images:
            match = re.search(pattern, image.name, re.IGNORECASE)
            if match:
                images.setdefault(match['name'].lower(), image)
        return images

    def originals(self, folder: Path, pattern: str, expected: Sequence[str], if_missing: str) -> bool:
        """A folder of images as published, linked or unpacked. True if it exists and is complete.

        Args:
            pattern: see ``matching``.
            expected: the names of the files.
            if_missing: the problem if there are no images.
        """
        if folder.is_dir():
            print(f'{folder} already exists')
            if_empty = 'no images, or broken links; remove it, and it is created again'
            return self.has_all(folder, visible_files(folder), expected, if_empty)
        wanted = set(expected)
        images = {name: image for name, image in self.matching(pattern).items() if name in wanted}
        if not self.has_all(folder, images, expected, if_missing):
            return False
        return self.make(folder, lambda: gather(images, folder, jobs=self.settings.jobs))

    def lr(self, hr: Path, lr: Path, scale: int, suffix: str = '') -> bool:
        return make_lr(hr, lr, scale, border=self.settings.border, suffix=suffix, jobs=self.settings.jobs)


@contextlib.contextmanager
def data_tree(place: Path, root: Path, archives: str, settings: TreeSettings = TreeSettings()) -> Iterator[DataTree]:
    """Search ``place``; then the ``with`` block makes all that can be made.

    Args:
        archives: pattern of the names of the archives to search.

    Raises:
        UserError: no such place; another run works in ``root``; at the end, lists all problems.
    """
    check_positive(jobs=settings.jobs)
    images, damaged = find_images(place, re.compile(archives, re.IGNORECASE).match)
    images.sort(key=lambda image: bool(image.member))
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / '.prepare.lock')
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f'another basicsr prepare works in {root}; wait until it has ended, or stop it') from None
    except OSError as error:
        raise UserError(f'{root} is not writable: {error.strerror or error}') from error
    try:
        tree = DataTree(place, root, images, settings)
        yield tree
        for folder in root.glob('*/.intermediate'):  # renamed first, so that a part is never taken for all of it
            folder.rename(folder.with_name('.intermediate.removed'))
        for folder in root.glob('*/.intermediate.removed'):
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f'{error.filename or root}: {error.strerror or error}') from error
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
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


def intermediate(folder: Path) -> Path:
    """A folder for what no recipe reads; a run after a kill uses it again, the end of a run removes it."""
    return folder / '.intermediate'


def visible_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith('.'))


def _names(names: Sequence[str]) -> str:
    return ', '.join(first_few(names, 5))

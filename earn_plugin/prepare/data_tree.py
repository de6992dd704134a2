"""A run that makes data sets: what is there already stays, what cannot be made is told at the end, the rest is made."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from earn_plugin.data.bicubic import crop_to_multiple
from earn_plugin.data.image_files import decode, encode
from earn_plugin.errors import UsageError, UserError
from earn_plugin.prepare.archives import SourceImage, find_images, gather
from earn_plugin.prepare.lmdb import make_lr
from earn_plugin.signals import Stopped

MOST_NAMED = 5


@dataclass
class Preparation:
    """What was found, where the tree is made, and what could not be made.

    Attributes:
        place: the folder or archive that the user gave.
        out: the root of the tree.
        found: the images in ``place``, files before members of archives.
        border: of the bicubic kernel, see ``bicubic.imresize``.
        allow_missing: make a set of the images that are there.
        jobs: threads; all cores by default.
        problems: a line for each thing that could not be made.
    """

    place: Path
    out: Path
    found: list[SourceImage]
    border: str = 'replicate'
    allow_missing: bool = False
    jobs: int | None = None
    problems: list[str] = field(default_factory=list)

    def make(self, path: Path, make: Callable[[], bool | None]) -> bool:
        """Make ``path`` by a function that gives False where it is there. A failure is noted; False then."""
        try:
            is_new = make()
        except Stopped:
            raise
        except UserError as error:
            self.note(path, str(error))
            return False
        print(f'{path} is {"there already" if is_new is False else "made"}')
        return True

    def note(self, path: Path, problem: str) -> None:
        self.problems.append(problem if problem.startswith(str(path)) else f'{path}: {problem}')

    def is_whole(self, path: Path, there: Iterable[str], expected: Sequence[str], nothing: str) -> bool:
        """Whether the images are those that the set has; if not, it is noted which are missing or too many."""
        there = set(there)
        missing, surplus = sorted(set(expected) - there), sorted(there - set(expected))
        if not there:
            self.note(path, nothing)
        elif surplus:
            self.note(path, f'{len(surplus)} images are not of this set, move them: {first_of(surplus)}')
        elif missing and not self.allow_missing:
            anew = '; move the folder away to have it made anew' if path.is_dir() else ''
            self.note(path, f'{len(missing)} of {len(expected)} images are missing: {first_of(missing)}{anew}')
        else:
            return True
        return False

    def matching(self, pattern: str) -> dict[str, SourceImage]:
        """The images whose names have the pattern: its group ``name``, in lower case → image."""
        images = {}
        for image in self.found:
            match = re.search(pattern, image.name, re.IGNORECASE)
            if match:
                images.setdefault(match['name'].lower(), image)
        return images

    def originals(self, folder: Path, pattern: str, expected: Sequence[str], nothing: str) -> bool:
        """A folder of images as they were published, linked or unpacked. True where it is there and whole.

        Args:
            pattern: see ``matching``.
            expected: the names of the files.
            nothing: what to tell where there are none.
        """
        if folder.is_dir():
            print(f'{folder} is there already')
            empty = 'no images, or links to what is no longer there; remove it, and it is made again'
            return self.is_whole(folder, names_in(folder), expected, empty)
        wanted = set(expected)
        images = {name: image for name, image in self.matching(pattern).items() if name in wanted}
        if not self.is_whole(folder, images, expected, nothing):
            return False
        return self.make(folder, lambda: gather(images, folder))

    def lr(self, hr: Path, lr: Path, scale: int, suffix: str = '') -> bool:
        return make_lr(hr, lr, scale, self.border, suffix, self.jobs)


@contextlib.contextmanager
def preparing(
    place: Path,
    out: Path,
    archives: str,
    border: str = 'replicate',
    allow_missing: bool = False,
    jobs: int | None = None,
) -> Iterator[Preparation]:
    """Look into ``place``; then, in the ``with`` block, make what can be made.

    Args:
        archives: pattern of the names of the archives to look into.
        border, allow_missing, jobs: see ``Preparation``.

    Raises:
        UserError: no such place; another run is at work in ``out``; at the end, all that could not be made.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f'jobs must be at least 1, got {jobs}')
    found, damaged = find_images(place, re.compile(archives, re.IGNORECASE).match)
    found.sort(key=lambda image: bool(image.member))
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / '.prepare.lock')
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f'another basicsr prepare is at work in {out}; wait for it, or end it') from None
    except OSError as error:
        raise UserError(f'{out} cannot be written to: {error.strerror or error}') from error
    try:
        work = Preparation(place, out, found, border, allow_missing, jobs)
        yield work
        for folder in out.glob('*/.making'):  # renamed first: no part of it can be taken for the whole
            folder.rename(folder.with_name('.making.removed'))
        for folder in out.glob('*/.making.removed'):
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f'{error.filename or out}: {error.strerror or error}') from error
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
    if work.problems:
        raise UserError('\n  '.join(['not everything could be made:', *damaged, *work.problems]))
    for problem in damaged:
        print(f'not needed, but {problem}')


@dataclass(frozen=True)
class Cut:
    """The bytes of an image → of a PNG, cut to a multiple; none if a side is then shorter than ``smallest``."""

    multiple: int
    smallest: int = 1

    def __call__(self, found: SourceImage, content: bytes) -> bytes | None:
        image = crop_to_multiple(decode(content, found), self.multiple)
        return encode(image) if min(image.shape[:2]) >= self.smallest else None


def on_the_way(root: Path) -> Path:
    """Where that lies which no recipe reads; a run that was killed finds it again, the end of a run removes it."""
    return root / '.making'


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith('.'))


def files_in(folder: Path) -> dict[str, SourceImage]:
    """The images of a folder by their names."""
    return {name: SourceImage(folder / name, '', name, 0, 0) for name in names_in(folder)}


def first_of(names: Sequence[str]) -> str:
    return ', '.join(names[:MOST_NAMED]) + (' …' if len(names) > MOST_NAMED else '')

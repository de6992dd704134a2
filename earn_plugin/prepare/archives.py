"""Downloaded images, in folders and in archives: found by their names, and gathered into one folder.

Nothing is unpacked to a path from an archive: the caller names the files.
"""

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import Path

from earn_plugin.data.image_headers import read_header
from earn_plugin.errors import UserError
from earn_plugin.prepare.resumable_folder import Files, already_exists, in_threads, resumable_folder, sha256

IMAGES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')
ARCHIVES = ('.zip', '.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tar.xz')
UNFINISHED = ('.part', '.partial', '.crdownload', '.download', '.aria2')  # downloads of browsers, aria2 and others
DEPTH = 6  # levels of subfolders that are searched
# what no published set reaches: VOC2012 has 45,000 files, DIV2K's images have 9 MB and 4 million pixels at most, and
# images that are compressed already hardly become smaller in an archive
MOST_FILES, LARGEST_FILE, MOST_PIXELS, LARGEST_RATIO = 500_000, 2**26, 2**26, 100
# gzip raises OSError, a zip with a password or an unknown compression RuntimeError
DAMAGE = zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError


@dataclass(frozen=True)
class SourceImage:
    """An image: its file, or its archive and the member of it; and the name by which it is searched."""

    file: Path
    member: str = ''
    name: str = ''
    size: int = 0
    offset: int = 0  # in the archive
    info: zipfile.ZipInfo | tarfile.TarInfo | None = field(default=None, repr=False)

    def __str__(self):
        return f'{self.member} in {self.file}' if self.member else str(self.file)


def find_images(place: Path, is_wanted: Callable[[str], object]) -> tuple[list[SourceImage], list[str]]:
    """The images in a folder, its subfolders and their archives; or in one archive.

    The names start with the name of the folder or archive: 0001.png in DIV2K_train_HR.zip is DIV2K_train_HR/0001.png.

    Args:
        is_wanted: whether to search an archive of this name.

    Returns:
        The images, and the problems: folders that cannot be read, archives that are damaged or incomplete.

    Raises:
        UserError: there is no such folder or archive.
    """
    place = Path(os.path.abspath(place))  # noqa: PTH100 (a link keeps its name)
    if not place.is_dir() and not (place.is_file() and is_archive(place)):
        raise UserError(f'{place} is neither a folder nor an archive ({" ".join(ARCHIVES)})')
    images, problems = [], []
    for path in _image_files(place, problems) if place.is_dir() else [place]:
        name = path.relative_to(place.parent).as_posix()
        if is_archive(path) and (is_wanted(path.name) or path == place):
            try:
                images += _members(path)
            except UserError as error:
                problems.append(str(error))
        elif path.suffix.lower() in IMAGES:
            images.append(SourceImage(path, name=name, size=path.stat().st_size))
        elif path.suffix in UNFINISHED and is_archive(path.with_suffix('')) and is_wanted(path.name):
            problems.append(f'{path} is an unfinished download')
    return images, problems


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


def _image_files(place: Path, problems: list[str]) -> Iterator[Path]:
    def skipped(error: OSError) -> None:
        problems.append(f'{error.filename} cannot be read: {error.strerror}')

    seen = set()
    for where, folders, files in os.walk(place, followlinks=True, onerror=skipped):
        here = Path(where)
        real = here.resolve()
        if real in seen or len(here.relative_to(place).parts) > DEPTH:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if _is_plain(name) and not name.endswith('.lmdb'))
        yield from (here / name for name in sorted(files) if _is_plain(name) and (here / name).is_file())


def _is_plain(name: str) -> bool:
    """Whether no part of a path is hidden, added by macOS, or '..'."""
    return not any(part.startswith('.') or part == '__MACOSX' for part in name.split('/'))


def _members(archive: Path) -> list[SourceImage]:
    ending = max(filter(archive.name.lower().endswith, ARCHIVES), key=len)
    with _open(archive) as opened:
        if isinstance(opened, zipfile.ZipFile):
            found = ((i.filename, i.file_size, i.header_offset, i) for i in opened.infolist() if not i.is_dir())
        else:
            found = ((i.name, i.size, i.offset_data, i) for i in opened if i.isfile())
        members = list(_plausible(archive, found))
    return [
        SourceImage(archive, name, f'{archive.name[: -len(ending)]}/{name}', *rest)
        for name, *rest in members
        if name.lower().endswith(IMAGES) and _is_plain(name.removeprefix('./'))
    ]


def _plausible(archive: Path, members: Iterable[tuple]) -> Iterator[tuple]:
    """The members of an archive, which would unpack to the size and number that sets of images have.

    Raises:
        UserError: it unpacks to far more; raised before that is read.
    """
    total, length = 0, archive.stat().st_size
    for count, member in enumerate(members, 1):
        name, size = member[:2]
        total += size
        what = ''
        if name.lower().endswith(IMAGES) and size > LARGEST_FILE:
            what = f'{name} would have {size:,} bytes'
        elif total > LARGEST_FILE + LARGEST_RATIO * length:
            what = f'its {length:,} bytes would become {total:,} and more'
        elif count > MOST_FILES:
            what = f'it has more than {MOST_FILES:,} files'
        if what:
            raise UserError(f'{archive} is not an archive of images as published: {what}; download it again')
        yield member


@contextmanager
def _open(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    """An archive; what fails inside is reported as damage to it."""
    try:
        with zipfile.ZipFile(archive) if archive.name.lower().endswith('.zip') else tarfile.open(archive) as opened:
            yield opened
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno:
            raise UserError(f'{archive} cannot be read: {error.strerror}') from error
        what = error or type(error).__name__
        raise UserError(f'{archive} is damaged or incomplete ({what}); download it again') from error


def contents(images: Iterable[SourceImage]) -> Iterator[tuple[SourceImage, bytes]]:
    """Images with the content of their files; each archive is read once, from front to end.

    Raises:
        UserError: an archive is damaged.
    """
    ordered = sorted(images, key=lambda image: (image.file, image.offset))
    for file, group in groupby(ordered, key=lambda image: image.file):
        if not is_archive(file):
            yield from ((image, file.read_bytes()) for image in group)
            continue
        with _open(file) as opened:
            read = opened.read if isinstance(opened, zipfile.ZipFile) else lambda info: opened.extractfile(info).read()
            for image in group:
                yield image, read(image.info)


def gather(
    images: dict[str, SourceImage],
    folder: Path,
    change: Callable[[bytes], bytes | None] | None = None,
    jobs: int | None = None,
) -> bool:
    """A folder with an image under each of the names. False if it exists already.

    Args:
        images: file name in the folder → image. Files are linked (copied if the system has no links) and never changed;
            images in archives are copied.
        change: the content of an image's file → the content to write, or None to leave the image out. Then nothing is
            linked. Its ``repr`` says what it does.
        jobs: threads; all cores by default.

    Raises:
        UserError: an archive or an image is damaged, or the disk space is not enough to unpack.
    """
    modified = {image.file: image.file.stat().st_mtime_ns for image in images.values()}
    listed = [(name, image, modified[image.file]) for name, image in sorted(images.items())]
    recipe = {'what': 'images', 'change': repr(change), 'sources': len(images), 'from': sha256(repr(listed).encode())}
    if already_exists(folder, recipe):
        return False
    with resumable_folder(folder, recipe) as work:
        work.forget_lost_files()
        missing = {image: name for name, image in images.items() if name not in work.done}
        needed = sum(image.size for image in missing if image.member or change)
        if needed > shutil.disk_usage(work.path).free:
            raise UserError(f'not enough disk space in {folder.parent}: {needed / 2**30:.1f} GiB more are needed')

        def write(item: tuple[SourceImage, bytes]) -> Files:
            image, content = item
            name = missing[image]
            path = work.path / name
            try:
                header = read_header(BytesIO(content))
                if header.height * header.width > MOST_PIXELS:
                    raise ValueError(f'is {header.height}×{header.width}, larger than any image of these sets')
                written = change(content) if change else content
                if written is None:
                    return {}
                path.unlink(missing_ok=True)
                if not (image.member or change):
                    with suppress(OSError, NotImplementedError):  # where the system has no links
                        path.symlink_to(image.file.resolve())
                if not path.is_symlink():
                    path.write_bytes(written)
            except ValueError as error:
                raise UserError(f'{image} {error}') from error
            return {name: [len(written), sha256(written)]}

        counts = {'total': len(images), 'done': len(work.done)}
        for (image, _), files in in_threads(contents(missing), write, label=folder.name, jobs=jobs, **counts):
            work.record(missing[image], files)
    return True

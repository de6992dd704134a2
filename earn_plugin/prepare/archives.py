"""Images as they were downloaded, in folders and in archives: found by their names, and gathered into one folder.

Nothing is ever unpacked to where an archive says: the names of the files made are the caller's.
"""

import contextlib
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from tqdm import tqdm

from earn_plugin.data.image_headers import read_header
from earn_plugin.errors import UserError
from earn_plugin.prepare.resumable_folder import Files, cores, has_size, is_made, making, sha256

IMAGES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')
ARCHIVES = ('.zip', '.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tar.xz')
UNFINISHED = ('.part', '.partial', '.crdownload', '.download', '.aria2')  # as browsers and curl name what they fetch
DEPTH = 6  # folders below the one given
BATCH = 4  # images for each thread that are read ahead
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    OSError,  # gzip's own is one
    RuntimeError,  # a password is asked for
    NotImplementedError,
)


@dataclass(frozen=True, order=True)
class SourceImage:
    """An image: the file that it is or the archive that it is in, and there its name; the name that it is known by."""

    file: Path
    member: str
    name: str
    size: int
    offset: int

    def __str__(self):
        return f'{self.member} in {self.file}' if self.member else str(self.file)


def find_images(place: Path, is_wanted: Callable[[str], object]) -> tuple[list[SourceImage], list[str]]:
    """The images in a folder, in those below it, and in their archives; or in one archive.

    The names start with the name of the folder or archive: in DIV2K_train_HR.zip, 0001.png is DIV2K_train_HR/0001.png.

    Args:
        is_wanted: whether to look into an archive of this name.

    Returns:
        The images, and what is wrong: folders that may not be read, archives damaged or not there whole.

    Raises:
        UserError: there is no such folder or archive.
    """
    place = Path(os.path.abspath(place))  # noqa: PTH100 (a link keeps its name)
    if not place.is_dir() and not (place.is_file() and is_archive(place)):
        raise UserError(f'{place} is neither a folder nor an archive ({" ".join(ARCHIVES)})')
    images, problems = [], []

    def passed_over(error: OSError) -> None:
        problems.append(f'{error.filename} cannot be read: {error.strerror}')

    for path in _files(place, passed_over) if place.is_dir() else [place]:
        name = path.relative_to(place.parent).as_posix()
        if is_archive(path) and (is_wanted(path.name) or path == place):
            try:
                images += _members(path)
            except UserError as error:
                problems.append(str(error))
        elif path.suffix.lower() in IMAGES:
            images.append(SourceImage(path, '', name, path.stat().st_size, 0))
        elif path.suffix in UNFINISHED and is_archive(path.with_suffix('')) and is_wanted(path.name):
            problems.append(f'{path} is a download that has not ended')
    return images, problems


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


def _files(place: Path, passed_over: Callable[[OSError], object]) -> Iterator[Path]:
    seen = set()
    for where, folders, files in os.walk(place, followlinks=True, onerror=passed_over):
        here = Path(where)
        real = here.resolve()
        if real in seen or len(here.relative_to(place).parts) > DEPTH:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if _is_plain(name) and not name.endswith('.lmdb'))
        yield from (here / name for name in sorted(files) if _is_plain(name) and (here / name).is_file())


def _is_plain(name: str) -> bool:
    """Whether all parts of a path are what people name things: no hidden file, nothing that macOS adds, no '..'."""
    return not any(part.startswith('.') or part == '__MACOSX' for part in name.split('/'))


def _members(archive: Path) -> list[SourceImage]:
    lower = archive.name.lower()
    stem = archive.name[: -len(next(end for end in sorted(ARCHIVES, key=len)[::-1] if lower.endswith(end)))]
    with _damage_is_told(archive):
        if lower.endswith('.zip'):
            with zipfile.ZipFile(archive) as file:
                infos = [(i.filename, i.file_size, i.header_offset) for i in file.infolist() if not i.is_dir()]
        else:
            with tarfile.open(archive) as file:
                infos = [(i.name, i.size, i.offset_data) for i in file if i.isfile()]
    return [
        SourceImage(archive, name, f'{stem}/{name}', size, offset)
        for name, size, offset in infos
        if name.lower().endswith(IMAGES) and _is_plain(name.removeprefix('./'))
    ]


@contextlib.contextmanager
def _damage_is_told(archive: Path):
    try:
        yield
    except DAMAGE as error:
        raise UserError(
            f'{archive} is damaged or not there whole ({error or type(error).__name__}); fetch it again'
        ) from None


def contents(images: Iterable[SourceImage]) -> Iterator[tuple[SourceImage, bytes]]:
    """Images with the bytes of their files, each archive read once and from its front to its end.

    Raises:
        UserError: an archive is damaged.
    """
    ordered = sorted(images, key=lambda image: (image.file, image.offset))
    for file, group in groupby(ordered, key=lambda image: image.file):
        inside = {image.offset: image for image in group}
        with _damage_is_told(file), contextlib.ExitStack() as stack:
            if not any(image.member for image in inside.values()):
                for image in inside.values():
                    yield image, file.read_bytes()
            elif file.name.lower().endswith('.zip'):
                archive = stack.enter_context(zipfile.ZipFile(file))
                for info in archive.infolist():
                    if info.header_offset in inside:
                        yield inside[info.header_offset], archive.read(info)
            else:
                archive = stack.enter_context(tarfile.open(file))
                for info in archive:
                    if info.offset_data in inside and info.isfile():
                        yield inside[info.offset_data], archive.extractfile(info).read()


def gather(
    images: dict[str, SourceImage],
    folder: Path,
    change: Callable[[SourceImage, bytes], bytes | None] | None = None,
    jobs: int | None = None,
) -> bool:
    """A folder with an image under each of the names, made as ``making`` says; False where it is there.

    Args:
        images: file name in the folder → image. Files are linked (copied where the system has no links), never
            touched; from archives they are copied.
        change: gives the bytes to write instead of an image's own, or None to leave it out; then nothing is linked. Its
            ``repr`` tells what it does.
        jobs: threads; all cores by default.

    Raises:
        UserError: an archive or an image is damaged, or the disk has too little room for what is to be unpacked.
    """
    modified = {image.file: image.file.stat().st_mtime_ns for image in images.values()}
    listed = [(name, image, modified[image.file]) for name, image in sorted(images.items())]
    recipe = {'what': 'images', 'change': repr(change), 'sources': len(images), 'from': sha256(repr(listed).encode())}
    if is_made(folder, recipe):
        return False
    with making(folder, recipe) as work:
        for name, files in list(work.done.items()):  # a power cut keeps the journal's line and loses the file
            if any(not has_size(work.folder / file, size) for file, (size, _) in files.items()):
                del work.done[name]
        missing = {image: name for name, image in images.items() if name not in work.done}
        room = sum(image.size for image in missing if image.member or change)
        if room > shutil.disk_usage(work.folder).free:
            raise UserError(f'{folder.parent} has no room for {room / 2**30:.1f} GiB more')

        def write(item: tuple[SourceImage, bytes]) -> tuple[str, Files]:
            image, content = item
            name = missing[image]
            path = work.folder / name
            written = change(image, content) if change else content
            if written is None:
                return name, {}
            path.unlink(missing_ok=True)
            if image.member or change or not _is_linked(image.file.resolve(), path):
                path.write_bytes(written)
            try:
                read_header(path)
            except ValueError as error:
                raise UserError(f'{image} {error}') from error
            return name, {name: [len(written), sha256(written)]}

        threads = jobs or cores()
        items = contents(missing)
        with (
            ThreadPoolExecutor(threads) as pool,
            tqdm(desc=folder.name, total=len(images), initial=len(work.done), unit='image', disable=None) as bar,
        ):
            while batch := list(islice(items, BATCH * threads)):
                for name, files in pool.map(write, batch):
                    work.note(name, files)
                    bar.update()
    return True


def _is_linked(file: Path, link: Path) -> bool:
    """Link to a file; False where the system has no links."""
    try:
        link.symlink_to(file)
    except (OSError, NotImplementedError):
        return False
    return True

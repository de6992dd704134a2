"""LMDBs of images as BasicSR reads them."""

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import lmdb as lmdb_library
import numpy as np

from earn_plugin.data.folder_or_lmdb import first_few
from earn_plugin.data.image_files import decode, encode, images_in
from earn_plugin.data.image_headers import PNG_SIGNATURE
from earn_plugin.data.lmdb_damage import with_checksum
from earn_plugin.errors import UsageError, UserError
from earn_plugin.prepare.png_folder import check_positive, usable_images
from earn_plugin.prepare.resumable_folder import already_exists, in_threads, recipe_of, resumable_folder, sha256
from earn_plugin.prepare.subimages import SubImages

ENCODINGS = ('png', 'bmp')
MAP_SIZE = 2**28  # to start with, as the address space may be limited (ulimit -v); a full map is doubled
COMMIT_SECONDS = 0.5  # a kill loses at most the work of this time
Value = tuple[str, bytes, tuple[int, ...]]  # key, content, shape: H×W or H×W×C


def make_lmdb(
    folder: Path,
    lmdb: Path,
    settings: SubImages = SubImages(),  # noqa: B008 (it is frozen)
    *,
    encoding: str = 'png',
    jobs: int | None = None,
) -> bool:
    """An LMDB of a folder of images, or of their sub-images. Keys are names without ending. False if it exists already.

    Complete images that are PNG files are stored byte for byte, everything else is encoded.

    Args:
        lmdb: a name that ends in .lmdb.
        settings: how the images are cut; they stay complete by default.
        encoding: 'bmp' stores the decoded 8-bit values, each with a checksum that is verified when it is read: it needs
            more disk space, and hardly any time to decode.

    Raises:
        UserError: names that BasicSR's LMDBs cannot hold, or as ``make_subimages``.
    """
    if lmdb.suffix != '.lmdb':
        raise UsageError(f'{lmdb} must end in .lmdb: BasicSR requires it')
    if encoding not in ENCODINGS:
        raise UsageError(f'encoding must be one of {", ".join(ENCODINGS)}, got {encoding!r}')
    check_positive(jobs=jobs)
    sources = images_in(folder)
    recipe = recipe_of(sources, what='LMDB', **asdict(settings), encoding=encoding)
    if already_exists(lmdb, recipe, sources):
        return False
    _check_keys(path.stem.removesuffix(settings.suffix) for path in sources)
    sources = usable_images(sources, jobs, only_8_bit=encoding == 'bmp', **settings.needs)
    keeps_png = settings.size is None and settings.multiple == 1 and encoding == 'png'

    def values(path: Path) -> tuple[str, list[Value]]:
        """The checksum of a file, and what is stored of it."""
        content = path.read_bytes()
        try:
            image = decode(content)  # also if the bytes are stored as they are: a damaged image must not get in
            if encoding == 'bmp' and image.dtype != np.uint8:
                raise ValueError(f'has values of {image.dtype}: convert it to 8 bits')
        except ValueError as error:
            raise UserError(f'{path} {error}') from error
        stored = content if keeps_png and content.startswith(PNG_SIGNATURE) else None
        parts = settings.cut(path.stem, image)
        if encoding == 'bmp':
            return sha256(content), [(key, with_checksum(encode(part, '.bmp')), part.shape) for key, part in parts]
        return sha256(content), [(key, stored or encode(part), part.shape) for key, part in parts]

    with resumable_folder(lmdb, recipe) as work:
        remaining = [path for path in sources if path.name not in work.done]
        counts = {'total': len(sources), 'done': len(work.done)}
        results = in_threads(remaining, values, label='LMDB', jobs=jobs, **counts)
        try:
            with lmdb_library.open(str(work.path), map_size=MAP_SIZE) as environment:
                for batch in _batches(results):
                    _put(environment, [value for _, (_, of_image) in batch for value in of_image])
                    for path, (checksum, of_image) in batch:
                        files = {key: [len(c), sha256(c), (*shape, 1)[:3]] for key, c, shape in of_image}
                        work.record(path.name, files, checksum)
        except lmdb_library.Error as error:
            free = shutil.disk_usage(work.path).free  # LMDB reports a full disk as an input/output error
            raise OSError(f'{error}, with {free / 2**20:,.0f} MiB of disk space left') from error
        shapes = [(key, shape) for path in sources for key, (_, _, shape) in work.done[path.name].items()]
        lines = ''.join(f'{key}.png ({",".join(map(str, shape))}) 1\n' for key, shape in shapes)
        (work.path / 'meta_info.txt').write_text(lines, encoding='ascii')
    return True


def _put(environment: lmdb_library.Environment, values: list[Value]) -> None:
    """Store values in one transaction."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, content, _ in values:
                    transaction.put(key.encode('ascii'), content)
            return
        except lmdb_library.MapFullError:
            environment.set_mapsize(2 * environment.info()['map_size'])


def _batches(items: Iterable) -> Iterator[list]:
    """The items that arrive within ``COMMIT_SECONDS``."""
    batch, start = [], time.monotonic()
    for item in items:
        batch.append(item)
        if time.monotonic() - start > COMMIT_SECONDS:
            yield batch
            batch, start = [], time.monotonic()
    if batch:
        yield batch


def _check_keys(names: Iterable[str]) -> None:
    wrong = [
        repr(name)
        for name in names
        if not (name.isascii() and name.isprintable() and '.' not in name and 0 < len(name) <= 500)
    ]
    if wrong:
        title = "BasicSR's LMDBs accept ASCII names of 1 to 500 characters without a dot; rename:"
        raise UserError('\n  '.join([title, *first_few(wrong)]))

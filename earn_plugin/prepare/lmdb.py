"""Folders of images made into what training reads: LR images, sub-images, LMDBs.

Each is there whole or not at all, is made by many threads, and goes on where it was killed. What is there already, made
from the same images with the same settings, is left as it is, and the function returns False.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import lmdb as lmdb_library
import numpy as np

from earn_plugin.data.bicubic import BORDERS, crop_to_multiple, imresize
from earn_plugin.data.image_files import decode, encode, images_in, read_image
from earn_plugin.data.image_headers import Header, read_header
from earn_plugin.errors import UsageError, UserError
from earn_plugin.prepare.resumable_folder import Files, Work, each, has_size, is_made, making, recipe_of, sha256
from earn_plugin.prepare.store import Store

PNG = b'\x89PNG'
ENCODINGS = ('png', 'bmp')
MOST_NAMED = 10
Piece = tuple[str, np.ndarray]  # a name without ending, and an image


def make_lr(
    hr_folder: Path, lr_folder: Path, scale: int, border: str = 'replicate', suffix: str = '', jobs: int | None = None
) -> bool:
    """LR images as MATLAB's bicubic makes them: NAME.png → NAMEsuffix.png.

    Args:
        hr_folder: 8-bit images; each is cut to a multiple of the scale at its right and bottom first.
        scale: 2, 3, …
        border: 'replicate' or 'symmetric', see ``imresize``.
        jobs: threads; all cores by default.

    Raises:
        UserError: images that cannot be read, with all their names; or ``lr_folder`` is there and something else.
    """
    _positive(scale=scale, jobs=jobs)
    if border not in BORDERS:
        raise UsageError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    if '/' in suffix or os.sep in suffix:
        raise UsageError(f'suffix ends the names of files and can have no folder in it, got {suffix!r}')

    def shrink(path: Path) -> Iterable[Piece]:
        image = crop_to_multiple(read_image(path), scale)
        try:
            yield f'{path.stem}{suffix}', imresize(image, Fraction(1, scale), border)
        except ValueError as error:
            raise UserError(f'{path}: {error}') from error

    settings = {'what': 'LR', 'scale': scale, 'border': border, 'suffix': suffix}
    return _make_files(hr_folder, lr_folder, settings, shrink, scale, jobs, only_8_bit=True)


def make_cropped(folder: Path, cropped_folder: Path, multiple: int, jobs: int | None = None) -> bool:
    """The images cut to a multiple of ``multiple`` at their right and bottom, as PNG: what fits the LR to the pixel.

    Raises:
        UserError: as ``make_lr``.
    """
    _positive(multiple=multiple, jobs=jobs)

    def crop(path: Path) -> Iterable[Piece]:
        yield path.stem, crop_to_multiple(read_image(path), multiple)

    settings = {'what': 'cropped', 'multiple': multiple}
    return _make_files(folder, cropped_folder, settings, crop, multiple, jobs)


def make_subimages(
    folder: Path,
    sub_folder: Path,
    size: int,
    step: int,
    suffix: str = '',
    multiple: int = 1,
    skip_small: bool = False,
    jobs: int | None = None,
) -> bool:
    """Sub-images of a folder of images: NAMEsuffix.png → NAME_s001.png, NAME_s002.png, …

    Run on HR with size 480 and step 240 and on LR ×4 with 120 and 60 and the LR's suffix, the names pair.

    Args:
        size, step: of the squares, in pixels; the last ones lie flush with the right and the bottom.
        multiple: what HR is cut to first; needed where the scale does not divide it, so that the last squares fit.
        skip_small: leave out images smaller than ``size``.

    Raises:
        UserError: an image smaller than ``size``, or as ``make_lr``.
    """
    _positive(size=size, step=step, multiple=multiple, jobs=jobs)

    def cut(path: Path) -> Iterable[Piece]:
        squares = subimages(crop_to_multiple(read_image(path), multiple), size, step)
        return _numbered(path.stem.removesuffix(suffix), squares)

    settings = {
        'what': 'sub-images',
        'size': size,
        'step': step,
        'suffix': suffix,
        'multiple': multiple,
        'skip_small': skip_small,
    }
    smallest = -(-size // multiple) * multiple
    return _make_files(folder, sub_folder, settings, cut, smallest, jobs, skip_small=skip_small, dropped=suffix)


def make_lmdb(
    folder: Path,
    lmdb: Path,
    size: int | None = None,
    step: int | None = None,
    suffix: str = '',
    multiple: int = 1,
    skip_small: bool = False,
    encoding: str = 'png',
    jobs: int | None = None,
) -> bool:
    """An LMDB of a folder of images, or of their sub-images, as BasicSR reads it: keys are names without their ending.

    Whole images that are PNG files go in byte for byte, all else is encoded.

    Args:
        lmdb: ends in .lmdb.
        size, step, suffix, multiple, skip_small: as in ``make_subimages``, which is then not needed before.
        encoding: 'bmp' stores the decoded 8-bit values: more room, and next to no time for decoding.

    Raises:
        UserError: names that BasicSR's LMDBs cannot hold, or as ``make_subimages``.
    """
    if lmdb.suffix != '.lmdb':
        raise UsageError(f'{lmdb} must end in .lmdb: so BasicSR knows an LMDB')
    if encoding not in ENCODINGS:
        raise UsageError(f'encoding must be one of {", ".join(ENCODINGS)}, got {encoding!r}')
    if (size is None) != (step is None):
        raise UsageError(f'size and step belong together, got {size} and {step}')
    _positive(size=size, step=step, multiple=multiple, jobs=jobs)
    sources = images_in(folder)
    settings = {
        'what': 'LMDB',
        'size': size,
        'step': step,
        'suffix': suffix,
        'multiple': multiple,
        'skip_small': skip_small,
        'encoding': encoding,
    }
    recipe = recipe_of(sources, **settings)
    if is_made(lmdb, recipe):
        return False
    _check_keys(path.stem.removesuffix(suffix) for path in sources)
    sources = _usable(sources, -(-(size or 1) // multiple) * multiple, jobs, encoding == 'bmp', skip_small, suffix)

    def values(path: Path) -> list[tuple[str, bytes, tuple[int, ...]]]:
        content = path.read_bytes()
        image = decode(content, path)  # also where the bytes are kept: what is damaged must not get in
        if encoding == 'bmp' and image.dtype != np.uint8:  # what the header does not tell of every format
            raise UserError(f'{path} has values of {image.dtype}: convert it to 8 bits')
        name = path.stem.removesuffix(suffix)
        if size is None and multiple == 1 and encoding == 'png' and content.startswith(PNG):
            return [(name, content, image.shape)]
        image = crop_to_multiple(image, multiple)
        pieces = [(name, image)] if size is None else _numbered(name, subimages(image, size, step))
        return [(key, encode(piece, f'.{encoding}'), piece.shape) for key, piece in pieces]

    with making(lmdb, recipe) as work:
        remaining = [path for path in sources if path.name not in work.done]
        put: dict[str, Files] = {}
        try:
            with closing(Store(work.folder)) as store:
                for path, found in each(remaining, values, 'LMDB', len(work.done), jobs):
                    for key, value, _ in found:
                        store.put(key, value)
                    put[path.name] = {key: [len(v), sha256(v), (*shape, 1)[:3]] for key, v, shape in found}
                    if store.is_due:
                        _commit(store, work, put)
                _commit(store, work, put)
        except lmdb_library.Error as error:
            free = shutil.disk_usage(work.folder).free  # LMDB tells of a full disk as an input/output error
            raise OSError(f'{error}, with {free / 2**20:,.0f} MiB free on the disk') from error
        shapes = [(key, shape) for path in sources for key, (_, _, shape) in work.done[path.name].items()]
        lines = ''.join(f'{key}.png ({",".join(map(str, shape))}) 1\n' for key, shape in shapes)
        (work.folder / 'meta_info.txt').write_text(lines, encoding='ascii')
    return True


def _commit(store: Store, work: Work, put: dict[str, Files]) -> None:
    store.commit()
    for source, files in put.items():
        work.note(source, files)
    put.clear()


def subimages(image: np.ndarray, size: int, step: int) -> Iterable[np.ndarray]:
    """The squares of side ``size`` at every ``step``, and those flush with the right and bottom; row by row."""

    def starts(length: int) -> list[int]:
        return sorted({*range(0, length - size + 1, step), length - size}) if length >= size else []

    for top in starts(image.shape[0]):
        for left in starts(image.shape[1]):
            yield image[top : top + size, left : left + size]


def _numbered(name: str, squares: Iterable[np.ndarray]) -> Iterable[Piece]:
    """NAME_s001, NAME_s002, …: as BasicSR's script names them."""
    for number, square in enumerate(squares, 1):
        yield f'{name}_s{number:03d}', square


def _make_files(
    folder: Path,
    target: Path,
    settings: dict,
    pieces: Callable[[Path], Iterable[Piece]],
    smallest: int,
    jobs: int | None,
    only_8_bit: bool = False,
    skip_small: bool | None = None,
    dropped: str = '',
) -> bool:
    """A PNG for each piece of each image of a folder; see ``_usable``."""
    sources = images_in(folder)
    recipe = recipe_of(sources, **settings)
    if is_made(target, recipe):
        return False
    sources = _usable(sources, smallest, jobs, only_8_bit, skip_small, dropped)

    with making(target, recipe) as work:
        lost = [
            source
            for source, files in work.done.items()
            if any(not has_size(work.folder / name, size) for name, (size, _) in files.items())
        ]
        for source in lost:  # a power cut keeps the journal's line and loses the file
            del work.done[source]

        def write(path: Path) -> Files:
            files = {}
            for name, piece in pieces(path):
                content = encode(piece)
                (work.folder / f'{name}.png').write_bytes(content)
                files[f'{name}.png'] = [len(content), sha256(content)]
            return files

        remaining = [path for path in sources if path.name not in work.done]
        for path, files in each(remaining, write, settings['what'], len(work.done), jobs):
            work.note(path.name, files)
    return True


def _usable(
    sources: Sequence[Path], smallest: int, jobs: int | None, only_8_bit: bool, skip_small: bool | None, dropped: str
) -> list[Path]:
    """The sources that are large enough, after a look at all headers.

    Args:
        skip_small: None where the command has no such option.
        dropped: what is taken off the end of the names.

    Raises:
        UserError: what cannot be used, all of it.
    """
    usable, findings, names = [], [], {}
    for path, header in each(sources, _header, 'headers', jobs=jobs):
        first = names.setdefault(path.stem.removesuffix(dropped), path.name)
        if first != path.name:
            findings.append(f'{path.name} and {first} would get the same name')
        if isinstance(header, str):
            findings.append(f'{path.name} {header}')
        elif only_8_bit and '16' in header.kind:
            findings.append(f'{path.name} is {header.kind}: convert it to 8 bits')
        elif min(header.height, header.width) >= smallest:
            usable.append(path)
        elif not skip_small:
            findings.append(f'{path.name} is {header.height}×{header.width}, smaller than {smallest}×{smallest}')
    if not findings and not usable:
        findings.append(f'all its images are smaller than {smallest}')
    if findings:
        has_small = any('smaller' in finding for finding in findings)
        hint = ' (--skip-small leaves small ones out)' if has_small and skip_small is False else ''
        raise UserError(_listed(f'{sources[0].parent} cannot be used as it is{hint}', findings))
    return usable


def _header(path: Path) -> Header | str:
    try:
        return read_header(path)
    except (OSError, ValueError) as error:
        return str(error)


def _check_keys(names: Iterable[str]) -> None:
    wrong = [repr(name) for name in names if not _is_key(name)]
    if wrong:
        raise UserError(_listed("BasicSR's LMDBs take ASCII names of 1 to 500 letters, without a dot; rename", wrong))


def _is_key(name: str) -> bool:
    return name.isascii() and name.isprintable() and '.' not in name and 0 < len(name) <= 500


def _listed(title: str, findings: list[str]) -> str:
    more = [f'and {len(findings) - MOST_NAMED} more'] if len(findings) > MOST_NAMED else []
    return '\n  '.join([f'{title}:', *findings[:MOST_NAMED], *more])


def _positive(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UsageError(f'{name} must be at least 1, got {number}')

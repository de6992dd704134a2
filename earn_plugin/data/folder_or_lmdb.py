"""Where images are: a folder or an LMDB of BasicSR's layout, listed and read by name."""

import os
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb

from earn_plugin.data.image_headers import Header
from earn_plugin.errors import UserError

LMDB_MAGIC = 0xBEEFC0DE


class Problem(NamedTuple):
    """A file, key or folder, and what is wrong with it: '… is cut off'."""

    where: str
    what: str

    def __str__(self):
        return f'{self.where} {self.what}'


class Folder:
    """The files of a folder, hidden ones left out, as BasicSR lists them; ``recursive`` has those below it too.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, root: Path, recursive: bool = False):
        self.root = root
        if not root.is_dir():
            raise UserError(f'there is no folder {root}')
        names = sorted(_files(root, recursive))
        self.names = [name for name in names if name in self]
        self.broken = sorted(set(names).difference(self.names))  # links to nothing

    def label(self, name: str) -> str:
        return str(self.root / name)

    def __contains__(self, name: str) -> bool:
        return (self.root / name).is_file()

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def findings(self, names: Iterable[str]) -> Iterator[Problem]:
        """Names that BasicSR or another system will not take."""
        for name in self.broken:
            yield Problem(self.label(name), 'is a link to what is not there')
        lower, keys = defaultdict(list), defaultdict(list)
        for name in names:
            stem = name.rpartition('.')[0] or name
            if not name.isascii():
                yield Problem(
                    self.label(name), "is not an ASCII name: BasicSR's LMDB refuses it, and so does cv2 on Windows"
                )
            if any(character.isspace() for character in name):
                yield Problem(
                    self.label(name), "has a space in its name: BasicSR's meta_info files end a name at a space"
                )
            if '.' in stem:
                yield Problem(self.label(name), "has a dot in its name: BasicSR's LMDB ends a key at the first dot")
            lower[name.lower()].append(name)
            keys[stem].append(name)
        for names_alike, why in ((lower, 'on Windows and macOS'), (keys, 'as LMDB keys')):
            for first, *others in names_alike.values():
                for other in others:
                    yield Problem(self.label(other), f'has the same name as {first} {why}')


def _files(folder: str | Path, recursive: bool, before: str = '') -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.name.startswith('.'):
            continue
        is_broken = entry.is_symlink() and not Path(entry.path).exists()
        if is_broken or entry.is_file():
            yield before + entry.name
        elif recursive and entry.is_dir():
            yield from _files(entry.path, recursive, f'{before}{entry.name}/')


class LMDB:
    """An LMDB by its meta_info.txt, as BasicSR reads it. Close it: a process may open an LMDB only once.

    Raises:
        UserError: not an LMDB that BasicSR can read.
    """

    def __init__(self, root: Path):
        self.root = root
        if root.suffix != '.lmdb' or not root.is_dir():
            raise UserError(f'{root} must be a folder that ends in .lmdb')
        for file in ('data.mdb', 'meta_info.txt'):
            if not (root / file).is_file():
                raise UserError(f'{root} is no LMDB of BasicSR: it has no {file}')
        self.shapes = lmdb_shapes(root)
        self.names = sorted(self.shapes)
        try:
            self.environment = lmdb.open(str(root), readonly=True, lock=False, readahead=False)
            with self.environment.begin() as reading:
                self.stored = {
                    key.decode('ascii', 'backslashreplace') for key in reading.cursor().iternext(True, False)
                }
        except lmdb.Error as error:
            raise UserError(f'{root} cannot be read: {error}') from error

    def label(self, name: str) -> str:
        return f'{self.root}:{name}'

    def __contains__(self, name: str) -> bool:
        return name in self.stored

    def read(self, name: str) -> bytes:
        with self.environment.begin() as reading:
            content = reading.get(name.encode())
        if content is None:
            raise FileNotFoundError(name)
        return content

    def findings(self, names: Iterable[str]) -> Iterator[Problem]:
        for key in sorted(self.stored.difference(self.shapes)):
            yield Problem(self.label(key), 'is stored, but meta_info.txt does not have it: BasicSR will not read it')

    def close(self) -> None:
        self.environment.close()


def open_source(root: Path, recursive: bool = False) -> Folder | LMDB:
    """A folder, or an LMDB where it is one or is named like one.

    Raises:
        UserError: neither, or it may not be read.
    """
    try:
        is_lmdb = root.suffix == '.lmdb' or (root / 'data.mdb').is_file()
        return LMDB(root) if is_lmdb else Folder(root, recursive)
    except OSError as error:
        raise UserError(f'{root} cannot be read: {error}') from error


def lmdb_shapes(root: Path) -> dict[str, tuple[int, ...]]:
    """key → (height, width, channels), from the text that BasicSR writes beside an LMDB.

    Raises:
        UserError: a line is not as BasicSR writes them, or the LMDB is cut off.
    """
    check_length(root)
    file = root / 'meta_info.txt'
    shapes = {}
    for number, line in enumerate(file.read_text(encoding='utf-8', errors='replace').splitlines(), 1):
        name, _, shape = line.rpartition('(')  # the key may have brackets, too
        try:
            sizes = tuple(int(size) for size in shape.partition(')')[0].split(',') if size)
            if not name or len(sizes) not in (2, 3):
                raise ValueError
        except ValueError:
            raise UserError(
                f'{file}: line {number} is not "name.png (height,width,channels) level": {line!r}'
            ) from None
        shapes[name.partition('.')[0]] = sizes
    return shapes


def check_length(root: Path) -> None:
    """Check that an LMDB is as long as its first pages say: what reads beyond its end is killed (SIGBUS).

    Raises:
        UserError: it is cut off, or no LMDB.
    """
    file = root / 'data.mdb'
    with file.open('rb') as opened:
        first, length = opened.read(2**17), opened.seek(0, 2)
    try:  # both meta pages: 16 bytes of a page's header, then magic, …, size of a page, …, last page, transaction
        magic, page = struct.unpack_from('=16xI20xI', first)
        last, _ = max((struct.unpack_from('=136xQQ', first, start) for start in (0, page)), key=lambda meta: meta[1])
    except struct.error:
        magic, page, last = 0, 0, 0
    if magic != LMDB_MAGIC:
        raise UserError(f'{root} cannot be read: {file.name} is cut off, or no LMDB; make it anew')
    if length < (last + 1) * page:
        raise UserError(f'{file} is cut off: it has {length:,} of {(last + 1) * page:,} bytes; copy or make it anew')


def lmdb_header(shape: tuple[int, ...]) -> Header:
    height, width, channels = (*shape, 3)[:3]
    return Header(height, width, {1: 'grey', 3: '', 4: 'RGBA'}.get(channels, f'of {channels} channels'))

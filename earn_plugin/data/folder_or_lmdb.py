"""Where images are: a folder, or an LMDB as BasicSR writes it, listed and read by name."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb

from earn_plugin.data.image_headers import Header
from earn_plugin.data.lmdb_damage import check_length, check_pages, is_damaged
from earn_plugin.errors import UserError


class Problem(NamedTuple):
    """A file, key or folder, and what is wrong with it: 'HR/0001.png', 'is cut off'."""

    where: str
    what: str

    def __str__(self):
        return f'{self.where} {self.what}'


def first_few(lines: Iterable[object], count: int = 10) -> list[str]:
    """The first lines of a message, and how many more there are."""
    lines = [str(line) for line in lines]
    more = len(lines) - count
    return [*lines[:count], f'and {more} more'] if more > 0 else lines


class Folder:
    """The files of a folder without hidden ones, as BasicSR lists them; ``recursive`` includes its subfolders.

    Raises:
        UserError: there is no such folder, or it cannot be read.
    """

    def __init__(self, root: Path, recursive: bool = False):
        self.root = root
        try:
            if not root.is_dir():
                raise UserError(f'there is no folder {root}')
            names = sorted(_files(root, recursive))
        except OSError as error:
            raise UserError(f'{root} cannot be read: {error.strerror}') from error
        self.names = [name for name in names if name in self]
        self.broken = sorted(set(names).difference(self.names))  # broken links

    def label(self, name: str) -> str:
        return str(self.root / name)

    def __contains__(self, name: str) -> bool:
        return (self.root / name).is_file()

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def name_problems(self, names: Iterable[str]) -> Iterator[Problem]:
        """Broken links, and names that BasicSR or another system does not accept."""
        for name in self.broken:
            yield Problem(self.label(name), 'is a broken link')
        lower, keys = defaultdict(list), defaultdict(list)
        for name in names:
            label, stem = self.label(name), name.rpartition('.')[0] or name
            if not name.isascii():
                yield Problem(label, "is not an ASCII name: BasicSR's LMDB and cv2 on Windows do not accept it")
            if re.search(r'\s', name):
                yield Problem(label, "has a space in its name: BasicSR's meta_info files end a name at a space")
            if '.' in stem:
                yield Problem(label, "has a dot in its name: BasicSR's LMDB ends a key at the first dot")
            lower[name.lower()].append(name)
            keys[stem].append(name)
        for alike, why in ((lower, 'on Windows and macOS'), (keys, 'as LMDB keys')):
            for first, *others in alike.values():
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
    """An LMDB with the keys of its meta_info.txt, as BasicSR reads it. A process may open an LMDB only once: close it.

    Raises:
        UserError: not an LMDB that BasicSR can read.
    """

    def __init__(self, root: Path):
        self.root = root
        if root.suffix != '.lmdb' or not root.is_dir():
            raise UserError(f'{root} must be a folder whose name ends in .lmdb')
        for file in ('data.mdb', 'meta_info.txt'):
            if not (root / file).is_file():
                raise UserError(f'{root} is not an LMDB of BasicSR: it has no {file}')
        check_pages(root)
        self.shapes = lmdb_shapes(root)
        self.names = sorted(self.shapes)
        try:
            self.environment = lmdb.open(str(root), readonly=True, lock=False, readahead=False)
            with self.environment.begin() as reading:
                keys = reading.cursor().iternext(values=False)
                self.stored = {key.decode('ascii', 'backslashreplace') for key in keys}
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
        if is_damaged(content):
            raise OSError('it differs from its checksum')
        return content

    def name_problems(self, names: Iterable[str]) -> Iterator[Problem]:
        """Keys that are stored but not listed."""
        for key in sorted(self.stored.difference(self.shapes)):
            yield Problem(self.label(key), 'is stored but not listed in meta_info.txt: BasicSR does not read it')

    def close(self) -> None:
        self.environment.close()


def open_source(root: Path, recursive: bool = False) -> Folder | LMDB:
    """An LMDB if the root is one or is named like one, else a folder.

    Raises:
        UserError: neither, or it cannot be read.
    """
    try:
        is_lmdb = root.suffix == '.lmdb' or (root / 'data.mdb').is_file()
        return LMDB(root) if is_lmdb else Folder(root, recursive)
    except OSError as error:
        raise UserError(f'{root} cannot be read: {error}') from error


def lmdb_shapes(root: Path) -> dict[str, tuple[int, ...]]:
    """key → (height, width, channels), from the meta_info.txt that BasicSR writes into an LMDB's folder.

    Raises:
        UserError: a line has another format, or the LMDB is cut off.
    """
    check_length(root)
    file = root / 'meta_info.txt'
    shapes = {}
    for number, line in enumerate(file.read_text(encoding='utf-8', errors='replace').splitlines(), 1):
        match = re.match(r'(.+)\((\d+), *(\d+)(?:, *(\d+))?,?\)', line)  # the key may have brackets itself
        if not match:
            raise UserError(f'{file}: line {number} is not "name.png (height,width,channels) level": {line!r}')
        name, *sizes = match.groups()
        shapes[name.partition('.')[0]] = tuple(int(size) for size in sizes if size)
    return shapes


def lmdb_header(shape: tuple[int, ...]) -> Header:
    height, width, channels = (*shape, 3)[:3]
    return Header(height, width, {1: 'grey', 3: '', 4: 'RGBA'}.get(channels, f'of {channels} channels'))

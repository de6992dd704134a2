"""Files and folders that are written atomically: they exist with all of their content, or not at all."""

import os
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from earn_plugin.errors import UserError


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name once its content is on the disk; if writing fails, an earlier file is kept.

    Raises:
        OSError: writing failed; no partial file is left.
    """
    temporary = _temporary_name(Path(path))
    try:
        with temporary.open('x+b') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(temporary.parent)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path with the same ending, for a library that writes by name; renamed as by ``atomic_file``.

    Only a power cut can undo the renaming; the content is on the disk then.

    Raises:
        OSError: writing failed; no partial file is left.
    """
    temporary = _temporary_name(path)
    temporary = temporary.with_name(temporary.name + path.suffix)
    try:
        yield temporary
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_file(path: Path, content: bytes) -> None:
    """Write a file as ``atomic_file`` does.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with atomic_file(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error}') from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that takes its name once everything is in it; after a failure it does not exist.

    Raises:
        FileExistsError: the path exists already, or another process created it in the meantime.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f'{path} exists')
    temporary = _temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if path.exists():
                raise FileExistsError(f'{path} exists') from None
            raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove the partial files of a killed process from a folder that no other process writes to."""
    for path in Path(folder).iterdir():
        if path.is_file() and re.fullmatch(r'\..+\.\w{8}', path.name):  # as atomic_file names them
            path.unlink()


def remove_leftovers_of(paths: Iterable[Path]) -> None:
    """Remove what a killed ``atomic_path`` has left of these files; other files of their folders may be anyone's."""
    names = defaultdict(set)
    for path in paths:
        names[path.parent].add(path.name)
    for folder in filter(Path.is_dir, names):
        for path in folder.iterdir():
            match = re.fullmatch(r'\.(.+)\.[0-9a-f]{8}(\.\w+)', path.name)
            if match and match[1] in names[folder] and match[1].endswith(match[2]):
                path.unlink(missing_ok=True)


def _temporary_name(path: Path) -> Path:
    """A hidden name next to the path. What is created there has the permissions that the umask leaves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f'.{path.name}.{secrets.token_hex(4)}')


def sync_folder(path: Path) -> None:
    """Make a rename survive a power cut, where the system supports it."""
    if os.name == 'posix':
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

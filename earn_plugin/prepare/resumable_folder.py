"""A folder made image by image by many threads, which can be resumed after a kill and gets its name when complete.

The work is done in ``.NAME.partial`` next to the target. A journal there has a line for each source that is done, with
the files made of it; what is not in the journal is made again. The finished folder holds ``.manifest.json`` with the
checksums of the sources and of the files. A file that the system has changed since the manifest was written (its ctime,
which nobody can set back) is read and compared; for 30,000 unchanged images that is a look at their times.

Threads are enough: decoding, encoding, resizing and hashing release Python's lock; and they end with the process.
"""

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, TypeVar

from filelock import FileLock, Timeout
from tqdm import tqdm

from earn_plugin.atomic_files import atomic_file, remove_leftovers, sync_folder
from earn_plugin.data.folder_or_lmdb import LMDB
from earn_plugin.data.image_headers import read_header
from earn_plugin.data.lmdb_damage import check_pages
from earn_plugin.errors import UserError
from earn_plugin.signals import Stopped, signal_number

MANIFEST = '.manifest.json'
JOURNAL = '.journal'
Files = dict[str, list]  # name → [bytes, SHA-256, …]
Source = TypeVar('Source')
Result = TypeVar('Result')


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def recipe_of(sources: Sequence[Path], **settings: Any) -> dict[str, Any]:
    """What a folder is made from and how: the sources' names, sizes and times, and the settings."""
    states = [(path.name, path.stat()) for path in sources]
    listed = '\n'.join(f'{name} {state.st_size}' for name, state in states)
    return {
        **settings,
        'sources': len(sources),
        'names_and_sizes': sha256(os.fsencode(listed)),
        'modified': sha256(repr([state.st_mtime_ns for _, state in states]).encode()),
    }


def _without_times(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe as a manifest has it: copied sources have other times, which matter only for resuming."""
    return {key: value for key, value in recipe.items() if key != 'modified'}


def _changed(paths: dict[str, Path], checksums: dict[str, str], since: int) -> list[str]:
    """The names whose files have another checksum, of those that have changed since a time in ns."""
    known = ((name, path, path.stat()) for name, path in paths.items() if name in checksums)
    newer = {name: path for name, path, state in known if max(state.st_ctime_ns, state.st_mtime_ns) >= since}
    if not newer:
        return []
    read = in_threads(newer, lambda name: sha256(newer[name].read_bytes()), label='verify', total=len(newer))
    return [name for name, checksum in read if checksum != checksums[name]]


def _changed_values(lmdb: Path, files: Files) -> list[str]:
    """The keys of an LMDB that are missing, listed with another size, or whose values have another checksum."""
    opened = LMDB(lmdb)

    def checksum(key: str) -> str | None:
        try:
            content = opened.read(key)
            header = read_header(BytesIO(content))
            return sha256(content) if opened.shapes[key][:2] == header[:2] else None
        except (OSError, ValueError, KeyError):  # missing, not listed, or different from its own checksum
            return None

    try:
        read = in_threads(files, checksum, label='verify', total=len(files))
        return [key for key, found in read if found != files[key][1]] + sorted(set(opened.names).difference(files))
    finally:
        opened.close()


def _lost_files(folder: Path, files: Files) -> list[str]:
    """The files that are missing or have another size."""
    paths = {name: folder / name for name in files}
    return [name for name, path in paths.items() if not path.is_file() or path.stat().st_size != files[name][0]]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A finished folder's recipe, count, bytes and files {name: [bytes, SHA-256]}; None if it has no manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
        sizes, is_dict = [size for size, _ in manifest['files'].values()], isinstance(manifest['recipe'], dict)
        if not is_dict or (manifest['count'], manifest['bytes']) != (len(sizes), sum(sizes)):
            raise ValueError('its recipe, count or bytes do not fit its files')
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f'{folder / MANIFEST} is damaged ({error}); remove {folder} and create it again') from error
    return manifest


class PartialFolder:
    """The folder of unfinished work: its ``path``, and the sources that are ``done`` with the files made of them."""

    def __init__(self, path: Path, recipe: dict[str, Any]):
        self.path = path
        remove_leftovers(path)  # of a kill while the manifest was written
        lines = []
        with suppress(FileNotFoundError, ValueError):  # a kill or a power cut may leave a part of the last line
            for line in (path / JOURNAL).read_text(encoding='utf-8').splitlines():
                lines.append(json.loads(line))
        if not lines or lines[0] != {'recipe': recipe}:
            lines = [{'recipe': recipe}]
            for old in path.iterdir():
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        self.done: dict[str, Files] = {line['source']: line['files'] for line in lines[1:]}
        self.sources: dict[str, str] = {line['source']: line['sha256'] for line in lines[1:] if line.get('sha256')}
        (path / JOURNAL).write_text(''.join(json.dumps(line) + '\n' for line in lines), encoding='utf-8')
        self._journal = (path / JOURNAL).open('a', encoding='utf-8')

    def record(self, source: str, files: Files, checksum: str | None = None) -> None:
        """Record that a source with this SHA-256 is done and that all files made of it are in the folder."""
        self.done[source] = files
        if checksum:
            self.sources[source] = checksum
        self._journal.write(json.dumps({'source': source, 'files': files, 'sha256': checksum}) + '\n')
        self._journal.flush()

    def forget_lost_files(self) -> None:
        """Take sources whose files are gone as not done: a power cut can keep the journal's line and lose the file."""
        for source, files in list(self.done.items()):
            if _lost_files(self.path, files):
                del self.done[source]

    def write_manifest(self, recipe: dict[str, Any]) -> None:
        files = {name: entry[:2] for of_source in self.done.values() for name, entry in of_source.items()}
        manifest = {
            'made_by': 'earn_plugin',
            'recipe': _without_times(recipe),
            'count': len(files),
            'bytes': sum(size for size, _ in files.values()),
            'files': dict(sorted(files.items())),
            'sources': dict(sorted(self.sources.items())),
        }
        with atomic_file(self.path / MANIFEST) as file:
            file.write(json.dumps(manifest).encode())

    def close(self) -> None:
        self._journal.close()


def already_exists(target: Path, recipe: dict[str, Any], sources: Sequence[Path] = ()) -> bool:
    """Whether the target exists, made by the same recipe from the same sources.

    Raises:
        UserError: something else has its name, a source has changed, or some of its files are missing or changed.
    """
    if not os.path.lexists(target):  # true for a broken link
        return False
    manifest, recipe = read_manifest(target), _without_times(recipe)
    if manifest is None:
        raise UserError(f'{target} exists, and was not created by this command: remove it, or choose another name')
    if manifest['recipe'] != recipe:
        pairs = (manifest['recipe'], recipe), (recipe, manifest['recipe'])
        then, now = (
            ', '.join(f'{key} {one[key]}' for key in one if one[key] != other.get(key)) for one, other in pairs
        )
        raise UserError(f'{target} exists, made from other images or settings ({then}; now {now}): remove it first')
    now, file = time.time_ns(), target / MANIFEST
    written = file.stat().st_mtime_ns
    changed = _changed({path.name: path for path in sources}, manifest.get('sources', {}), written)
    if changed:
        more = ', …' if len(changed) > 1 else ''
        raise UserError(f'{target} exists, but {changed[0]}{more} has changed since it was created: remove it first')
    check_complete(target)
    with suppress(OSError):  # what was compared now need not be compared again
        os.utime(file, ns=(now, now))
    return True


def check_complete(target: Path) -> None:
    """Check that the files of a finished folder are unchanged; one without a manifest is not checked.

    Raises:
        UserError: some are missing or changed.
    """
    manifest = read_manifest(target)
    if manifest is None:
        return
    written, files = (target / MANIFEST).stat().st_mtime_ns, manifest['files']
    if manifest['recipe'].get('what') == 'LMDB':  # which keeps all images in one file
        paths = [target / name for name in ('data.mdb', 'meta_info.txt')]
        lost = [path.name for path in paths if not path.is_file()]
        if not lost:
            check_pages(target)
        if not lost and any(path.stat().st_ctime_ns >= written for path in paths):
            lost = _changed_values(target, files)
    else:
        lost = _lost_files(target, files)
        if not lost:
            checksums = {name: checksum for name, (_, checksum) in files.items()}
            lost = _changed({name: target / name for name in files}, checksums, written)
    if lost:
        more = ', …' if len(lost) > 1 else ''
        raise UserError(f'{target} is no longer complete, {lost[0]}{more} is missing or changed: remove it first')


@contextmanager
def resumable_folder(target: Path, recipe: dict[str, Any]) -> Iterator[PartialFolder]:
    """Work on a target that does not exist yet; it exists once the block has ended without an error.

    Raises:
        UserError: another process works on it, the disk is full or not writable; finished work is kept.
        Stopped: Ctrl-C or SIGTERM; finished work is kept.
    """
    lock = FileLock(target.with_name(f'.{target.name}.lock'))
    partial = target.with_name(f'.{target.name}.partial')
    done: dict[str, Files] = {}

    def kept() -> str:
        how = '; run the same command again to resume' if done else ''
        return f'{len(done)} of {recipe["sources"]} images are done{how}'

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        if target.exists():
            raise UserError(f'another process has created {target} in the meantime')
        partial.mkdir(exist_ok=True)
        with closing(PartialFolder(partial, recipe)) as work:
            done = work.done
            yield work
            work.write_manifest(recipe)
        if hasattr(os, 'sync'):
            os.sync()  # once for all files, before the folder gets its name
        (partial / JOURNAL).unlink()
        partial.rename(target)
        sync_folder(target.parent)
        Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        raise UserError(f'another process is creating {target}; wait until it has ended, or stop it') from None
    except KeyboardInterrupt as interrupt:
        raise Stopped(signal_number(interrupt), f'stopped; {kept()}') from None
    except OSError as error:
        raise UserError(f'{target} could not be completed: {error}; {kept()}') from error
    finally:
        lock.release()


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def in_threads(
    sources: Iterable[Source],
    function: Callable[[Source], Result],
    *,
    label: str,
    total: int,
    done: int = 0,
    jobs: int | None = None,
    bar_file: TextIO | None = None,
) -> Iterator[tuple[Source, Result]]:
    """Each source with the function's result, in order, computed by ``jobs`` threads (all cores by default).

    A progress bar on a terminal (standard error by default) counts from ``done`` to ``total``. Only a few sources and
    results are in memory at any time.
    """
    jobs = jobs or available_cores()
    waiting: deque = deque()
    remaining = iter(sources)
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(desc=label, total=total, initial=done, unit='image', disable=None, file=bar_file) as bar,
    ):
        try:
            while True:
                for source in islice(remaining, 2 * jobs - len(waiting)):
                    waiting.append((source, pool.submit(function, source)))
                if not waiting:
                    return
                source, future = waiting.popleft()
                yield source, future.result()
                bar.update()
        finally:
            for _, future in waiting:
                future.cancel()

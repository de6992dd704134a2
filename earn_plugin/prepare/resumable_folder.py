"""A folder made image by image, by many threads, that goes on after a kill and takes its name when it is whole.

Work is done in ``.NAME.partial`` beside the target. A journal there has a line for each source that is done, with what
came of it; whatever is not in the journal counts as not there. The finished folder holds ``.manifest.json``.

Threads, for decoding, encoding, resizing and hashing let go of Python's lock; and they die with the process.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from filelock import FileLock, Timeout
from tqdm import tqdm

from earn_plugin.atomic_files import atomic_file, remove_leftovers, sync_folder
from earn_plugin.data.folder_or_lmdb import check_length
from earn_plugin.errors import UserError
from earn_plugin.signals import Stopped, number_of

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


def lasting(recipe: dict[str, Any]) -> dict[str, Any]:
    """What a finished folder is known by: work goes on with the very same files only, but copies have other times."""
    return {key: value for key, value in recipe.items() if key != 'modified'}


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """What a finished folder says of itself: recipe, count, bytes, files {name: [bytes, SHA-256]}; None without one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
        if not isinstance(manifest, dict) or not all(
            isinstance(manifest.get(key), dict) for key in ('recipe', 'files')
        ):
            raise ValueError('it has no recipe or no files')
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UserError(f'{folder / MANIFEST} is damaged ({error}); remove {folder} and make it anew') from error
    return manifest


class Work:
    """A folder in the making: ``folder`` to write into, ``done`` sources and what came of them, ``note`` for more."""

    def __init__(self, folder: Path, recipe: dict[str, Any]):
        self.folder = folder
        self.done: dict[str, Files] = {}
        remove_leftovers(folder)  # of a kill while the manifest was written
        lines = self._lines()
        if not lines or lines[0] != {'recipe': recipe}:
            self._clear()
            lines = []
        for line in lines[1:]:
            self.done[line['source']] = line['files']
        # what a kill or a power cut left of a last line is not taken along
        kept = [{'recipe': recipe}, *lines[1:]]
        (folder / JOURNAL).write_text(''.join(json.dumps(line) + '\n' for line in kept), encoding='utf-8')
        self._journal = (folder / JOURNAL).open('a', encoding='utf-8')

    def note(self, source: str, files: Files) -> None:
        """A source is done, and all that came of it is in the folder."""
        self.done[source] = files
        self._journal.write(json.dumps({'source': source, 'files': files}) + '\n')
        self._journal.flush()

    def close(self) -> None:
        self._journal.close()

    def _lines(self) -> list[dict]:
        lines = []
        try:
            for line in (self.folder / JOURNAL).read_text(encoding='utf-8').splitlines():
                lines.append(json.loads(line))
        except (FileNotFoundError, ValueError):
            pass
        return lines

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_made(target: Path, recipe: dict[str, Any]) -> bool:
    """Whether the target is there, made by this very recipe.

    Raises:
        UserError: something else is there, or not all that was made.
    """
    if not os.path.lexists(target):  # a link to nothing is something, too
        return False
    manifest, recipe = manifest_of(target), lasting(recipe)
    if manifest is None:
        raise UserError(f'{target} exists, and was not made by this command: remove it, or take another name')
    if manifest['recipe'] != recipe:
        now, then = (
            ', '.join(f'{key} {value}' for key, value in of.items() if value != other.get(key))
            for of, other in ((recipe, manifest['recipe']), (manifest['recipe'], recipe))
        )
        raise UserError(f'{target} exists, made from other images or settings ({then}; now {now}): remove it first')
    lost = _lost(target, manifest)
    if lost:
        more = ', …' if len(lost) > 1 else ''
        raise UserError(f'{target} is no longer whole, {lost[0]}{more} is missing or changed: remove it first')
    return True


def _lost(target: Path, manifest: dict[str, Any]) -> list[str]:
    """The files that are missing or have another size; an LMDB keeps all images in one."""
    if manifest['recipe'].get('what') == 'LMDB':
        lost = [name for name in ('data.mdb', 'meta_info.txt') if not (target / name).is_file()]
        if not lost:
            check_length(target)
        return lost
    return [name for name, (size, _) in manifest['files'].items() if not has_size(target / name, size)]


def has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


@contextmanager
def making(target: Path, recipe: dict[str, Any]) -> Iterator[Work]:
    """Work on a target that is not there yet; when the block ends without an error, it is.

    Raises:
        UserError: another process is at it, the disk is full or may not be written to; what was done is kept.
        Stopped: Ctrl-C or SIGTERM; what was done is kept.
    """
    lock = FileLock(target.with_name(f'.{target.name}.lock'))
    partial = target.with_name(f'.{target.name}.partial')
    done: dict[str, Files] = {}

    def kept() -> str:
        goes_on = ': the same command goes on from there' if done else ''
        return f'{len(done)} of {recipe["sources"]} images are done{goes_on}'

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        if target.exists():
            raise UserError(f'another process has made {target} in the meantime')
        partial.mkdir(exist_ok=True)
        with closing(Work(partial, recipe)) as work:
            done = work.done
            yield work
            _finish(work, recipe)
        (partial / JOURNAL).unlink()
        partial.rename(target)
        sync_folder(target.parent)
        Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        raise UserError(f'another process is making {target}; wait for it, or end it') from None
    except KeyboardInterrupt as interrupt:
        raise Stopped(number_of(interrupt), f'stopped; {kept()}') from None
    except OSError as error:
        raise UserError(f'{target} could not be finished: {error}; {kept()}') from error
    finally:
        lock.release()


def _finish(work: Work, recipe: dict[str, Any]) -> None:
    files = {name: entry[:2] for of_source in work.done.values() for name, entry in of_source.items()}
    manifest = {
        'made_by': 'earn_plugin',
        'recipe': lasting(recipe),
        'count': len(files),
        'bytes': sum(size for size, _ in files.values()),
        'files': dict(sorted(files.items())),
    }
    with atomic_file(work.folder / MANIFEST) as file:
        file.write(json.dumps(manifest).encode())
    if hasattr(os, 'sync'):
        os.sync()  # once for all files, before they take their name


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def each(
    sources: Sequence[Source],
    function: Callable[[Source], Result],
    what: str,
    done: int = 0,
    jobs: int | None = None,
    bar_file: TextIO | None = None,
) -> Iterator[tuple[Source, Result]]:
    """Each source with what the function makes of it, in order, by ``jobs`` threads (all cores by default).

    A progress bar on a terminal (standard error by default) counts from ``done``. Only a few results wait at any time,
    so memory stays small.
    """
    jobs = jobs or cores()
    waiting: deque = deque()
    remaining = iter(sources)
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(desc=what, total=done + len(sources), initial=done, unit='image', disable=None, file=bar_file) as bar,
    ):
        try:
            for source in remaining:
                waiting.append((source, pool.submit(function, source)))
                if len(waiting) > 2 * jobs:
                    break
            while waiting:
                source, future = waiting.popleft()
                yield source, future.result()
                bar.update()
                for following in remaining:
                    waiting.append((following, pool.submit(function, following)))
                    break
        finally:
            for _, future in waiting:
                future.cancel()

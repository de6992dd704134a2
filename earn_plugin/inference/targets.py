"""Which pictures a path names, and the file that the result of each is written to; all checked before any work."""

import glob
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from earn_plugin.errors import UsageError
from earn_plugin.inference.picture_files import ENDINGS, format_of

UNWRITABLE = ('.avif', '.bmp', '.exr', '.gif', '.heic', '.jp2', '.jxl', '.pdf', '.ppm', '.tga')
MOST_LISTED = 3  # clashes in an error


class Target(NamedTuple):
    """A picture and where its result goes; ``kind`` is the format of the result."""

    source: Path
    path: Path
    kind: str


def find_targets(source: Path, target: Path, kind: str | None = None, suffix: str = '') -> list[Target]:
    """The targets of all pictures, sorted by their sources.

    Args:
        source: a picture, a folder (with its subfolders), or a glob pattern.
        target: a folder, in which the tree of the source is kept; or for a single picture a file with its ending.
        kind: a key of ENDINGS; None keeps the format of each picture.
        suffix: to append to the names.

    Raises:
        UsageError: there are no pictures, a result would replace a picture, or two results have one name.
    """
    if os.sep in suffix or '/' in suffix or '\0' in suffix:
        raise UsageError(f'--suffix {suffix}: a part of a file name cannot have a slash')
    if source.is_dir():
        root, found = source, list(_pictures_below(source, target))
    elif os.path.lexists(source):
        root, found = source.parent, [source]
    elif glob.has_magic(str(source)):
        root = Path(*_parts_before_pattern(source))
        matches = map(Path, glob.glob(str(source), recursive=True))  # noqa: PTH207 (Path's finds hidden files)
        found = [path for path in matches if not path.is_dir() and not _is_strictly_inside(path, target, root)]
    else:
        raise UsageError(f'{source} does not exist')
    if not found:
        endings = ', '.join(ending for endings in ENDINGS.values() for ending in endings)
        raise UsageError(f'no pictures in {source} ({endings})')
    is_single = found == [source]
    if is_single and not target.is_dir() and (named := format_of(target)):
        if suffix or kind not in (None, named):
            raise UsageError(f'{target} is a file name, which --suffix and another --format do not fit; name a folder')
        targets = [Target(source, target, named)]
    else:
        if target.is_file() or (not target.exists() and (format_of(target) or target.suffix.lower() in UNWRITABLE)):
            possible = f'possible are {", ".join(ENDINGS)}' if is_single else 'for several pictures name a folder'
            raise UsageError(f'{target} cannot be written to: {possible}')
        targets = [_target(path, target / path.parent.relative_to(root), kind, suffix) for path in sorted(found)]
        if suffix:  # what an earlier run has written next to the pictures is not enlarged again
            results = {_stem(item.path) for item in targets}
            targets = [item for item in targets if _stem(item.source) not in results]
    _check(targets)
    return targets


def _pictures_below(folder: Path, target: Path) -> Iterator[Path]:
    """The files of a folder tree with the ending of a picture, without hidden ones and without those in the target.

    Folders that cannot be read are among them, so that they are reported as pictures that cannot.
    """
    seen, errors = set(), []
    for where, folders, names in os.walk(folder, onerror=errors.append, followlinks=True):
        here = Path(where)
        real = here.resolve()
        if real in seen or (here != folder and real == target.resolve()):
            folders.clear()
            continue
        seen.add(real)  # links may lead in a circle
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        yield from (here / name for name in names if not name.startswith('.') and format_of(here / name))
    yield from (Path(error.filename) for error in errors)


def _parts_before_pattern(pattern: Path) -> Iterator[str]:
    for part in pattern.parts:
        if glob.has_magic(part):
            return
        yield part


def _is_strictly_inside(path: Path, target: Path, root: Path) -> bool:
    return target.resolve() != root.resolve() and path.resolve().is_relative_to(target.resolve())


def _target(source: Path, folder: Path, kind: str | None, suffix: str) -> Target:
    own = format_of(source)
    kind = kind or own or 'png'
    ending = source.suffix if kind == own else ENDINGS[kind][0]
    return Target(source, folder / f'{source.stem}{suffix}{ending}', kind)


def _stem(path: Path) -> tuple[Path, str]:
    return path.parent.resolve(), path.stem


def _check(targets: list[Target]) -> None:
    sources = defaultdict(list)
    for item in targets:
        sources[item.path].append(item.source)
    if clashes := [(path, found) for path, found in sources.items() if len(found) > 1]:
        lines = [f'\n  {" and ".join(map(str, found))} → {path}' for path, found in clashes[:MOST_LISTED]]
        more = f'\n  and {len(clashes) - MOST_LISTED} more' if len(clashes) > MOST_LISTED else ''
        raise UsageError(f'several pictures would have one result; rename them: {"".join(lines)}{more}')
    real = {item.source.parent.resolve() / item.source.name: item.source for item in targets}
    for item in targets:
        if replaced := real.get(item.path.parent.resolve() / item.path.name):
            raise UsageError(f'{item.path} would replace the picture {replaced}; choose another OUT, or --suffix _x4')

"""What a prepared folder holds, compared with what it held when it was made."""

from collections.abc import Iterator

from earn_plugin.data.folder_or_lmdb import LMDB, Folder, Problem
from earn_plugin.errors import UserError
from earn_plugin.prepare.decoder import Look
from earn_plugin.prepare.resumable_folder import MANIFEST, manifest_of


def manifest_problems(source: Folder | LMDB, looks: dict[str, Look]) -> Iterator[Problem]:
    """Images that are missing, added or changed, where a manifest tells; sizes and checksums of those looked at."""
    try:
        manifest = manifest_of(source.root)
        if manifest is None:
            return
        files = {name: (int(size), str(sha256)) for name, (size, sha256) in manifest['files'].items()}
        if (manifest['count'], manifest['bytes']) != (len(files), sum(size for size, _ in files.values())):
            raise ValueError('count and bytes do not fit its files')
    except UserError as error:
        yield Problem(str(source.root), str(error))
        return
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        yield Problem(str(source.root / MANIFEST), f'is damaged: {error}')
        return
    for name in sorted(set(files).union(source.names)):
        label, look = source.label(name), looks.get(name)
        if name not in files:
            yield Problem(label, 'was added: the manifest does not have it')
        elif name not in source:
            yield Problem(label, 'is missing: the manifest has it')
        elif look and look.sha256 and (look.size, look.sha256) != files[name]:
            yield Problem(
                label, f'was changed: {_told(look.size, look.sha256)}, and {_told(*files[name])} in the manifest'
            )


def _told(size: int, sha256: str) -> str:
    return f'{size} bytes with SHA-256 {sha256[:8]}…'

"""BasicSR's LMDB backend with checks for damage, which every data set uses."""

from pathlib import Path

import lmdb
from basicsr.utils.file_client import FileClient

from earn_plugin.data.lmdb_damage import check_pages, is_damaged
from earn_plugin.errors import UserError


class CheckedLmdbBackend(FileClient._backends['lmdb']):
    """BasicSR's backend; damage is an error that names the LMDB and the key.

    Raises:
        UserError: the LMDB is damaged; when reading, the value is missing or damaged.
    """

    def __init__(self, db_paths, client_keys='default', **kwargs):
        for path in db_paths if isinstance(db_paths, list) else [db_paths]:
            check_pages(Path(path))
        try:
            super().__init__(db_paths, client_keys, **kwargs)
        except lmdb.Error as error:
            raise UserError(f'{error}; create the LMDB again, or restore it from a copy') from error

    def get(self, filepath, client_key):
        value = super().get(filepath, client_key)
        if value is None or is_damaged(value):
            path = dict(zip(self._client, self.db_paths, strict=True))[client_key]
            what = 'is missing' if value is None else 'is damaged: it differs from its checksum'
            raise UserError(f'{path}: the value of {filepath} {what}; create the LMDB again, or restore it from a copy')
        return value


FileClient._backends['lmdb'] = CheckedLmdbBackend

"""Fixtures: golden cases, tiny data sets on disk, options of a tiny network."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # the tests themselves run side by side; read when torch is imported

import copy
from pathlib import Path
from typing import Any

import pytest

import earn_plugin  # noqa: F401  (must precede basicsr, as README says)
from tests.helpers.golden import Golden
from tests.helpers.images import write_pairs
from tests.helpers.options import TINY
from tests.helpers.places import SHARED


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Benchmark images that cannot be in the repository."""
    if not (SHARED / 'data').is_dir():
        pytest.skip('the benchmark images are not on this machine')
    return SHARED / 'data'


@pytest.fixture
def golden():
    return Golden


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Six pairs ×2, as folders and as LMDBs (HR.lmdb, LR.lmdb)."""
    from earn_plugin.prepare.lmdb import make_lmdb

    root = write_pairs(tmp_path / 'data', 6)
    for folder in ('HR', 'LR'):
        make_lmdb(root / folder, root / f'{folder}.lmdb')
    return root


@pytest.fixture
def tiny(pairs: Path) -> dict[str, Any]:
    """Options that train a tiny EARN ×2 on ``pairs``; the same LMDB serves training and validation."""
    options = copy.deepcopy(TINY)
    for dataset in options['datasets'].values():
        dataset.update(dataroot_gt=str(pairs / 'HR.lmdb'), dataroot_lq=str(pairs / 'LR.lmdb'))
    return options

"""A tiny run that has been trained, with names that would run as code in a careless page."""

import copy
from pathlib import Path

from earn_plugin.cli import main
from tests.helpers.command import close_log
from tests.helpers.images import write_pairs
from tests.helpers.options import TINY, write_options

NAME, SET, IMAGE = '<script>alert(1)<', '"><img src=x onerror=alert(2)>', "im<b>&amp;'00"


def train_tiny(folder: Path, *arguments: str) -> Path:
    """Train ``TINY`` in a folder, which is the working directory; returns the run's folder."""
    data = write_pairs(folder / 'data', 6)
    for kind in ('HR', 'LR'):
        (data / kind / 'im00.png').rename(data / kind / f'{IMAGE}.png')
    options = copy.deepcopy(TINY)
    options['name'] = NAME
    for dataset in options['datasets'].values():
        dataset.update(dataroot_gt='data/HR', dataroot_lq='data/LR', io_backend={'type': 'disk'})
    options['datasets']['val']['name'] = SET
    close_log()
    assert main(['train', '-opt', str(write_options(folder, options)), *arguments]) == 0
    close_log()
    return Path('experiments', NAME)

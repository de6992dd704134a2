"""Checks what `pip check` and `python -m torch.utils.collect_env` do not, and prints a remedy for each problem."""

import importlib.metadata
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

Result = tuple[str, str]  # 'ok', 'warning' or 'problem', and a sentence with the remedy


def examine() -> int:
    """Print all results; returns 1 if a problem prevents training, else 0."""
    problems = 0
    for verdict, text in chain.from_iterable(map(results_of, (packages, patches, devices, disk))):
        print(f'{verdict:<7} {text}', flush=True)
        problems += verdict == 'problem'
    print(f'problems: {problems}; see also `pip check` and `python -m torch.utils.collect_env`')
    return 1 if problems else 0


def results_of(check: Callable[[], Iterator[Result]]) -> Iterator[Result]:
    """The results of a check; an exception is a problem."""
    try:
        yield from check()
    except Exception as error:
        yield 'problem', f'{check.__name__}: {type(error).__name__}: {error}; reinstall earn_plugin'


def packages() -> Iterator[Result]:
    names = ('earn_plugin', 'basicsr', 'torch', 'torchvision', 'numpy')
    versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in names)
    yield 'ok', f'Python {platform.python_version()}, {versions}'
    installed = {d.name for d in importlib.metadata.distributions() if d.name}  # a broken uninstall leaves None
    opencv = sorted(name for name in installed if name.startswith('opencv'))
    if len(opencv) > 1:
        yield 'warning', f'{", ".join(opencv)} overwrite each other: pip uninstall all but opencv-python'


def patches() -> Iterator[Result]:
    import basicsr  # noqa: F401  (which applies them)

    from earn_plugin import compat

    for patch in compat.applied:
        misfit = patch in compat.TORCHVISION
        remedy = '; harmless here, constraints.txt lists versions that fit' if misfit else ''
        yield 'warning' if misfit else 'ok', f'patched: {patch.problem}{remedy}'


def devices() -> Iterator[Result]:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
    yield from (('warning', f'CUDA: {warning.message}') for warning in caught)
    if not gpus and shutil.which('nvidia-smi') and torch.version.cuda is None:
        yield 'warning', f'NVIDIA driver found, but torch {torch.__version__} is a CPU build: install a CUDA build'
    yield from (('ok', f'{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB') for gpu in gpus)


def disk() -> Iterator[Result]:
    here, shared = Path.cwd(), Path('/dev/shm')
    free = shutil.disk_usage(here).free / 2**30
    text = f'{free:.1f} GiB free in {here}'
    yield ('ok', text) if free >= 2 else ('problem', f'{text}: free at least 2 GiB, or use another folder')
    try:
        tempfile.TemporaryFile(dir=here).close()
    except OSError as error:
        yield 'problem', f'{here} is not writable ({error.strerror}): use another folder'
    if shared.is_dir() and shutil.disk_usage(shared).total < 2**28:
        yield 'warning', f'{shared} is small for data loaders: docker run --shm-size=2g, or num_worker_per_gpu: 0'

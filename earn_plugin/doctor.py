"""Is this machine ready? Versions, whether they fit, devices, disk; every finding with its remedy."""

import importlib.metadata
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

TESTED = ('basicsr', 'torch', 'torchvision', 'numpy', 'opencv-python', 'lmdb', 'PyYAML', 'scikit-image')
ROOM = 2  # GiB that a demo run, its states and its logs stay well below

Problem = tuple[str, str]  # 'ok', 'note' or 'bad'; what was found, with its remedy


def examine() -> int:
    """Print all findings; 1 if one of them keeps training from running, else 0."""
    bad = 0
    for check in (python, packages, basicsr, patches, devices, disk):
        for verdict, text in safely(check):
            print(f'{verdict:<5} {text}', flush=True)
            bad += verdict == 'bad'
    print('everything is in order' if not bad else f'{bad} to patch')
    return 1 if bad else 0


def safely(check: Callable[[], Iterator[Problem]]) -> Iterator[Problem]:
    """A check's findings; one that fails itself is a finding, too."""
    try:
        yield from check()
    except Exception as error:
        yield (
            'bad',
            f'{check.__name__}: {type(error).__name__}: {error}; reinstall: pip install --force-reinstall earn_plugin',
        )


def python() -> Iterator[Problem]:
    yield 'ok', f'Python {platform.python_version()}'


def packages() -> Iterator[Problem]:
    for name in TESTED:
        try:
            yield 'ok', f'{name} {importlib.metadata.version(name)}'
        except importlib.metadata.PackageNotFoundError:
            yield 'bad', f'{name} is not installed: pip install {name}'
    twins = [name for name in ('opencv-python-headless', 'opencv-contrib-python') if _is_installed(name)]
    if twins and _is_installed('opencv-python'):
        yield 'note', f'{", ".join(twins)} beside opencv-python: they overwrite each other; pip uninstall one of them'


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def basicsr() -> Iterator[Problem]:
    import basicsr

    version = importlib.metadata.version('basicsr')
    if version == '1.4.2':
        yield 'ok', f'basicsr imports, from {Path(basicsr.__file__).parent}'
    else:
        yield 'note', f'basicsr {version} imports; tested with 1.4.2: pip install basicsr==1.4.2'


def patches() -> Iterator[Problem]:
    from earn_plugin import compat

    for patch in compat.active:
        if patch.problem.startswith('torchvision was built'):
            fit = 'harmless here; for a pair that fits see pytorch.org/get-started, or constraints.txt'
            yield 'note', f'{patch.problem}: {fit}'
        else:
            yield 'ok', f'mended: {patch.problem}'


def devices() -> Iterator[Problem]:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        available = torch.cuda.is_available()
    if available:
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield 'ok', f'cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB'
        return
    for warning in caught:
        yield 'note', f'CUDA cannot be used: {warning.message}'
    if shutil.which('nvidia-smi') and torch.version.cuda is None:
        yield (
            'note',
            f'there is an NVIDIA driver, but torch {torch.__version__} is built for CPUs: install a CUDA build',
        )
    yield 'ok', f'CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads; the demo recipe needs no more'


def disk() -> Iterator[Problem]:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 2**30
    if free < ROOM:
        yield 'bad', f'{free:.1f} GiB free in {here}: make room for at least {ROOM} GiB, or work in another folder'
    else:
        yield 'ok', f'{free:.0f} GiB free in {here}'
    try:
        with tempfile.TemporaryFile(dir=here):
            yield 'ok', f'{here} can be written to; experiments, results and tb_logger go there'
    except OSError as error:
        yield 'bad', f'{here} cannot be written to ({error.strerror}): work in another folder'
    shared = Path('/dev/shm')
    if shared.is_dir() and shutil.disk_usage(shared).total < 2**28:
        yield (
            'note',
            f'{shared} is small: data loader workers may fail; docker run --shm-size=2g, or num_worker_per_gpu: 0',
        )

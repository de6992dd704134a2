"""A user's own networks, data sets, losses and models: imported by ``--import`` and ``--arch-file``; why they fail."""

import importlib
import re
import sys
import sysconfig
import traceback
from contextlib import suppress
from pathlib import Path

import torch

from earn_plugin.errors import UsageError, UserError, reason_of

PACKAGE = Path(__file__).parent
STANDARD_LIBRARY = sysconfig.get_path('stdlib')


def import_module(name: str) -> None:
    """Import a module by its dotted name; the working directory is searched first, but not for basicsr.

    Raises:
        UsageError: there is no such module.
        UserError: importing it fails.
    """
    _search_first(Path.cwd())
    flag = f'--import {name}'
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f'{name}.'.startswith(f'{error.name}.'):
            raise UsageError(
                f'{flag}: there is no module {error.name}, neither in {Path.cwd()} nor installed; give its name as in '
                'Python, such as my_project.archs, or use --arch-file FILE'
            ) from None
        raise _failure(flag, error) from error
    except (Exception, SystemExit) as error:  # whatever the module does
        raise _failure(flag, error) from error


def import_arch_file(path: Path) -> None:
    """Import a file; one inside a package is imported as a module of that package, unless that is another basicsr.

    Raises:
        UsageError: not a Python file.
        UserError: importing it fails.
    """
    flag, is_python = f'--arch-file {path}', False
    with suppress(OSError, ValueError):  # an impossible path
        is_python = path.is_file() and path.suffix == '.py'
    if not is_python:
        raise UsageError(f'{flag} is not a Python file')
    path = path.resolve()
    parts, folder = [path.stem], path.parent
    while (folder / '__init__.py').exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    if parts[0] == 'basicsr' and folder / 'basicsr' != Path(importlib.import_module('basicsr').__file__).parent:
        parts, folder = [path.stem], path.parent
    _search_first(folder)
    try:
        module = importlib.import_module('.'.join(parts))
        if (file := getattr(module, '__file__', None)) != str(path):
            raise ImportError(f'{module.__name__} is already another module ({file or "built-in"}); rename the file')
    except (Exception, SystemExit) as error:  # whatever the file does
        raise _failure(flag, error) from error


def failure_of(error: Exception, remedy: str = '') -> str:
    """Why a network's own code failed, and in which line; if for lack of CUDA or of a name, with what to do about that.

    Args:
        remedy: of other failures.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own_code(Path(frame.filename))]
    place = f' ({frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line})' if frames else ''
    if lacks_cuda(error):
        return (
            f'its code uses CUDA, which is not available here{place}: {reason_of(error)}; use a machine with CUDA, or '
            'remove the call: networks are moved to the device from outside'
        )
    if isinstance(error, NameError):
        return f'{reason_of(error)}{place}; define or import that name there'
    return '; '.join(filter(None, (reason_of(error), remedy)))


def lacks_cuda(error: BaseException | None) -> bool:
    """Whether torch has raised an error because this machine has no CUDA."""
    is_of_torch = isinstance(error, AssertionError | RuntimeError) and not torch.cuda.is_available()
    return is_of_torch and bool(re.search('cuda|nvidia', str(error), re.IGNORECASE))


def _is_own_code(path: Path) -> bool:
    """Whether a file is neither this package's nor installed."""
    installed = {'site-packages', 'dist-packages'} & set(path.parts)
    return path.is_file() and not installed and not any(map(path.is_relative_to, (PACKAGE, STANDARD_LIBRARY)))


def _search_first(folder: Path) -> None:
    importlib.import_module('basicsr')  # some projects contain an old one
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _failure(flag: str, error: BaseException) -> UserError:
    reason = failure_of(error) if isinstance(error, NameError) else f'{type(error).__name__}: {error}'
    return UserError(f'{flag} cannot be imported: {reason}')

"""A user's own networks, data sets, losses and models: ``--import`` and ``--arch-file`` import what registers them."""

import importlib
import sys
from contextlib import suppress
from pathlib import Path

from earn_plugin.errors import UsageError, UserError


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
    """Import a file; one inside a package is imported as a module of that package.

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
    _search_first(folder)
    try:
        module = importlib.import_module('.'.join(parts))
        if (file := getattr(module, '__file__', None)) != str(path):
            raise ImportError(f'{module.__name__} is already another module ({file or "built-in"}); rename the file')
    except (Exception, SystemExit) as error:  # whatever the file does
        raise _failure(flag, error) from error


def _search_first(folder: Path) -> None:
    importlib.import_module('basicsr')  # some projects contain an old one
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _failure(flag: str, error: BaseException) -> UserError:
    return UserError(f'{flag} cannot be imported: {type(error).__name__}: {error}')

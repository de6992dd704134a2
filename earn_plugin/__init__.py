"""Super-resolution networks and losses for BasicSR.

``import earn_plugin`` is enough: once basicsr is imported, before or after it, basicsr 1.4.2 is patched to run with
today's torch, and everything here is in BasicSR's registries. Until then the import costs milliseconds.
"""

from importlib import import_module

from earn_plugin import compat

__version__ = '0.1.0'


def load(path, **arguments):
    """A network ready to run, on the CPU: see ``earn_plugin.convert.load``."""
    return import_module('earn_plugin.convert').load(path, **arguments)


def __getattr__(name: str):
    if name == 'spandrel':  # needs the package of that name, so it is imported on demand
        return import_module('earn_plugin.spandrel')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def register() -> None:
    """Import every module that holds a registered class."""
    for name in ('archs', 'losses', 'data.bicubic_pair_dataset', 'data.checked_lmdb', 'models', 'metrics'):
        import_module(f'earn_plugin.{name}')


compat.patch_on_import(register)

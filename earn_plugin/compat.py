"""Patches basicsr 1.4.2 and torchvision so that they run with current versions of Python, torch, SciPy and lmdb.

Each patch names its problem and is applied only where the problem exists. Those in ``TORCHVISION`` and ``BEFORE`` make
torchvision and basicsr importable; those in ``AFTER`` change basicsr's behaviour.
"""

import functools
import importlib.util
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class OtherBasicSR(UserWarning):
    """An older basicsr was imported, as some repositories contain one."""


class Patch(NamedTuple):
    """A problem, in a sentence; whether it exists here; and its fix."""

    problem: str
    needed: Callable[[], bool]
    apply: Callable[[], None]


TORCHVISION: list[Patch] = []
BEFORE: list[Patch] = []
AFTER: list[Patch] = []
applied: list[Patch] = []  # so far; a patch is applied when its module is imported


def _fixes(problem: str, patches: list[Patch], needed: Callable[[], bool] = lambda: True):
    """Decorator: add a fix to the patches."""

    def add(apply: Callable[[], None]) -> Callable[[], None]:
        patches.append(Patch(problem, needed, apply))
        return apply

    return add


def _version(package: str) -> tuple[int, ...]:
    return tuple(map(int, importlib.import_module(package).__version__.split('.')[:2]))


def _torchvision_ops_fail() -> bool:
    import torch

    spec = importlib.util.find_spec('torchvision')
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, 'nms'):
        return False
    try:
        for library in Path(spec.origin).parent.glob('_C.*'):
            torch.ops.load_library(str(library))
    except OSError:
        return True
    return False


_torchvision_library = []  # torch forgets operators whose Library object is gone


@_fixes(
    'torchvision was built for a different version of torch (operator torchvision::nms does not exist)',
    TORCHVISION,
    _torchvision_ops_fail,
)
def _define_torchvision_ops() -> None:
    import torch

    # torchvision registers shape rules for these two when it is imported; nothing here calls them
    library = torch.library.Library('torchvision', 'DEF')
    for operator in ('nms', 'qnms'):
        library.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _torchvision_library.append(library)


@_fixes(
    'torchvision 0.17 removed torchvision.transforms.functional_tensor',
    BEFORE,
    lambda: importlib.util.find_spec('torchvision.transforms.functional_tensor') is None,
)
def _alias_functional_tensor() -> None:
    from torchvision.transforms import functional

    sys.modules['torchvision.transforms.functional_tensor'] = functional


@_fixes('Python 3.12 removed distutils', BEFORE, lambda: importlib.util.find_spec('distutils') is None)
def _alias_distutils() -> None:
    from setuptools import _distutils
    from setuptools._distutils import version

    sys.modules.update({'distutils': _distutils, 'distutils.version': version})


@_fixes(
    'SciPy 1.8 deprecated scipy.ndimage.filters, SciPy 2.0 removes it',
    BEFORE,
    lambda: _version('scipy') >= (1, 8),
)
def _alias_scipy_filters() -> None:
    import scipy.ndimage

    sys.modules['scipy.ndimage.filters'] = scipy.ndimage


NEW_IN_1_4 = 'losses/gan_loss.py'
REGISTRY = 'basicsr.utils.registry'
_registry: list[types.ModuleType] = []  # where it was imported without the rest of basicsr


@_fixes('the registries were imported before the rest of basicsr', BEFORE, lambda: bool(_registry))
def _keep_registries() -> None:
    sys.modules[REGISTRY] = _registry[0]


@_fixes('the registries were imported before the rest of basicsr', AFTER, lambda: bool(_registry))
def _attach_registries() -> None:
    sys.modules['basicsr.utils'].registry = _registry[0]


@_fixes(
    'lmdb 2.0 refuses to open an LMDB twice in a process, as for training and validation',
    AFTER,
    lambda: _version('lmdb') >= (2, 0),
)
def _share_lmdb_environments() -> None:
    import lmdb
    from basicsr.utils.file_client import FileClient, LmdbBackend

    environments = weakref.WeakValueDictionary()

    class SharedLmdbBackend(LmdbBackend):
        """Opens each LMDB once in a process; forked workers share the parent's, which is read-only."""

        def __init__(self, db_paths, client_keys='default', **kwargs):
            self.db_paths = [str(path) for path in (db_paths if isinstance(db_paths, list) else [db_paths])]
            keys = client_keys if isinstance(client_keys, list) else [client_keys]
            settings = {'readonly': True, 'lock': False, 'readahead': False, **kwargs}
            self._client = {}
            for key, path in zip(keys, self.db_paths, strict=True):
                place = Path(path).resolve()
                environment = environments.get(place)
                if environment is None:
                    environment = environments[place] = lmdb.open(path, **settings)
                self._client[key] = environment

    FileClient._backends['lmdb'] = SharedLmdbBackend


def _cuda_is_missing() -> bool:
    import torch

    return not torch.cuda.is_available()


@_fixes('distributed training requires a CUDA device', AFTER, _cuda_is_missing)
def _allow_ddp_on_cpu() -> None:
    from basicsr.models.base_model import BaseModel
    from torch.nn.parallel import DistributedDataParallel

    on_cuda = BaseModel.model_to_device

    @functools.wraps(on_cuda)
    def model_to_device(self, net):
        if not self.opt['dist'] or self.device.type == 'cuda':
            return on_cuda(self, net)
        unused = self.opt.get('find_unused_parameters', False)
        return DistributedDataParallel(net.to(self.device), find_unused_parameters=unused)

    BaseModel.model_to_device = model_to_device


@_fixes('on a CPU, RealESRGAN models cannot blur what DiffJPEG returns, as it is not contiguous', AFTER)
def _return_contiguous_jpeg() -> None:
    from basicsr.utils import DiffJPEG

    forward = DiffJPEG.forward
    DiffJPEG.forward = functools.wraps(forward)(lambda self, x, quality: forward(self, x, quality).contiguous())


@_fixes('basicsr 1.4 moved functions and losses from where older projects import them, as HAT does', AFTER)
def _alias_moved_names() -> None:
    import basicsr.losses
    from basicsr.losses import basic_loss, gan_loss
    from basicsr.utils import color_util, matlab_functions

    vars(matlab_functions).update({name: f for name, f in vars(color_util).items() if 'ycbcr' in name})
    moved = {name: loss for module in (basic_loss, gan_loss) for name, loss in vars(module).items() if name[0] != '_'}
    losses = types.ModuleType('basicsr.losses.losses')
    vars(losses).update(moved)
    vars(basicsr.losses).update({'losses': losses, **moved, **vars(basicsr.losses)})
    sys.modules[losses.__name__] = losses


@_fixes("basicsr refuses a second class of one name, such as a project's own HAN next to ours", AFTER)
def _prefer_classes_of_projects() -> None:
    from basicsr.utils.registry import Registry

    refuse = Registry._do_register

    @functools.wraps(refuse)
    def _do_register(self, name, obj, suffix=None):
        other = self._obj_map.get(name)
        if other is not None and suffix is None and _is_ours(obj) != _is_ours(other):
            own = other if _is_ours(obj) else obj
            warnings.warn(
                f'{name} is that of {own.__module__}; the one of earn_plugin is registered as {name}_basicsr',
                stacklevel=3,
            )
            if _is_ours(obj):
                name = f'{name}_basicsr'
            else:
                self._obj_map[f'{name}_basicsr'] = self._obj_map.pop(name)
        refuse(self, name, obj, suffix)

    Registry._do_register = _do_register


def _is_ours(thing) -> bool:
    return thing.__module__.partition('.')[0] == 'earn_plugin'


class _AnyList(type):
    def __instancecheck__(cls, thing):
        return isinstance(thing, list)


class _Listing(list, metaclass=_AnyList):
    """A list with ``in`` in constant time; it replaces ``list``, for whose instances ``isinstance`` stays true."""

    def __contains__(self, name):
        if not hasattr(self, 'names'):
            self.names = frozenset(self)
        return name in self.names


@_fixes('basicsr lists files in the arbitrary order of the file system, and takes quadratic time to pair them', AFTER)
def _list_in_order() -> None:
    from basicsr.data import data_util

    unordered = data_util.scandir

    @functools.wraps(unordered)
    def scandir(*arguments, **settings):
        return iter(sorted(unordered(*arguments, **settings)))

    data_util.scandir = scandir
    data_util.list = _Listing  # used there in list(scandir(folder)) and isinstance(…, list)


def _apply(*patches: Patch) -> None:
    for patch in patches:
        if patch.needed():
            patch.apply()
            applied.append(patch)


class _Finder:
    """Finds one module as Python would; applies patches right before its import and calls ``after`` right after it."""

    def __init__(self, name: str, before: list[Patch], after: Callable[[], None] = lambda: None):
        self.name, self.before, self.after = name, before, after

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = functools.partial(self._exec, spec.loader.exec_module)
        return spec

    def _exec(self, exec_module, module) -> None:
        _apply(*self.before)
        exec_module(module)
        self.after()


@contextmanager
def registry_alone() -> Iterator[None]:
    """In the block, basicsr.utils.registry is imported without the rest of basicsr, which takes 1.7 s.

    It is for what needs no network of basicsr at first. A later import of basicsr, after the block, is complete and has
    the same registries. Without effect if basicsr is imported already, or is an older one.
    """
    spec = None if 'basicsr' in sys.modules else importlib.util.find_spec('basicsr')
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    if not (folder / NEW_IN_1_4).is_file():
        yield
        return
    if not _registry:
        spec = importlib.util.spec_from_file_location(REGISTRY, folder / 'utils/registry.py')
        _registry.append(importlib.util.module_from_spec(spec))
        spec.loader.exec_module(_registry[0])
    sys.modules[REGISTRY] = _registry[0]
    try:
        yield
    finally:
        if 'basicsr' not in sys.modules:
            del sys.modules[REGISTRY]


def patch_on_import(then: Callable[[], None]) -> None:
    """Patch torchvision and basicsr when they are imported, and call ``then`` right after the import of basicsr.

    If basicsr is already imported, patch it and call ``then`` now. An older basicsr stays as it is, with a warning.
    """

    def after() -> None:
        folder = Path(sys.modules['basicsr'].__file__).parent
        if not (folder / NEW_IN_1_4).is_file():
            has_version = importlib.util.find_spec('basicsr.version')
            version = importlib.import_module('basicsr.version').__version__ if has_version else 'of an older version'
            warnings.warn(
                f'earn_plugin needs basicsr 1.4.2, but {folder} is basicsr {version}; nothing of earn_plugin is '
                'registered. To use the installed basicsr, work in another folder, or rename this one',
                OtherBasicSR,
                stacklevel=2,
            )
            return
        _apply(*AFTER)
        then()

    sys.meta_path.insert(0, _Finder('torchvision', TORCHVISION))
    if 'basicsr' in sys.modules:
        after()
    else:
        sys.meta_path.insert(0, _Finder('basicsr', BEFORE, after))

"""All knowledge of basicsr 1.4.2's age: what keeps it from running with today's torch, torchvision and lmdb, mended.

Each patch says what it patches and applies itself only where it is needed. Those in ``TORCHVISION`` and ``BEFORE`` let
torchvision and basicsr be imported; those in ``AFTER`` change what basicsr does, each at the smallest hook.
"""

import functools
import importlib.util
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Patch(NamedTuple):
    """``problem`` in a sentence; ``needed`` tells whether this machine has it; ``apply`` solves it."""

    problem: str
    needed: Callable[[], bool]
    apply: Callable[[], None]


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


def _define_torchvision_ops() -> None:
    import torch

    # torchvision attaches shape rules to these two while it is imported; nothing here ever calls them.
    library = torch.library.Library('torchvision', 'DEF')
    for operator in ('nms', 'qnms'):
        library.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _torchvision_library.append(library)


def _functional_tensor_missing() -> bool:
    return importlib.util.find_spec('torchvision.transforms.functional_tensor') is None


def _alias_functional_tensor() -> None:
    from torchvision.transforms import functional

    sys.modules['torchvision.transforms.functional_tensor'] = functional


def _distutils_missing() -> bool:
    return importlib.util.find_spec('distutils') is None


def _alias_distutils() -> None:
    from setuptools import _distutils
    from setuptools._distutils import version

    sys.modules.update({'distutils': _distutils, 'distutils.version': version})


def _scipy_filters_moved() -> bool:
    import scipy

    return tuple(map(int, scipy.__version__.split('.')[:2])) >= (1, 8)


def _alias_scipy_filters() -> None:
    import scipy.ndimage

    sys.modules['scipy.ndimage.filters'] = scipy.ndimage


def _lmdb_opens_once() -> bool:
    import lmdb

    return int(lmdb.__version__.partition('.')[0]) >= 2


def _share_lmdb_environments() -> None:
    import lmdb
    from basicsr.utils.file_client import FileClient, LmdbBackend

    environments = weakref.WeakValueDictionary()

    class SharedLmdbBackend(LmdbBackend):
        """Opens each LMDB once a process; workers that are forked go on with the parent's, which only reads."""

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


def _ddp_needs_cuda() -> bool:
    import torch

    return not torch.cuda.is_available()


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


class _AnyList(type):
    def __instancecheck__(cls, thing):
        return isinstance(thing, list)


class _Listing(list, metaclass=_AnyList):
    """A list that knows at once whether it has a name, and takes the place of ``list`` where one is asked for."""

    def __contains__(self, name):
        if not hasattr(self, 'names'):
            self.names = frozenset(self)
        return name in self.names


def _list_in_order() -> None:
    from basicsr.data import data_util

    unordered = data_util.scandir

    @functools.wraps(unordered)
    def scandir(*arguments, **settings):
        return iter(sorted(unordered(*arguments, **settings)))

    data_util.scandir = scandir
    data_util.list = _Listing  # which it calls as list(scandir(folder)), and asks isinstance of


TORCHVISION = (
    Patch(
        'torchvision was built for another torch (operator torchvision::nms does not exist)',
        _torchvision_ops_fail,
        _define_torchvision_ops,
    ),
)
BEFORE = (
    Patch(
        'torchvision.transforms.functional_tensor is gone since torchvision 0.17',
        _functional_tensor_missing,
        _alias_functional_tensor,
    ),
    Patch('distutils is gone since Python 3.12', _distutils_missing, _alias_distutils),
    Patch(
        'scipy.ndimage.filters is deprecated since SciPy 1.8 and gone from 2.0',
        _scipy_filters_moved,
        _alias_scipy_filters,
    ),
)
AFTER = (
    Patch(
        'lmdb refuses since 2.0 to open an LMDB twice in a process, so none could serve training and validation',
        _lmdb_opens_once,
        _share_lmdb_environments,
    ),
    Patch('distributed training asks for a CUDA device', _ddp_needs_cuda, _allow_ddp_on_cpu),
    Patch(
        'basicsr takes files in the order of the file system, another on each machine, and pairs 40,000 in 14 seconds',
        lambda: True,
        _list_in_order,
    ),
)

active: list[Patch] = []  # the patches that this machine needed, as far as what they patch has been imported


def _apply(*patches: Patch) -> None:
    for patch in patches:
        if patch.needed():
            patch.apply()
            active.append(patch)


class _Finder:
    """Finds one module as Python would, and runs something right before and right after its import."""

    def __init__(self, name: str, before: Callable[[], None], after: Callable[[], None]):
        self.name, self.before, self.after = name, before, after

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        place = sys.meta_path.index(self)
        sys.meta_path.remove(self)  # the others find it, and find it once
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(place, self)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = functools.partial(self._exec, spec.loader.exec_module)
        return spec

    def _exec(self, exec_module, module) -> None:
        self.before()
        exec_module(module)
        self.after()


def with_basicsr(then: Callable[[], None]) -> None:
    """Patch torchvision and basicsr as they are imported, and call ``then`` right after basicsr is.

    Where basicsr has been imported already, at once.
    """

    def after() -> None:
        _apply(*AFTER)
        then()

    sys.meta_path.insert(0, _Finder('torchvision', lambda: _apply(*TORCHVISION), lambda: None))
    if 'basicsr' in sys.modules:
        after()
    else:
        sys.meta_path.insert(0, _Finder('basicsr', lambda: _apply(*BEFORE), after))

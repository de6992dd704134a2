"""All mistakes of an options file at once, each with its place and the nearest valid name, before anything is built."""

import contextlib
import inspect
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from basicsr.models import lr_scheduler
from basicsr.utils.file_client import FileClient
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
)

from earn_plugin.errors import UsageError
from earn_plugin.losses.vgg_loss import LAYOUTS, VGGLoss, how_to_get, weights_file
from earn_plugin.models.earn_model import OPTIMIZERS, EARNModel
from earn_plugin.options.argument_types import arguments_of, fits, kind_name, kind_of, takes_any_key
from earn_plugin.options.basicsr_keys import keys_read
from earn_plugin.options.options_file import DATASETS_README, Options, Place, nearest

SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}
# BasicSR's own modules that read options beside the model; what they read is known everywhere.
READERS = ('train', 'test', 'models', 'utils.options', 'utils.logger', 'utils.misc')
OURS = frozenset({('logger', 'keep_states'), ('dist_params', 'backend'), ('dist_params', 'port')})
# what BasicSR reads, but the program sets
DERIVED = {'is_train', 'dist', 'rank', 'world_size', 'root_path', 'auto_resume', 'experiments_root', 'results_root'}
DERIVED |= {'models', 'training_states', 'log', 'visualization', 'phase', 'db_paths', 'client_keys'}
KINDS = {
    ('name',): str,
    ('model_type',): str,
    ('scale',): float,
    ('num_gpu',): int | str,
    ('manual_seed',): int | None,
    ('train', 'total_iter'): float,
    ('train', 'warmup_iter'): float,
    ('train', 'ema_decay'): float,
    ('train', 'grad_clip_g'): float,
    ('train', 'grad_clip_d'): float,
    ('train', 'net_d_iters'): int,
    ('train', 'net_d_init_iters'): int,
    ('val', 'val_freq'): float,
    ('val', 'save_img'): bool,
    ('val', 'pbar'): bool,
    ('val', 'suffix'): str | None,
    ('logger', 'print_freq'): float,
    ('logger', 'save_checkpoint_freq'): float,
    ('logger', 'use_tb_logger'): bool,
    ('logger', 'keep_states'): int,
}
DATASET_KINDS = {  # with what the data loader and the training loop read
    'name': str,
    'gt_size': int,
    'use_hflip': bool,
    'use_rot': bool,
    'filename_tmpl': str,
    'io_backend': dict,
    'batch_size_per_gpu': int,
    'num_worker_per_gpu': int,
    'dataset_enlarge_ratio': float,
    'prefetch_mode': str | None,
    'num_prefetch_queue': int,
    'pin_memory': bool,
    'persistent_workers': bool,
}
POSITIVE = {
    'total_iter',
    'grad_clip_g',
    'grad_clip_d',
    'net_d_iters',
    'val_freq',
    'print_freq',
    'save_checkpoint_freq',
    'keep_states',
    'batch_size_per_gpu',
    'gt_size',
    'dataset_enlarge_ratio',
}
NEEDED_BY_DATASETS = ('dataroot_gt', 'dataroot_lq', 'io_backend')
NEEDED_IN_TRAINING = ('gt_size', 'use_hflip', 'use_rot')
NOT_READ = frozenset({'use_shuffle', 'save_img', 'suffix', 'crop_border'})  # in BasicSR's older files, but unread now


def check_options(options: Options, is_train: bool) -> list[str]:
    """Check everything that can be checked without building anything.

    Returns:
        Notes: keys that have no effect with the types the file names, though they would with others.

    Raises:
        UsageError: lists all problems, each with its place.
    """
    checked = _Check(options, is_train)
    checked.run()
    checked.raise_problems()
    return checked.notes


def check_dataset_options(options: Options) -> None:
    """Check the data sets of an options file, and nothing else.

    Raises:
        UsageError: lists all problems, each with its place.
    """
    checked = _Check(options, is_train=False)
    if checked.is_mapping(('datasets',)):
        checked.check_kind(('scale',), KINDS[('scale',)])
        checked.check_datasets()
    checked.raise_problems()


def below(place: Place, paths: Iterable[Place]) -> set[str]:
    """The keys that stand directly below a place, among the paths that some code reads."""
    depth = len(place)
    return {path[depth] for path in paths if path[:depth] == place and len(path) > depth} - DERIVED


def read_by_any(registry: Registry) -> frozenset[Place]:
    return frozenset().union(*(keys_read(thing) for _, thing in registry))


class _Check:
    def __init__(self, options: Options, is_train: bool):
        self.options = options
        self.data = options.data
        self.is_train = is_train
        self.problems: list[tuple[int, str]] = []  # by line
        self.notes: list[str] = []
        self.lacks_data = False

    def report(self, place: Place, message: str) -> None:
        text = f'{self.options.where(place)}: {".".join(map(str, place))}: {message}'
        self.problems.append((self.options.line(place), text))

    def raise_problems(self) -> None:
        if not self.problems:
            return
        count = 'a problem' if len(self.problems) == 1 else f'{len(self.problems)} problems'
        listed = '\n'.join(f'  {text}' for _, text in sorted(self.problems))
        if self.lacks_data:
            listed += f'\n{DATASETS_README} says what to put there; the demo recipe (-opt demo_EARN_x4) needs nothing'
        raise UsageError(f'{self.options.file} has {count}:\n{listed}')

    def run(self) -> None:
        for key in ('name', 'model_type', 'datasets', *(('train',) if self.is_train else ())):
            if self.data.get(key) is None:
                self.report((key,), 'is missing')
        model = self.registered((), 'model_type', MODEL_REGISTRY, 'model type')
        known = OURS.union(*(keys_read(sys.modules[f'basicsr.{name}']) for name in READERS))
        if model is not None:
            known |= keys_read(model)
            others = read_by_any(MODEL_REGISTRY)
            self.check_keys((), self.data, below((), known), below((), others) | NOT_READ)
            for key in ('network_g', *(('network_d',) if self.is_train else ())):
                if self.data.get(key) is None and (key,) in keys_read(model):
                    self.report((key,), 'is missing')
            for place in (('train',), ('val',), ('logger',), ('path',), ('dist_params',)):
                if self.is_mapping(place, optional=True):
                    self.check_keys(place, self.value(place), below(place, known), below(place, others))
        for place, kind in KINDS.items():
            self.check_kind(place, kind)
        for key, value in self.data.items():
            if str(key).startswith('network_') and self.is_mapping((key,), optional=True):
                network = self.check_object((key,), value, ARCH_REGISTRY, 'network') if value else None
                self.check_upscale((key,), network)
                if self.is_train and network is not None and value.get('fused') is True:
                    self.report((key, 'fused'), 'is for a network that is trained already: basicsr convert --fused')
        self.check_datasets()
        self.check_training(model)
        if self.is_mapping(('val',), optional=True) and self.is_mapping(('val', 'metrics'), optional=True):
            for name, metric in self.data['val']['metrics'].items():
                place = ('val', 'metrics', name)
                if self.is_mapping(place):
                    self.check_object(place, metric, METRIC_REGISTRY, 'metric', skip=('img', 'img2'), extra=('better',))
        if self.is_mapping(('path',), optional=True):
            for key in self.data['path']:
                if str(key).startswith(('pretrain_network', 'resume_state')):
                    self.check_exists(('path', key))

    def value(self, place: Place) -> Any:
        value: Any = self.data
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def is_mapping(self, place: Place, optional: bool = False) -> bool:
        value = self.value(place)
        if not isinstance(value, dict) and not (optional and value is None):
            self.report(place, f'must be a mapping, got {value!r}')
        return isinstance(value, dict)

    def check_keys(self, place: Place, given: Iterable, valid: set[str], elsewhere: Iterable[str] = ()) -> None:
        for key in given:
            if key in valid:
                continue
            if key in elsewhere:
                self.notes.append(
                    f'{self.options.where((*place, key))}: {".".join(map(str, (*place, key)))} has no effect'
                )
            else:
                self.report((*place, key), f'is not known here{nearest(key, valid)}')

    def check_kind(self, place: Place, kind: Any) -> None:
        value = self.value(place)
        if value is None:
            return
        if not fits(value, kind):
            self.wrong_kind(place, kind, value)
        elif place[-1] in POSITIVE and not 0 < value < math.inf:
            self.report(place, f'must be above 0 and finite, got {value}')
        elif place[-1] == 'ema_decay' and not 0 <= value <= 1:
            self.report(place, f'must be 0 (no average) to 1, got {value}')

    def wrong_kind(self, place: Place, kind: Any, value: Any) -> None:
        remedy = ''
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                float(value)
                remedy = f'; YAML takes {value} as text, write !!float {value}'
        self.report(place, f'must be {kind_name(kind)}, got {value!r}{remedy}')

    def registered(self, place: Place, key: str, registry: Registry, what: str) -> Any:
        """The class or function that a type names; None, and a report, where there is none."""
        name = self.value((*place, key))
        if name is None:
            if place:
                self.report(place, f'has no {key}')
            return None
        if not isinstance(name, str):
            self.wrong_kind((*place, key), str, name)
            return None
        for known in (name, f'{name}_basicsr'):
            if known in registry:
                return registry.get(known)
        self.report((*place, key), f'no {what} {name!r} is registered{nearest(name, registry.keys())}')
        return None

    def chosen(self, place: Place, choices: dict[str, Any], what: str) -> Any:
        """The choice that a value names; None, and a report, where it names none."""
        name = self.value(place)
        if isinstance(name, str) and name in choices:
            return choices[name]
        self.report(place, f'no {what} {name!r}{nearest(name, choices)}')
        return None

    def check_object(self, place: Place, given: dict, registry: Registry, what: str, skip=(), extra=()) -> Any:
        found = self.registered(place, 'type', registry, what)
        if found is not None:
            self.check_arguments(place, given, found, skip, extra)
        return found

    def check_arguments(self, place: Place, given: dict, function: Callable, skip=(), extra=(), needed=()) -> None:
        """Compare the keys of a section with the arguments of what they are passed to."""
        parameters, hints = arguments_of(function, skip)
        if not takes_any_key(function):
            self.check_keys(place, given, {*parameters, 'type', *extra})
        for name, parameter in parameters.items():
            if name in given:
                kind = kind_of(parameter, hints)
                if not fits(given[name], kind):
                    self.wrong_kind((*place, name), kind, given[name])
            elif parameter.default is parameter.empty or name in needed:
                self.report(place, f'{given["type"]} needs {name}')

    def check_upscale(self, place: Place, network: Any) -> None:
        parameter = arguments_of(network)[0].get('upscale') if network is not None else None
        if parameter is None or parameter.default is parameter.empty:
            return
        upscale, scale = self.value(place).get('upscale', parameter.default), self.data.get('scale')
        if fits(upscale, float) and fits(scale, float) and upscale != scale:
            self.report((*place, 'upscale'), f'is {upscale}, but scale is {scale}')

    def check_datasets(self) -> None:
        if not self.is_mapping(('datasets',), optional=True):
            return
        if self.is_train and self.data['datasets'].get('train') is None:
            self.report(('datasets',), 'training needs a data set named train')
        for phase, dataset in self.data['datasets'].items():
            place = ('datasets', phase)
            kind = str(phase).partition('_')[0]
            if kind not in ('train', 'val', 'test'):
                self.report(place, 'a data set is named train, val or test, the last two also val_2 and the like')
            if not self.is_mapping(place, optional=True):  # with ~ it is left out
                continue
            found = self.registered(place, 'type', DATASET_REGISTRY, 'data set')
            if found is None:
                continue
            reads = {path[0] for path in keys_read(found)}
            needed = {'name', *reads.intersection(NEEDED_BY_DATASETS)}
            if kind == 'train':
                needed |= {'batch_size_per_gpu', 'num_worker_per_gpu', *reads.intersection(NEEDED_IN_TRAINING)}
            for key in sorted(key for key in needed if dataset.get(key) is None):
                self.report(place, f'{dataset["type"]} needs {key}')
            everywhere = below((), keys_read(sys.modules['basicsr.data'])) | {*DATASET_KINDS}
            others = below((), read_by_any(DATASET_REGISTRY)) | NOT_READ
            self.check_keys(place, dataset, below((), keys_read(found)) | everywhere, others)
            for key, value_kind in DATASET_KINDS.items():
                self.check_kind((*place, key), value_kind)
            if isinstance(dataset.get('io_backend'), dict):
                self.chosen((*place, 'io_backend', 'type'), FileClient._backends, 'backend')
            for key in dataset:
                if str(key).startswith(('dataroot', 'meta_info')):
                    self.check_exists((*place, key))

    def check_exists(self, place: Place) -> None:
        value = self.value(place)
        if value is None:
            return
        if not isinstance(value, str):
            self.wrong_kind(place, str, value)
            return
        path = Path(value).expanduser()
        missing = path
        if path.suffix == '.lmdb' and path.is_dir():
            missing = next((path / name for name in ('data.mdb', 'meta_info.txt') if not (path / name).is_file()), path)
        if not missing.exists():
            self.report(place, f'{missing} does not exist')
            self.lacks_data |= path.parts[:1] == ('datasets',)

    def check_training(self, model: Any) -> None:
        if not self.is_train or not self.is_mapping(('train',), optional=True):
            return
        train = self.data['train']
        reads = below(('train',), keys_read(model)) if model is not None else ()
        for key in ('total_iter', *(key for key in ('optim_g', 'optim_d', 'gan_opt', 'scheduler') if key in reads)):
            if train.get(key) is None:
                self.report(('train',), f'needs {key}')
        optimizers = OPTIMIZERS if model is not None and issubclass(model, EARNModel) else {'Adam': OPTIMIZERS['Adam']}
        for key, value in train.items():
            place = ('train', key)
            if key == 'losses':
                for name in value if self.is_mapping(place) else ():
                    self.check_loss((*place, name))
            elif key == 'scheduler':
                if self.is_mapping(place) and (found := self.chosen((*place, 'type'), SCHEDULERS, key)):
                    self.check_arguments(place, value, found, skip=('optimizer', 'last_epoch'))
                    self.check_periods(place, value.get('periods'), train.get('total_iter'))
            elif str(key).startswith('optim_'):
                if self.is_mapping(place) and (found := self.chosen((*place, 'type'), optimizers, 'optimizer')):
                    self.check_arguments(place, value, found, skip=('params',), needed=('lr',))
            elif str(key).endswith('_opt') and value is not None:
                self.check_loss(place)

    def check_periods(self, place: Place, periods: Any, total: Any) -> None:
        if fits(periods, list[float]) and fits(total, float) and sum(periods) < total - 1:
            self.report((*place, 'periods'), f'end at iteration {sum(periods)}, before total_iter: {total}')

    def check_loss(self, place: Place) -> None:
        if not self.is_mapping(place):
            return
        given = self.value(place)
        found = self.check_object(place, given, LOSS_REGISTRY, 'loss')
        if inspect.isclass(found) and issubclass(found, VGGLoss):
            vgg, weights = given.get('vgg_type', 'vgg19'), given.get('weights')
            if not isinstance(weights, str | None) or not isinstance(vgg, str) or vgg not in LAYOUTS:
                return  # told already, or when the loss is built
            path = weights_file(vgg, weights)
            if weights not in ('hub', 'random') and not path.is_file():
                self.report(place, f'the weights of {vgg} are not at {path}; {how_to_get(vgg, weights)}')

"""Reports all mistakes of an options file at once, each with its line and the nearest valid name, before any build."""

import contextlib
import inspect
import math
import sys
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from basicsr.models import lr_scheduler
from basicsr.utils.file_client import FileClient
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

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
REGISTERED = ('network', 'data set', 'model type', 'loss', 'metric')  # what users can register
# BasicSR's modules that read options for every model
READERS = ('train', 'test', 'models', 'utils.options', 'utils.logger', 'utils.misc')
OURS = frozenset({('logger', 'keep_states'), ('val', 'on_error'), ('dist_params', 'backend'), ('dist_params', 'port')})
# read by BasicSR, but set by the program
DERIVED = {'is_train', 'dist', 'rank', 'world_size', 'root_path', 'auto_resume', 'experiments_root', 'results_root'}
DERIVED |= {'models', 'training_states', 'log', 'visualization', 'phase', 'db_paths', 'client_keys'}
UNUSED = frozenset({'use_shuffle', 'save_img', 'suffix', 'crop_border'})  # in BasicSR's older files, no longer read
KINDS = {
    **dict.fromkeys(('name', 'model_type', 'filename_tmpl'), str),
    **dict.fromkeys(('total_iter', 'warmup_iter', 'ema_decay', 'grad_clip_g', 'grad_clip_d'), float),
    **dict.fromkeys(('scale', 'dataset_enlarge_ratio', 'val_freq', 'print_freq', 'save_checkpoint_freq'), float),
    **dict.fromkeys(('net_d_iters', 'net_d_init_iters', 'keep_states', 'gt_size', 'num_prefetch_queue'), int),
    **dict.fromkeys(('batch_size_per_gpu', 'num_worker_per_gpu'), int),
    **dict.fromkeys(('use_hflip', 'use_rot', 'pin_memory', 'persistent_workers'), bool),
    **dict.fromkeys(('save_img', 'pbar', 'use_tb_logger'), bool),
    **{'num_gpu': int | str, 'manual_seed': int | None, 'suffix': str | None, 'prefetch_mode': str | None},
    'io_backend': dict,
}
RANGES = {'ema_decay': (0, 1), 'manual_seed': (0, 2**32 - 1), 'warmup_iter': (-math.inf, math.inf)}
RANGES |= dict.fromkeys(('num_gpu', 'num_worker_per_gpu', 'num_prefetch_queue', 'net_d_init_iters'), (0, math.inf))


def check_options(options: Options, is_train: bool) -> list[str]:
    """Check everything that can be checked without building anything; missing demo data are valid.

    Returns:
        Warnings: keys that only other types than the given ones read.

    Raises:
        UsageError: lists all problems, each with its line.
    """
    checker = _Checker(options, is_train)
    checker.check_all()
    checker.raise_problems()
    return checker.warnings


def check_dataset_options(options: Options) -> None:
    """Check only the data sets of an options file.

    Raises:
        UsageError: lists all problems, each with its line.
    """
    checker = _Checker(options, is_train=False)
    if checker.is_mapping(('datasets',)):
        checker.check_kinds((), {'scale'})
        checker.check_datasets()
    checker.raise_problems()


def below(place: Place, paths: Iterable[Place]) -> set[str]:
    """The keys directly below a place, among the paths that some code reads."""
    depth = len(place)
    return {path[depth] for path in paths if path[:depth] == place and len(path) > depth} - DERIVED


def read_by_any(registry: Iterable) -> frozenset[Place]:
    return frozenset().union(*(keys_read(thing) for _, thing in registry))


def choices_of(registry: Iterable) -> dict[str, Any]:
    """By the names that options use; BasicSR's registry also finds NAME_basicsr as NAME."""
    things = dict(iter(registry))  # it has keys, but no items by index
    return {name.removesuffix('_basicsr'): thing for name, thing in things.items()} | things


class _Checker:
    def __init__(self, options: Options, is_train: bool):
        self.options = options
        self.data = options.data
        self.is_train = is_train
        self.problems: set[tuple[int, str]] = set()  # by line
        self.warnings: list[str] = []
        self.lacks_data = self.lacks_class = False

    def report(self, place: Place, message: str) -> None:
        self.problems.add((self.options.line(place), f'{self.options.describe(place)}: {message}'))

    def raise_problems(self) -> None:
        if not self.problems:
            return
        count = '1 problem' if len(self.problems) == 1 else f'{len(self.problems)} problems'
        lines = [f'{self.options.file} has {count}:', *(f'  {text}' for _, text in sorted(self.problems))]
        if self.lacks_data:
            lines.append(f'{DATASETS_README} describes the data sets; the demo recipe (-opt demo_EARN_x4) needs none')
        if self.lacks_class:
            lines.append('--import MODULE or --arch-file FILE registers your own')
        raise UsageError('\n'.join(lines))

    def check_all(self) -> None:
        for key in ('name', 'model_type', 'datasets', *(('train',) if self.is_train else ())):
            if self.data.get(key) is None:
                self.report((key,), 'is missing')
        model = self.chosen(('model_type',), choices_of(MODEL_REGISTRY), 'model type')
        if model is not None:
            self.check_model_keys(model)
        for section in ((), ('train',), ('val',), ('logger',)):
            self.check_kinds(section)
        for key, value in self.data.items():
            if str(key).startswith('network_') and value is not None:
                self.check_network((key,))
        self.check_datasets()
        self.check_training(model)
        if (on_error := self.section(('val',)).get('on_error', 'stop')) not in ('stop', 'skip'):
            self.report(('val', 'on_error'), f'must be stop or skip, got {on_error!r}')
        for name in self.section(('val', 'metrics')):
            place = ('val', 'metrics', name)
            self.check_object(place, choices_of(METRIC_REGISTRY), 'metric', skip=('img', 'img2'), extra=('better',))
        for key in self.section(('path',)):
            if str(key).startswith(('pretrain_network', 'resume_state')):
                self.check_exists(('path', key))

    def check_model_keys(self, model: type) -> None:
        known = OURS.union(keys_read(model), *(keys_read(sys.modules[f'basicsr.{name}']) for name in READERS))
        others = read_by_any(MODEL_REGISTRY)
        self.check_keys((), self.data, below((), known), below((), others) | UNUSED)
        for key in ('network_g', *(('network_d',) if self.is_train else ())):
            if self.data.get(key) is None and (key,) in keys_read(model):
                self.report((key,), 'is missing')
        for place in (('train',), ('val',), ('logger',), ('path',), ('dist_params',)):
            self.check_keys(place, self.section(place), below(place, known), below(place, others))

    def value(self, place: Place) -> Any:
        value: Any = self.data
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def is_mapping(self, place: Place) -> bool:
        value = self.value(place)
        if not isinstance(value, dict):
            self.report(place, f'must be a mapping, got {value!r}')
        return isinstance(value, dict)

    def section(self, place: Place) -> dict:
        """A section that may be missing, or left out with ~."""
        return self.value(place) if self.value(place) is not None and self.is_mapping(place) else {}

    def check_keys(self, place: Place, given: Iterable, valid: set[str], elsewhere: Iterable[str] = ()) -> None:
        for key in given:
            if key in valid:
                continue
            if key in elsewhere:
                self.warnings.append(f'{self.options.describe((*place, key))} has no effect')
            else:
                self.report((*place, key), f'is not a known option{nearest(key, valid)}')

    def check_kinds(self, section: Place, keys: Set[str] = KINDS.keys()) -> None:
        given = self.section(section)
        for key in keys & given.keys():
            place, value = (*section, key), given[key]
            if value is None:
                continue
            if not fits(value, KINDS[key]):
                self.report_kind(place, KINDS[key], value)
            elif key in RANGES and fits(value, float):
                low, high = RANGES[key]
                if not low <= value <= high:
                    self.report(place, f'must be from {low} to {high}, got {value}')
            elif fits(value, float) and not 0 < value < math.inf:
                self.report(place, f'must be positive and finite, got {value}')

    def report_kind(self, place: Place, kind: Any, value: Any) -> None:
        remedy = ''
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                float(value)
                remedy = f'; YAML reads {value} as text, write !!float {value}'
        self.report(place, f'must be {kind_name(kind)}, got {value!r}{remedy}')

    def chosen(self, place: Place, choices: Mapping[str, Any], what: str) -> Any:
        """The choice that a value names; otherwise None, with a report."""
        name = self.value(place)
        if name is None:
            if len(place) > 1:
                self.report(place[:-1], f'needs {place[-1]}')
        elif not isinstance(name, str):
            self.report_kind(place, str, name)
        elif name not in choices:
            self.report(place, f'unknown {what} {name!r}{nearest(name, choices)}')
            self.lacks_class |= what in REGISTERED
        else:
            return choices[name]
        return None

    def check_object(self, place: Place, choices: Mapping[str, Any], what: str, *, skip=(), extra=(), needed=()) -> Any:
        """Check a section whose type is one of the choices and whose other keys are that choice's arguments.

        ``skip`` names arguments that the program passes, ``extra`` keys that are not arguments, ``needed`` arguments
        that must be given although they have a default. Returns the choice, or None.
        """
        if not self.is_mapping(place):
            return None
        given, found = self.value(place), self.chosen((*place, 'type'), choices, what)
        if found is None:
            return None
        parameters, hints = arguments_of(found, skip)
        if not takes_any_key(found):
            self.check_keys(place, given, {*parameters, 'type', *extra})
        for name, parameter in parameters.items():
            if name in given:
                kind = kind_of(parameter, hints)
                if not fits(given[name], kind):
                    self.report_kind((*place, name), kind, given[name])
            elif parameter.default is parameter.empty or name in needed:
                self.report(place, f'{given["type"]} needs {name}')
        return found

    def check_network(self, place: Place) -> None:
        network = self.check_object(place, choices_of(ARCH_REGISTRY), 'network')
        if network is None:
            return
        if self.is_train and self.value((*place, 'fused')) is True:
            self.report((*place, 'fused'), 'is for a trained network: basicsr convert --fused')
        parameter = arguments_of(network)[0].get('upscale')
        if parameter is not None and parameter.default is not parameter.empty:
            upscale, scale = self.value(place).get('upscale', parameter.default), self.data.get('scale')
            if fits(upscale, float) and fits(scale, float) and upscale != scale:
                self.report((*place, 'upscale'), f'is {upscale}, but scale is {scale}')

    def check_datasets(self) -> None:
        if self.data.get('datasets') is None or not self.is_mapping(('datasets',)):
            return
        datasets = self.data['datasets']
        if self.is_train and datasets.get('train') is None:
            self.report(('datasets',), 'training needs a data set named train')
        for name, dataset in datasets.items():
            phase = str(name).partition('_')[0]
            if phase not in ('train', 'val', 'test'):
                self.report(('datasets', name), 'a data set must be named train, val or test (or val_2, test_2, …)')
            if dataset is not None and self.is_mapping(('datasets', name)):
                self.check_dataset(('datasets', name), phase)

    def check_dataset(self, place: Place, phase: str) -> None:
        found = self.chosen((*place, 'type'), choices_of(DATASET_REGISTRY), 'data set')
        if found is None:
            return
        dataset, reads = self.value(place), below((), keys_read(found))
        needed = {'name', *reads.intersection(('dataroot_gt', 'dataroot_lq', 'io_backend'))}
        if phase == 'train':
            needed |= {'batch_size_per_gpu', 'num_worker_per_gpu'}
            needed |= reads.intersection(('gt_size', 'use_hflip', 'use_rot'))
        for key in sorted(key for key in needed if dataset.get(key) is None):
            self.report(place, f'{dataset["type"]} needs {key}')
        known = reads | below((), keys_read(sys.modules['basicsr.data']))
        known |= {'dataset_enlarge_ratio', 'gt_size'}  # which the training loop and the model read
        self.check_keys(place, dataset, known, below((), read_by_any(DATASET_REGISTRY)) | UNUSED)
        self.check_kinds(place)
        if isinstance(dataset.get('io_backend'), dict):
            self.chosen((*place, 'io_backend', 'type'), FileClient._backends, 'backend')
        for key in dataset:
            if str(key).startswith(('dataroot', 'meta_info')):
                self.check_exists((*place, key))

    def check_exists(self, place: Place) -> None:
        value = self.value(place)
        if not isinstance(value, str):
            if value is not None:
                self.report_kind(place, str, value)
            return
        path = missing = Path(value).expanduser()
        if path.suffix == '.lmdb' and path.is_dir():
            missing = next((path / name for name in ('data.mdb', 'meta_info.txt') if not (path / name).is_file()), path)
        if missing.exists():
            return
        from earn_plugin.prepare.demo import would_create  # which imports scikit-image

        if not would_create(path) and not missing.exists():  # another process may have created it just now
            self.report(place, f'{missing} does not exist')
            self.lacks_data |= path.parts[:1] == ('datasets',)

    def check_training(self, model: type | None) -> None:
        if not self.is_train or self.data.get('train') is None or not self.is_mapping(('train',)):
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
                for name in self.section(place):
                    self.check_loss((*place, name))
            elif key == 'scheduler':
                self.check_object(place, SCHEDULERS, key, skip=('optimizer', 'last_epoch'))
                periods, total = self.value((*place, 'periods')), train.get('total_iter')
                if fits(periods, list[float]) and fits(total, float) and sum(periods) < total - 1:
                    self.report((*place, 'periods'), f'end at iteration {sum(periods)}, before total_iter: {total}')
            elif str(key).startswith('optim_'):
                self.check_object(place, optimizers, 'optimizer', skip=('params',), needed=('lr',))
            elif str(key).endswith('_opt') and value is not None:
                self.check_loss(place)

    def check_loss(self, place: Place) -> None:
        found = self.check_object(place, choices_of(LOSS_REGISTRY), 'loss')
        if inspect.isclass(found) and issubclass(found, VGGLoss):
            given = self.value(place)
            vgg, weights = given.get('vgg_type', 'vgg19'), given.get('weights')
            if not isinstance(weights, str | None) or not isinstance(vgg, str) or vgg not in LAYOUTS:
                return  # reported already, or when the loss is built
            path = weights_file(vgg, weights)
            if weights not in ('hub', 'random') and not path.is_file():
                self.report(place, f'the weights of {vgg} are not at {path}; {how_to_get(vgg, weights)}')

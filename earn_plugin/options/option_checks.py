"""Reports all mistakes of an options file at once, each with its line and the nearest valid name, before any build."""

import inspect
import sys
from collections.abc import Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from basicsr.models import lr_scheduler
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

from earn_plugin.data.pair_checks import lq_name, meta_info_problems
from earn_plugin.errors import UserError
from earn_plugin.losses.teacher_loss import TeacherLoss, teacher_problem
from earn_plugin.losses.vgg_loss import LAYOUTS, VGGLoss, how_to_get, weights_file
from earn_plugin.models.earn_model import OPTIMIZERS, EARNModel
from earn_plugin.options.argument_types import arguments_of, fits
from earn_plugin.options.basicsr_keys import has_source, keys_read
from earn_plugin.options.checker import OptionsChecker
from earn_plugin.options.defaults import distinct_names
from earn_plugin.options.options_file import Options, Place
from earn_plugin.options.valid_values import OPTIONS, shown
from earn_plugin.weights import absence, included

SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}
# BasicSR's modules that read options for every model
READERS = ('train', 'test', 'models', 'utils.options', 'utils.logger', 'utils.misc')
OURS = frozenset({('logger', 'keep_states'), ('val', 'on_error'), ('dist_params', 'backend'), ('dist_params', 'port')})
OURS |= {('deterministic',)}
OF_TESTS = frozenset({('val', 'fused'), ('val', 'self_ensemble')})  # validation in training does not read them
# read by BasicSR, but set by the program
DERIVED = {'is_train', 'dist', 'rank', 'world_size', 'root_path', 'auto_resume', 'experiments_root', 'results_root'}
DERIVED |= {'models', 'training_states', 'log', 'visualization', 'phase', 'db_paths', 'client_keys'}
# in older files of BasicSR and in HAT's, no longer read
UNUSED = frozenset({'use_shuffle', 'save_img', 'suffix', 'crop_border', 'print_network'})
BACKENDS = {'disk': {'type'}, 'lmdb': {'type', 'readahead'}}  # memcached imports code from a folder that a file names
IMAGE_PAIRS = ('PairedImageDataset', 'BicubicPairDataset')
NO_TRAINING = {'maximize', 'capturable', 'differentiable'}  # arguments of torch's optimisers for other purposes


def check_options(options: Options, is_train: bool, files: bool = True) -> list[str]:
    """Check everything that can be checked without building anything; missing demo data are valid.

    Args:
        files: whether the data sets and weights that it names must exist.

    Returns:
        Warnings: keys that only other types than the given ones read.

    Raises:
        UsageError: lists all problems, each with its line.
    """
    checker = _Checker(options, is_train, files)
    checker.check_all()
    checker.raise_problems()
    return checker.warnings


def check_dataset_options(options: Options) -> None:
    """Check only the data sets of an options file.

    Raises:
        UsageError: lists all problems, each with its line.
    """
    checker = _Checker(options, is_train=False)
    if checker.is_mapping(('datasets',)) and checker.values_are_possible():
        checker.check_values((), {'scale'})
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


class _Checker(OptionsChecker):
    def check_all(self) -> None:
        if not self.values_are_possible():
            return
        for key in ('name', 'model_type', 'datasets', *(('train',) if self.is_train else ())):
            if self.data.get(key) is None:
                self.report((key,), 'is missing')
        model = self.chosen(('model_type',), choices_of(MODEL_REGISTRY), 'model type')
        if model is not None:
            self.check_model_keys(model)
        for section in ((), ('train',), ('val',), ('logger',), ('path',), ('dist_params',)):
            self.check_values(section)
        if isinstance(self.value(('logger', 'wandb')), dict):
            self.check_keys(('logger', 'wandb'), self.value(('logger', 'wandb')), {'project', 'resume_id'})
            self.check_values(('logger', 'wandb'))
            if self.value(('logger', 'wandb', 'project')) and not getattr(find_spec('wandb'), 'origin', None):
                self.report(('logger', 'wandb'), 'wandb is not installed: pip install wandb, or remove the section')
        for key, value in self.data.items():
            if str(key).startswith('network_') and value is not None:
                self.check_network((key,))
        self.check_datasets()
        self.check_training(model)
        for name in self.section(('val', 'metrics')):
            place = ('val', 'metrics', name)
            self.report_if(place, OPTIONS['name'].problem(name))
            self.check_object(place, choices_of(METRIC_REGISTRY), 'metric', skip=('img', 'img2'), extra=('better',))
        for key in self.section(('path',)):
            if str(key).startswith('pretrain_network'):
                self.check_checkpoint(('path', key))
            elif str(key).startswith('resume_state'):
                self.check_exists(('path', key), is_file=True)
        if self.data.get('network_g') is not None and self.is_mapping(('network_g',)):
            self.check_channels()

    def check_model_keys(self, model: type) -> None:
        if not has_source(model):  # then any key may be one that it reads
            return
        known = OURS.union(keys_read(model), *(keys_read(sys.modules[f'basicsr.{name}']) for name in READERS))
        known |= frozenset() if self.is_train else OF_TESTS

        def elsewhere(place: Place) -> set[str]:
            return below(place, read_by_any(MODEL_REGISTRY) | OF_TESTS)

        self.check_keys((), self.data, below((), known), lambda: elsewhere(()) | UNUSED)
        for key in ('network_g', *(('network_d',) if self.is_train else ())):
            if self.data.get(key) is None and (key,) in keys_read(model):
                self.report((key,), 'is missing')
        for place in (('train',), ('val',), ('logger',), ('path',), ('dist_params',)):
            self.check_keys(place, self.section(place), below(place, known), partial(elsewhere, place))

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

    def check_channels(self) -> None:
        """Compare the channels of network_g with those of the images."""
        network, choices = self.data['network_g'], choices_of(ARCH_REGISTRY)
        known = isinstance(network.get('type'), str) and network['type'] in choices
        parameters = arguments_of(choices[network['type']])[0] if known else {}
        for name in ('num_in_ch', 'num_out_ch'):
            channels = network.get(name, getattr(parameters.get(name), 'default', None))
            for phase, dataset in self.section(('datasets',)).items():
                if not fits(channels, int) or not isinstance(dataset, dict) or dataset.get('type') not in IMAGE_PAIRS:
                    continue
                has = 1 if dataset.get('color') == 'y' else 3
                if channels != has:
                    color = 'color: y' if has == 1 else 'without color: y'
                    what = f'is {channels}, but the images of datasets.{phase} have {has} ({color})'
                    self.report(('network_g', name), what)

    def check_datasets(self) -> None:
        if self.data.get('datasets') is None or not self.is_mapping(('datasets',)):
            return
        datasets = self.data['datasets']
        for phase, (name, first) in distinct_names(datasets).items():
            what = f'is also the name of datasets.{first}; its results are stored as {name}'
            self.warnings.append(f'{self.options.describe(("datasets", phase, "name"))}: {what}')
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
        if dataset['type'] in IMAGE_PAIRS and self.data.get('scale') is None:
            self.report(('scale',), f'is missing: {dataset["type"]} needs it')
        known = reads | below((), keys_read(sys.modules['basicsr.data']))
        known |= {'dataset_enlarge_ratio', 'gt_size'}  # which the training loop and the model read
        known |= set() if has_source(found) else set(dataset)
        self.check_keys(place, dataset, known, lambda: below((), read_by_any(DATASET_REGISTRY)) | UNUSED)
        self.check_values(place)
        self.check_normalisation(place)
        if isinstance(dataset.get('io_backend'), dict):
            self.check_backend((*place, 'io_backend'))
        template = dataset.get('filename_tmpl')
        if isinstance(template, str):
            self.check_template((*place, 'filename_tmpl'), template)
        for key in dataset:
            if str(key).startswith('dataroot'):
                if phase == 'train' or dataset[key] != self.value(('datasets', 'train', key)):  # reported already
                    self.check_exists((*place, key))
            elif str(key).startswith('meta_info') and self.check_exists((*place, key), is_file=True):
                for problem in meta_info_problems(Path(dataset[key]).expanduser()):
                    self.report((*place, key), problem)

    def check_template(self, place: Place, template: str) -> None:
        try:
            names = {lq_name(name, template) for name in ('a', 'b')}
        except UserError as error:
            self.report(place, str(error))
            return
        if len(names) < 2:
            self.report(place, f"must be like '{{}}x4', got {shown(template)}")

    def check_normalisation(self, place: Place) -> None:
        dataset = self.value(place)
        mean, std = dataset.get('mean'), dataset.get('std')
        channels = 1 if dataset.get('color') == 'y' else 3
        for key, value in (('mean', mean), ('std', std)):
            if value is None and (mean, std) != (None, None):
                self.report(place, f'mean and std belong together: {key} is missing')
            elif isinstance(value, list) and len(value) != channels:
                self.report((*place, key), f'must have a number for each of {channels} channels, got {shown(value)}')

    def check_backend(self, place: Place) -> None:
        given = self.value(place)
        if given.get('type') == 'memcached':
            self.report((*place, 'type'), 'memcached would run code from sys_path and is refused; possible: disk, lmdb')
        elif self.chosen((*place, 'type'), BACKENDS, 'backend'):
            self.check_keys(place, given, BACKENDS[given['type']])

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
                    self.report_if((*place, name), OPTIONS['name'].problem(name))
                    self.check_loss((*place, name))
            elif key == 'scheduler':
                self.check_scheduler(train)
            elif str(key).startswith('optim_'):
                self.check_object(place, optimizers, 'optimizer', skip={'params', *NO_TRAINING}, needed=('lr',))
                if all(self.value((*place, name)) is True for name in ('fused', 'foreach')):
                    self.report((*place, 'foreach'), 'cannot be true together with fused')
                betas = self.value((*place, 'betas'))
                if isinstance(betas, list) and len(betas) != 2:
                    self.report((*place, 'betas'), f'must have two numbers, got {shown(betas)}')
            elif key == 'net_d_init_iters' and key in reads:
                total = train.get('total_iter')
                if fits(value, float) and fits(total, float) and value >= total:
                    what = f'is {value}, so the generator is not trained before the end at total_iter: {total}'
                    self.report(place, what)
            elif str(key).endswith('_opt') and value is not None:
                self.check_loss(place)

    def check_scheduler(self, train: dict) -> None:
        place = ('train', 'scheduler')
        found = self.check_object(place, SCHEDULERS, 'scheduler', skip=('optimizer', 'last_epoch'))
        if found is None:
            return
        scheduler, total = train['scheduler'], train.get('total_iter')
        key = 'periods' if found is lr_scheduler.CosineAnnealingRestartLR else 'restarts'
        default = {'restarts': [0], 'restart_weights': [1]}
        starts, weights = (scheduler.get(name, default.get(name)) for name in (key, 'restart_weights'))
        if isinstance(starts, list) and isinstance(weights, list) and len(starts) != len(weights):
            given = 'restart_weights' if 'restart_weights' in scheduler else key
            what = f'{key} and restart_weights must have as many values, got {shown(starts)} and {shown(weights)}'
            self.report((*place, given), what)
        if key == 'periods' and fits(starts, list[float]) and fits(total, float) and sum(starts) < total - 1:
            self.report((*place, key), f'end at iteration {sum(starts)}, before total_iter: {total}')

    def check_checkpoint(self, place: Place) -> bool:
        """``check_exists`` for a file of weights, or an included network."""
        name = self.value(place)
        if not isinstance(name, str) or name not in included():
            return self.check_exists(place, is_file=True, absence=absence)
        return self.files

    def check_teacher(self, place: Place) -> None:
        train, scale = self.section(('datasets', 'train')), self.data.get('scale')
        gt_size, channels = train.get('gt_size'), 1 if train.get('color') == 'y' else 3
        if self.check_checkpoint(place) and not self.problems and fits(scale, int) and fits(gt_size, int):
            teacher, side = Path(self.value(place)).expanduser(), max(1, gt_size // scale)
            self.report_if(place, teacher_problem(teacher, (1, channels, side, side), scale))

    def check_loss(self, place: Place) -> None:
        found = self.check_object(place, choices_of(LOSS_REGISTRY), 'loss')
        if inspect.isclass(found) and issubclass(found, VGGLoss):
            given = self.value(place)
            vgg, weights = given.get('vgg_type', 'vgg19'), given.get('weights')
            if not isinstance(weights, str | None) or not isinstance(vgg, str) or vgg not in LAYOUTS:
                return  # reported already, or when the loss is built
            path = weights_file(vgg, weights)
            if self.files and weights not in ('hub', 'random') and not path.is_file():
                self.report(place, f'the weights of {vgg} are not at {path}; {how_to_get(vgg, weights)}')
        elif inspect.isclass(found) and issubclass(found, TeacherLoss):
            model = choices_of(MODEL_REGISTRY).get(str(self.data.get('model_type')))
            if model is not None and not issubclass(model, EARNModel):
                self.report((*place, 'type'), 'TeacherLoss needs model_type: EARNModel or EARNGANModel')
            if self.value((*place, 'criterion')) is not None:
                self.check_loss((*place, 'criterion'))
            self.check_teacher((*place, 'teacher'))

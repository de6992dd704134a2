"""Validation during training: BasicSR's, of each data set on its own, without any effect on the training.

Several processes share the images, if the model validates as SRModel does.
"""

import itertools
import sys
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from logging import Logger
from numbers import Number
from pathlib import Path
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from torch import enable_grad, nn
from torch.utils.data import DataLoader

from earn_plugin import rng
from earn_plugin.data.loaders import validation_loader
from earn_plugin.data.stream import Share
from earn_plugin.devices import kernel_search
from earn_plugin.errors import UserError, reason_of
from earn_plugin.metrics.bicubic_baseline import applicable, bicubic_metrics, compare_metrics, mean_metrics
from earn_plugin.metrics.fast_metrics import fast_metrics
from earn_plugin.training import distributed

PARTS = ('validation', 'dist_validation', 'nondist_validation')  # methods of SRModel
FRAME_NAMES = {'img_name': 'image', 'metric_type': 'metric'}  # local variables in BasicSR's validation


class Pictures:
    """Pictures of a validation. One of a.bmp, next to a.png, gets a number: BasicSR names both a.

    ``numbers``: of the next pictures, if other processes write some of that name. ``unwritten``: the first failure.
    """

    def __init__(self):
        self.numbers: deque[int] = deque()
        self.unwritten: str | None = None


class ValidationSets:
    """The validation data sets of a run.

    Args:
        loaders: one for each data set.
        opt: the completed options; ``val: on_error: skip`` continues after a failure.
        tensorboard: of the first process, or None.
    """

    def __init__(self, loaders: list[DataLoader], opt: dict[str, Any], tensorboard: Any, logger: Logger):
        self.loaders, self.opt, self.tensorboard, self.logger = loaders, opt, tensorboard, logger
        self.metrics: dict[str, dict[str, Any]] = {}  # data set → those that it can have
        self.bicubic: dict[str, Any] = {}  # data set → its metrics of bicubic upscaling
        for dataset in (loader.dataset for loader in loaders):
            wanted = opt['val'].get('metrics') or {}
            with rng.preserved():
                metrics = self.metrics[dataset.opt['name']] = applicable(wanted, 'gt' in dataset[0])
            if metrics != wanted:
                logger.warning(f'{dataset.opt["name"]} has no ground truth: {", ".join(metrics) or "no metrics"}')

    def run(self, model: BaseModel, iteration: int) -> str | None:
        """Validate on all data sets; returns the first failure that is to end the run, the same in all processes."""
        failures = []
        if shares := self.opt['world_size'] > 1 and all(getattr(type(model), p) is getattr(SRModel, p) for p in PARTS):
            distributed.copy_buffers(model)
        # a metric that turns gradients off must not turn them off in training
        with (
            rng.preserved(),
            enable_grad(),
            distributed.without_ddp(model),
            watched_pictures(model) as pictures,
            without_kernel_search(),
            fast_metrics(),
        ):
            for loader in self.loaders:
                try:
                    self.validate(model, loader, iteration, pictures if shares else None)
                except (Exception, SystemExit) as error:  # networks, metrics and data sets may raise anything
                    failures.append(f'validation on {loader.dataset.opt["name"]} failed: {explain(error)}')
        failures, unwritten = zip(*distributed.all_gather((failures, pictures.unwritten)), strict=True)
        if problem := next(filter(None, unwritten), None):
            self.logger.warning(problem)
        failures = failures[0]
        if self.opt['val'].get('on_error') == 'skip':
            for failure in failures if self.opt['rank'] == 0 else ():
                self.logger.error(f'{failure}; continuing, as val: on_error: skip says')
            return None
        return failures[0] if failures else None

    def validate(self, model: BaseModel, loader: DataLoader, iteration: int, pictures: Pictures | None) -> None:
        """Validate on a data set; ``pictures`` is None unless the processes share its images."""
        name = loader.dataset.opt['name']
        metrics = self.metrics[name]
        with changed_options(model, metrics, name if len(self.loaders) > 1 else ''), modes_kept(model):
            vars(model).pop('metric_results', None)  # of another data set
            if pictures is None:
                model.validation(loader, iteration, self.tensorboard, self.opt['val']['save_img'])
            else:
                self.validate_share(model, loader, iteration, pictures)
        results = getattr(model, 'metric_results', None)
        # BasicSR's video models log those of each frame themselves
        if self.opt['rank'] != 0 or not results or not all(isinstance(value, Number) for value in results.values()):
            return
        if name not in self.bicubic:
            bicubic = bicubic_metrics(loader.dataset, metrics, self.opt.get('scale', 1))
            self.bicubic[name] = mean_metrics(bicubic) if bicubic else None
        self.logger.info(f'{name} at iteration {iteration:,}: {compare_metrics(results, self.bicubic[name])}')

    def validate_share(self, model: BaseModel, loader: DataLoader, iteration: int, pictures: Pictures) -> None:
        """The same with every image in one of the processes; metrics are the means over all images, in all processes.

        Raises:
            UserError: it failed in a process; in all processes.
        """
        rank, world_size, dataset = self.opt['rank'], self.opt['world_size'], loader.dataset
        name, metrics, save_img = dataset.opt['name'], self.metrics[dataset.opt['name']], self.opt['val']['save_img']
        share = Share(dataset.dataset, rank, world_size)
        bicubic = failure = None
        try:
            pictures.numbers.extend(picture_numbers(dataset)[rank::world_size] if save_img else ())
            if len(share):
                with no_results(model):
                    share_loader = validation_loader(share, dataset.opt, self.opt)
                    model.nondist_validation(share_loader, iteration, None, save_img)
            if metrics and name not in self.bicubic:
                bicubic = bicubic_metrics(share, metrics, self.opt.get('scale', 1))
        except (Exception, SystemExit) as error:
            failure = explain(error)
        pictures.numbers.clear()
        result = len(share), getattr(model, 'metric_results', None), bicubic
        failures, results = zip(*distributed.all_gather((failure, result)), strict=True)
        if failure := next(filter(None, failures), None):
            raise UserError(failure)
        if not metrics:
            return
        counts, means, bicubics = zip(*(result for result in results if result[0]), strict=True)
        total = sum(counts)
        combined = {m: sum(n * mean[m] for n, mean in zip(counts, means, strict=True)) / total for m in metrics}
        if name not in self.bicubic:
            in_order = None if None in bicubics else [bicubics[i % len(counts)][i // len(counts)] for i in range(total)]
            self.bicubic[name] = in_order and mean_metrics(in_order)
        model.metric_results = combined
        model._initialize_best_metric_results(name)
        for metric, value in combined.items():
            model._update_best_metric_result(name, metric, value, iteration)
        distributed.rank0_first(lambda: model._log_validation_metric_values(iteration, name, self.tensorboard))


@contextmanager
def no_results(model: BaseModel) -> Iterator[None]:
    """Let SRModel compute metrics but neither log them nor count them as the best."""
    names = ('_update_best_metric_result', '_log_validation_metric_values')
    vars(model).update(dict.fromkeys(names, lambda *arguments: None))
    try:
        yield
    finally:
        for name in names:
            del vars(model)[name]


@contextmanager
def without_kernel_search() -> Iterator[None]:
    """Images differ in size: cuDNN does not search its fastest kernels for each, torch.compile compiles for none."""
    with kernel_search(False), torch.compiler.set_stance('force_eager'):
        yield


@contextmanager
def changed_options(model: BaseModel, metrics: dict[str, Any], subfolder: str) -> Iterator[None]:
    """Let the model compute only these metrics, and save pictures in a subfolder."""
    opt = model.opt
    pictures = str(Path(opt['path']['visualization'], subfolder))
    with_bar = opt['val'].get('pbar', False) and opt['rank'] == 0
    model.opt = opt | {
        'val': opt['val'] | {'metrics': metrics or None, 'pbar': with_bar},
        'path': opt['path'] | {'visualization': pictures},
    }
    try:
        yield
    finally:
        model.opt = opt


@contextmanager
def modes_kept(model: BaseModel) -> Iterator[None]:
    """Put networks and their layers back into the modes, of training or evaluation, that they have now."""
    networks = [value for value in vars(model).values() if isinstance(value, nn.Module)]
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training


@contextmanager
def watched_pictures(model: BaseModel) -> Iterator[Pictures]:
    """Record the first picture that cannot be written, rather than raise an error, wherever the model writes them."""
    modules = {sys.modules[cls.__module__] for cls in type(model).__mro__}
    originals = {module: module.imwrite for module in modules if hasattr(module, 'imwrite')}
    pictures, written = Pictures(), set()

    def imwrite(original, image, path, *arguments, **settings) -> bool:
        first = Path(path)
        counted = [pictures.numbers.popleft()] if pictures.numbers else itertools.count(1)
        names = (first if n == 1 else first.with_stem(f'{first.stem}_{n}') for n in counted)
        path = next(path for path in names if path not in written)
        written.add(path)
        try:
            return original(image, str(path), *arguments, **settings)
        except Exception as error:  # cv2 has errors of its own
            pictures.unwritten = pictures.unwritten or f'cannot write {path}, training continues: {reason_of(error)}'
            return False

    for module, original in originals.items():
        module.imwrite = partial(imwrite, original)
    try:
        yield pictures
    finally:
        for module, original in originals.items():
            module.imwrite = original


def picture_numbers(dataset: Any) -> list[int]:
    """For each image, how many up to it have its name: 1, or more for a.bmp after a.png."""
    seen, numbers = Counter(), []
    for path in image_paths(dataset):
        seen[path.stem] += 1
        numbers.append(seen[path.stem])
    return numbers


def image_paths(dataset: Any) -> list[Path]:
    """The paths of a data set's LR images, or of the HR images that they are made from."""
    paths = getattr(dataset, 'paths', None)
    if not isinstance(paths, list) or len(paths) != len(dataset):  # not a data set like BasicSR's: read it
        with rng.preserved():
            paths = [dataset[index] for index in range(len(dataset))]
    return [Path(path.get('lq_path') or path['gt_path'] if isinstance(path, dict) else path) for path in paths]


def explain(error: BaseException) -> str:
    """The reason of a failure, with the image and the metric: BasicSR's frames have their names."""
    if isinstance(error, UserError):
        return str(error)
    found = {}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found |= {name: frame.f_locals[name] for name in FRAME_NAMES if name in frame.f_locals}
    where = [f'{what} {found[name]}, ' for name, what in FRAME_NAMES.items() if name in found]
    return ''.join([*where, reason_of(error).rstrip('.')])

"""Validation during training: BasicSR's, of each data set on its own, without any effect on the training."""

import itertools
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from logging import Logger
from numbers import Number
from pathlib import Path
from typing import Any

from basicsr.models.base_model import BaseModel
from torch import enable_grad, nn
from torch.utils.data import DataLoader

from earn_plugin import rng
from earn_plugin.errors import UserError, reason_of
from earn_plugin.metrics.bicubic_baseline import applicable, bicubic_metrics, compare_metrics, mean_metrics
from earn_plugin.metrics.fast_metrics import fast_metrics
from earn_plugin.training import distributed

FRAME_NAMES = {'img_name': 'image', 'metric_type': 'metric'}  # local variables in BasicSR's validation


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
        # a metric that turns gradients off must not turn them off in training
        with (
            rng.preserved(),
            enable_grad(),
            distributed.without_ddp(model),
            reported_pictures(model, self.logger),
            fast_metrics(),
        ):
            for loader in self.loaders:
                try:
                    self.validate(model, loader, iteration)
                except (Exception, SystemExit) as error:  # networks, metrics and data sets may raise anything
                    failures.append(f'validation on {loader.dataset.opt["name"]} failed: {explain(error)}')
        failures = distributed.broadcast(failures)
        if self.opt['val'].get('on_error') == 'skip':
            for failure in failures:
                self.logger.error(f'{failure}; continuing, as val: on_error: skip says')
            return None
        return failures[0] if failures else None

    def validate(self, model: BaseModel, loader: DataLoader, iteration: int) -> None:
        name = loader.dataset.opt['name']
        metrics = self.metrics[name]
        with changed_options(model, metrics, name if len(self.loaders) > 1 else ''), modes_kept(model):
            vars(model).pop('metric_results', None)  # of another data set
            model.validation(loader, iteration, self.tensorboard, self.opt['val']['save_img'])
        results = getattr(model, 'metric_results', None)
        # BasicSR's video models log those of each frame themselves
        if self.opt['rank'] != 0 or not results or not all(isinstance(value, Number) for value in results.values()):
            return
        if name not in self.bicubic:
            bicubic = bicubic_metrics(loader.dataset, metrics, self.opt.get('scale', 1))
            self.bicubic[name] = mean_metrics(bicubic) if bicubic else None
        self.logger.info(f'{name} at iteration {iteration:,}: {compare_metrics(results, self.bicubic[name])}')


@contextmanager
def changed_options(model: BaseModel, metrics: dict[str, Any], subfolder: str) -> Iterator[None]:
    """Let the model compute only these metrics, and save pictures in a subfolder."""
    opt = model.opt
    pictures = str(Path(opt['path']['visualization'], subfolder))
    model.opt = opt | {
        'val': opt['val'] | {'metrics': metrics or None},
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
def reported_pictures(model: BaseModel, logger: Logger) -> Iterator[None]:
    """Report the first picture that cannot be written, rather than raise an error, wherever the model writes them.

    A picture of a.bmp, next to a.png, gets a number: BasicSR names both pictures a.
    """
    modules = {sys.modules[cls.__module__] for cls in type(model).__mro__}
    originals = {module: module.imwrite for module in modules if hasattr(module, 'imwrite')}
    reported, written = [], set()

    def imwrite(original, image, path, *arguments, **settings) -> bool:
        first = Path(path)
        numbered = (first.with_stem(f'{first.stem}_{number}') for number in itertools.count(2))
        path = next(path for path in itertools.chain([first], numbered) if path not in written)
        written.add(path)
        try:
            return original(image, str(path), *arguments, **settings)
        except Exception as error:  # cv2 has errors of its own
            if not reported:
                reported.append(path)
                logger.warning(f'cannot write {path}, training continues: {reason_of(error)}')
            return False

    for module, original in originals.items():
        module.imwrite = partial(imwrite, original)
    try:
        yield
    finally:
        for module, original in originals.items():
            module.imwrite = original


def explain(error: BaseException) -> str:
    """The reason of a failure, with the image and the metric: BasicSR's frames have their names."""
    if isinstance(error, UserError):
        return str(error)
    found = {}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found |= {name: frame.f_locals[name] for name in FRAME_NAMES if name in frame.f_locals}
    where = [f'{what} {found[name]}, ' for name, what in FRAME_NAMES.items() if name in found]
    return ''.join([*where, reason_of(error).rstrip('.')])

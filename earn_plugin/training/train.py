"""The training loop, for every BasicSR model type.

``Training.run`` is the loop. ``save_checkpoint`` writes a checkpoint, ``stop_on_signal`` ends a run on Ctrl-C or
SIGTERM, ``check_losses`` ends it when a loss is not finite.
"""

import math
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import AvgTimer, MessageLogger, make_exp_dirs, mkdir_and_rename, set_random_seed
from basicsr.utils.registry import MODEL_REGISTRY
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from earn_plugin import rng
from earn_plugin.atomic_files import remove_leftovers, write_file
from earn_plugin.data.loaders import TrainingData, build_checked, validation_loader
from earn_plugin.data.stream import image_names
from earn_plugin.devices import cuda_is_optional, kernel_search
from earn_plugin.errors import UserError
from earn_plugin.models.earn_model import EARNModel, NonFinite
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import Options
from earn_plugin.prepare.demo import make_missing_demo
from earn_plugin.signals import Stopped, StopRequest
from earn_plugin.training import checkpoint, distributed, run_logs
from earn_plugin.training.checkpoint_writer import CheckpointWriter
from earn_plugin.training.model import build_checked_model
from earn_plugin.training.resume import build_resumed_model, check_resumed_options, find_state, rename_newer_states
from earn_plugin.training.run_lock import run_lock
from earn_plugin.training.step_speed import faster_memory_format
from earn_plugin.training.validation import ValidationSets


@distributed.failures_reported()
def train(options: Options, launcher: str = 'none', auto_resume: bool = False, debug: bool = False) -> None:
    """Train from an options file, under the working directory.

    Options, images and model are checked before anything is written and before an earlier run is renamed.

    Raises:
        UserError: lists all problems; or training was stopped, or a loss is not finite.
    """
    with started(options, launcher, auto_resume, debug) as (opt, warnings), ExitStack() as locks:
        distributed.rank0_first(lambda: locks.enter_context(run_lock(Path(opt['path']['experiments_root']))))
        Training(opt, options.file, warnings).run()


@contextmanager
def started(
    options: Options, launcher: str, auto_resume: bool = False, debug: bool = False
) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Join the other processes; the completed options and warnings.

    Raises:
        UserError: lists all mistakes of the options.
    """
    if options.data.get('deterministic') is True:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read when CUDA starts
    rank, world_size = distributed.start(launcher, options.data.get('dist_params'))
    try:
        warnings = check_options(options, is_train=True)
        distributed.rank0_first(lambda: make_missing_demo(options.data))
        auto_resume |= distributed.is_restart()
        settings = {'auto_resume': auto_resume, 'debug': debug, 'rank': rank, 'world_size': world_size}
        opt = fill_defaults(options, is_train=True, **settings)
        with cuda_is_optional(), chosen_kernels(opt.get('deterministic', False)):
            yield opt, warnings
    finally:
        distributed.stop()


@contextmanager
def chosen_kernels(deterministic: bool) -> Iterator[None]:
    """In the block, cuDNN searches its fastest kernels, or, if ``deterministic``, torch uses only those that always
    give the same result.

    Raises:
        UserError: an operation has no such kernel.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic or before)
    try:
        with kernel_search(not deterministic):
            yield
    except RuntimeError as error:
        if 'does not have a deterministic implementation' not in str(error):
            raise
        operation = str(error).split(' does not have')[0]
        raise UserError(
            f'deterministic: true: torch has no deterministic implementation of {operation} on this device; remove the '
            'option, or replace what uses it in the network or the losses'
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)


class Training:
    """A run in one process: data, model, logs, and the iteration it has reached.

    Args:
        opt: the completed options.
        file: the options file, which is copied into the run's folder.
        warnings: to log.
    """

    def __init__(self, opt: dict[str, Any], file: Path, warnings: list[str]):
        self.opt = opt
        recipe = file.read_bytes()  # now, because the file may be in the folder of the earlier run, which is renamed
        state, found = distributed.rank0_first(lambda: find_state(opt))  # the others may not see the file, or not yet
        warnings = [*warnings, *found]
        if opt['manual_seed'] is None:
            seed = state['options']['manual_seed'] if state and 'options' in state else random.randint(1, 10_000)
            opt['manual_seed'] = distributed.broadcast(seed)
        chosen = ''
        is_ours = issubclass(MODEL_REGISTRY.get(opt['model_type']), EARNModel)
        if is_ours and opt['train'].get('memory_format') == 'auto':
            # measured once, as another format rounds differently
            saved = state['options']['train'].get('memory_format') if state and 'options' in state else None
            opt['train']['memory_format'] = saved or distributed.rank0_first(lambda: faster_memory_format(opt))
            chosen = f', memory_format {opt["train"]["memory_format"]}'
        if state is not None:
            warnings += check_resumed_options(state, opt)

        datasets = {}
        for phase, dataset_opt in opt['datasets'].items():
            datasets[phase], found = build_checked(dataset_opt)
            warnings += found
        self.data = TrainingData(datasets.pop('train'), opt, opt['train'].get('accum_iter', 1) if is_ours else 1)
        val_loaders = [validation_loader(d, opt['datasets'][phase], opt) for phase, d in datasets.items()]

        set_random_seed(opt['manual_seed'] + opt['rank'])
        run_logs.start_log(opt)
        self.iteration = self.position = 0
        if state is None:
            self.model = build_checked_model(opt)
        else:
            self.iteration = state['iter']
            self.position = state.get('position', self.iteration * self.data.samples_per_iteration)
            self.model = build_resumed_model(state, opt)
        self.saved_at = self.iteration if state else -1
        self.validated_at = state.get('validated_at', self.iteration) if state else -1
        self.recent_images: dict[int, list[str]] = {}  # iteration → images, since the losses were last checked
        self.bad_loss: NonFinite | None = None  # of this process, since then
        self.writer = CheckpointWriter()

        def create_run_folder() -> None:
            if state is None:  # rename the folders of an earlier run of this name
                make_exp_dirs(opt)
                tensorboard = run_logs.tensorboard_folder(opt)
                if opt['logger']['use_tb_logger'] and tensorboard.exists():
                    mkdir_and_rename(str(tensorboard))
            for key in ('experiments_root', 'models', 'training_states', 'visualization'):
                folder = Path(opt['path'][key])
                folder.mkdir(parents=True, exist_ok=True)
                remove_leftovers(folder)
            write_file(Path(opt['path']['experiments_root'], file.name), recipe)
            warnings.extend(rename_newer_states(Path(opt['path']['training_states']), self.iteration))

        distributed.rank0_first(create_run_folder)
        self.logger = run_logs.open_log(opt, 'train', warnings)
        self.tensorboard = run_logs.open_tensorboard(opt, self.iteration)
        if opt.get('val'):
            self.validation_sets = ValidationSets(val_loaders, opt, self.tensorboard, self.logger)
        self.logger.info(
            f'{opt["name"]}: {opt["train"]["total_iter"]:,} iterations of {self.data.samples_per_iteration} samples, '
            f'{len(self.data.stream):,} training images, on {self.model.device}, seed {opt["manual_seed"]}{chosen}'
        )

    def run(self) -> None:
        with self.writer:
            self.iterate()
            self.finish()

    def iterate(self) -> None:
        total = self.opt['train']['total_iter']
        message = run_logs.message_logger(self.opt, self.iteration, self.tensorboard)
        times = AvgTimer(), AvgTimer()  # of an iteration, and of the wait for its data
        hidden = None if self.opt['rank'] == 0 else True  # None: hidden unless on a terminal
        bar = tqdm(total=total, initial=self.iteration, unit='it', dynamic_ncols=True, disable=hidden)
        batches = self.data.batches(self.position, max(0, total - self.iteration))
        flags = distributed.LateMaximum()
        with StopRequest() as request, logging_redirect_tqdm([self.logger]), bar, closing(batches):
            self.validate_if_due()  # if the run ended during a validation
            self.finish_writing()  # before processes that read images are forked
            for batch in self.saved_on_failure(batches):
                times[1].record()
                self.step(batch)
                times[0].record()
                bar.update()
                if self.is_due(self.opt['logger']['print_freq']):
                    self.log(message, times, bar)
                if self.is_due(self.opt['logger']['save_checkpoint_freq']):
                    self.save_checkpoint()
                self.validate_if_due()
                self.react(flags.update(*self.flags(request)))
                for timer in times:
                    timer.start()
            self.react(flags.last())

    def flags(self, request: StopRequest) -> tuple[int, ...]:
        """What any process can ask all others for, as numbers, the largest of which ``react`` gets."""
        return request.number, distributed.is_orphan(), self.writer.failure is not None, self.bad_loss is not None

    def react(self, flags: list[int]) -> None:
        number, is_orphan, writing_failed, loss_is_bad = flags or (0,) * 4
        if loss_is_bad:
            self.check_losses()
        if writing_failed:
            self.finish_writing()
        if number or is_orphan:
            self.stop_on_signal(number)

    def saved_on_failure(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches; if one cannot be read, the iterations before it are saved first, unless other processes wait."""
        try:
            yield from batches
        except Exception:  # a damaged image, a worker that was killed
            if self.opt['world_size'] == 1 and self.saved_at != self.iteration > 0:
                self.save_checkpoint()
                self.finish_writing()
                self.logger.info(f'the checkpoint of iteration {self.iteration:,} is saved')
            raise

    def validate_if_due(self) -> None:
        is_new = self.validated_at != self.iteration > 0
        if is_new and self.opt.get('val') and self.is_due(self.opt['val']['val_freq']):
            self.validate()

    def is_due(self, frequency: float) -> bool:
        return self.iteration % frequency == 0

    def step(self, batch: dict[str, Any]) -> None:
        """One iteration."""
        self.iteration += 1
        self.recent_images[self.iteration] = image_names(batch)
        self.model.update_learning_rate(self.iteration, self.opt['train'].get('warmup_iter', -1))
        self.model.feed_data(batch)
        self.model.optimize_parameters(self.iteration)
        self.position += self.data.samples_per_iteration
        # at once if this does not wait for a GPU, or if the model does not remember its losses
        if self.model.device.type == 'cpu' or not isinstance(self.model, EARNModel):
            self.find_bad_loss()

    def find_bad_loss(self) -> None:
        """Record the first loss of this process that was not finite since the last check."""
        if self.bad_loss is None and isinstance(self.model, EARNModel):
            self.bad_loss = self.model.first_non_finite()
        elif self.bad_loss is None:
            log = self.model.get_current_log()
            names = (name for name, value in log.items() if not math.isfinite(value))
            self.bad_loss = next((NonFinite(self.iteration, name, log) for name in names), None)

    def check_losses(self) -> None:
        """Stop if a value was not finite since the last call, before anything is saved; or warn, as the options say.

        Raises:
            UserError: names the loss, its iteration and the images of its batch; or too many iterations were skipped.
        """
        self.find_bad_loss()
        if distributed.any_rank(self.bad_loss is not None):
            everywhere = [found for found in distributed.all_gather(self.bad_loss) if found is not None]
            first = min(everywhere, key=lambda found: (found.iteration, found.name.startswith('grad_norm')))
            names = distributed.all_gather(self.recent_images.get(first.iteration, []))
            what = (
                f'{first.name} is not finite in iteration {first.iteration} '
                f'({", ".join(f"{name} {value:.4g}" for name, value in first.values.items())}). '
                f'Images of this batch: {", ".join(chain(*names)) or "unknown"}'
            )
            is_ours = isinstance(self.model, EARNModel)
            if not is_ours or self.opt['train'].get('on_non_finite') != 'skip':
                remedy = '; on_non_finite: skip leaves out such iterations' if is_ours else ''
                raise UserError(self.end_of(what) + remedy)
            self.logger.warning(f'{what}. The iteration is skipped')
            self.bad_loss = None
        if isinstance(self.model, EARNModel) and self.model.skipped >= self.model.max_skipped:
            last = f'the last {n} iterations' if (n := int(self.model.skipped)) > 1 else 'the last iteration'
            raise UserError(self.end_of(f'the gradients of {last} are not finite'))
        self.recent_images.clear()

    def end_of(self, reason: str) -> str:
        """A reason to stop, with what can be done."""
        distributed.rank0_first(self.writer.join)
        states = checkpoint.states_in(Path(self.opt['path']['training_states']))
        latest = f'the latest valid state is {states[0]}' if states else 'no state was saved'
        return (
            f'{reason}. Training stops; {latest}. Check these images, or lower the learning rate or the weight of this '
            'loss'
        )

    def log(self, message: MessageLogger, times: tuple[AvgTimer, AvgTimer], bar: tqdm) -> None:
        self.check_losses()
        losses = self.model.get_current_log()
        rates = self.model.get_current_learning_rate()
        progress = {'epoch': self.data.epoch(self.position - 1), 'iter': self.iteration, 'lrs': rates}
        message(progress | {'time': times[0].get_avg_time(), 'data_time': times[1].get_avg_time()} | losses)
        if self.tensorboard:
            self.tensorboard.add_scalar('lr', rates[0], self.iteration)
        bar.set_postfix({name: f'{value:.4g}' for name, value in losses.items()}, refresh=False)

    def validate(self) -> None:
        """Validate; if that fails, end with a checkpoint.

        Raises:
            UserError: names data set, image and metric.
        """
        self.check_losses()
        self.finish_writing()  # before what may kill the process, such as too large an image
        if failure := self.validation_sets.run(self.model, self.iteration):
            if self.saved_at != self.iteration:
                self.save_checkpoint()
            self.finish_writing()
            raise UserError(
                f'{failure}. The checkpoint of iteration {self.iteration:,} is saved: correct the cause or set '
                'val: on_error: skip, and resume with --auto_resume'
            )
        self.validated_at = self.iteration
        if self.saved_at == self.iteration:
            self.save_state()  # again, with the best metrics

    def save_checkpoint(self) -> None:
        """Start to write the network files and the training state."""
        self.check_losses()
        self.save_state(with_networks=True)
        self.saved_at = self.iteration

    def save_state(self, with_networks: bool = False) -> None:
        self.finish_writing()  # before memory is needed for another copy
        progress = {'iteration': self.iteration, 'position': self.position, 'validated_at': self.validated_at}
        progress |= {'epoch': self.data.epoch(self.position), 'rngs': distributed.all_gather(rng.get_state())}
        files = {'with_networks': with_networks, 'run': self.writer.start}
        distributed.rank0_first(lambda: checkpoint.save_state(self.model, self.opt, **progress, **files))

    def finish_writing(self) -> None:
        """Wait until all files are written.

        Raises:
            UserError: one cannot be written; in all processes.
        """
        distributed.rank0_first(self.writer.wait)

    def stop_on_signal(self, number: int) -> None:
        """Save a checkpoint and stop, after Ctrl-C or SIGTERM reached any of the processes, or their launcher ended."""
        if self.saved_at != self.iteration:
            self.save_checkpoint()
        self.finish_writing()
        message = f'stopped at iteration {self.iteration:,}; a checkpoint is saved, resume with --auto_resume'
        if not number:
            raise UserError(f'the launcher of this process has ended: {message}')
        raise Stopped(number, message)

    def finish(self) -> None:
        if self.saved_at != self.iteration:
            self.save_checkpoint()
        self.finish_writing()
        distributed.rank0_first(lambda: checkpoint.save_networks(self.model, self.opt, 'latest'))
        if self.opt.get('val') and self.validated_at != self.iteration:
            self.validate()
        self.finish_writing()
        self.logger.info(f'end of training; the network is {self.opt["path"]["models"]}/net_g_latest.pth')
        if self.tensorboard:
            self.tensorboard.close()

"""The training loop, for every BasicSR model type: one direction from the options to the last checkpoint."""

import logging
import math
import random
from contextlib import closing
from copy import deepcopy
from numbers import Number
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import (
    AvgTimer,
    MessageLogger,
    check_resume,
    get_root_logger,
    get_time_str,
    init_wandb_logger,
    make_exp_dirs,
    mkdir_and_rename,
    set_random_seed,
)
from basicsr.utils.options import dict2str
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from earn_plugin import rng
from earn_plugin.atomic_files import atomic_file, remove_leftovers
from earn_plugin.data.loaders import TrainingData, build_checked, validation_loader
from earn_plugin.data.stream import image_names
from earn_plugin.errors import UserError
from earn_plugin.metrics.bicubic_baseline import bicubic_metrics, compare, mean
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import Options
from earn_plugin.prepare.demo import make_missing_demo
from earn_plugin.signals import Stopped, StopRequest
from earn_plugin.training import checkpoint, distributed
from earn_plugin.training.model import build_checked_model


def train(options: Options, launcher: str = 'none', auto_resume: bool = False, debug: bool = False) -> None:
    """Train as an options file says, under the working directory.

    Nothing is written, and no earlier run moved away, before the options, the images and the model are known to be
    sound.

    Raises:
        UserError: what is wrong, with every place; or training was stopped, or a loss is not finite.
    """
    rank, world_size = distributed.start(launcher, options.data.get('dist_params'))
    try:
        distributed.rank0_first(lambda: make_missing_demo(options.data))
        notes = check_options(options, is_train=True)
        opt = fill_defaults(
            options, is_train=True, auto_resume=auto_resume, debug=debug, rank=rank, world_size=world_size
        )
        Training(opt, options.file, notes).run()
    finally:
        distributed.stop()


class Training:
    """One run: data, model, logs and the iteration it has reached."""

    def __init__(self, opt: dict[str, Any], file: Path, notes: list[str]):
        self.opt = opt
        self.is_first = opt['rank'] == 0
        content = file.read_bytes()  # it may stand in the folder of the earlier run, which is moved
        state, found = self.find_state()
        notes = [*notes, *found]
        if opt['manual_seed'] is None:
            seed = state['options']['manual_seed'] if state and 'options' in state else random.randint(1, 10_000)
            opt['manual_seed'] = distributed.broadcast(seed)
        if state is not None:
            notes += checkpoint.check_same_networks(state, opt)

        datasets = {}
        for phase, dataset_opt in opt['datasets'].items():
            datasets[phase], oddities = build_checked(dataset_opt)
            notes += oddities
        self.data = TrainingData(datasets.pop('train'), opt)
        self.val_loaders = [validation_loader(d, opt['datasets'][phase], opt) for phase, d in datasets.items()]

        set_random_seed(opt['manual_seed'] + opt['rank'])
        torch.backends.cudnn.benchmark = True
        get_root_logger()
        self.iteration = self.position = 0
        self.model = self.build_model(state)
        self.total = opt['train']['total_iter']
        self.saved_at = self.validated_at = self.iteration if state else -1
        self.recent: dict[int, list[str]] = {}  # the images of the iterations whose losses were not looked at yet
        self.bicubic: dict[str, Any] = {}

        distributed.rank0_first(lambda: self.make_folders(fresh=state is None))
        distributed.rank0_first(lambda: notes.extend(self.file_away(file.name, content)))
        self.logger = self.open_log()
        self.tb_logger = self.open_tensorboard() if self.is_first else None
        for note in notes:
            self.logger.warning(note)
        self.logger.info(
            f'{opt["name"]}: {self.total:,} iterations of {self.data.samples_per_iteration} samples, '
            f'{len(self.data.stream):,} training images, on {self.model.device}, seed {opt["manual_seed"]}'
        )

    def find_state(self) -> tuple[dict[str, Any] | None, list[str]]:
        if self.opt['auto_resume']:
            return checkpoint.latest_valid_state(Path(self.opt['path']['training_states']))
        path = self.opt['path'].get('resume_state')
        return (checkpoint.load_state(Path(path)), [f'resuming from {path}']) if path else (None, [])

    def build_model(self, state: dict[str, Any] | None) -> Any:
        """The model as the options say, or as the state left it."""
        if state is None:
            return build_checked_model(self.opt)
        self.iteration = state['iter']
        self.position = state.get('position', self.iteration * self.data.samples_per_iteration)
        opt = deepcopy(self.opt)
        if 'networks' in state:
            opt['path'] = {k: None if k.startswith('pretrain_network') else v for k, v in opt['path'].items()}
            model = build_checked_model(opt)
            checkpoint.restore(model, state, self.opt)
            rngs = state['rngs']
            rng.set_state(rngs[self.opt['rank'] % len(rngs)])
            return model
        opt['path']['resume_state'] = opt['path'].get('resume_state') or 'found'
        check_resume(opt, self.iteration)  # stock BasicSR's state: the networks are in files of their own
        model = build_checked_model(opt)
        model.resume_training(state)
        return model

    def make_folders(self, fresh: bool) -> None:
        if fresh:
            make_exp_dirs(self.opt)
            tensorboard = Path(self.opt['root_path'], 'tb_logger', self.opt['name'])
            if self.opt['logger']['use_tb_logger'] and tensorboard.exists():
                mkdir_and_rename(str(tensorboard))
        for key in ('experiments_root', 'models', 'training_states', 'visualization'):
            folder = Path(self.opt['path'][key])
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)

    def file_away(self, name: str, content: bytes) -> list[str]:
        """The options beside what they make, and states of another course out of the way. Returns notes."""
        with atomic_file(Path(self.opt['path']['experiments_root'], name)) as file:
            file.write(content)
        return checkpoint.rename_newer_states(Path(self.opt['path']['training_states']), self.iteration)

    def open_log(self) -> logging.Logger:
        logger = get_root_logger()
        if self.is_first:
            name = f'train_{self.opt["name"]}_{get_time_str()}.log'
            handler = logging.FileHandler(Path(self.opt['path']['log'], name), 'w', encoding='utf-8')
            handler.setFormatter(logger.handlers[0].formatter)
            handler.stream.write(f'options:{dict2str(self.opt)}\n')
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
        return logger

    def open_tensorboard(self) -> Any:
        settings = self.opt['logger']
        if (settings.get('wandb') or {}).get('project') and 'debug' not in self.opt['name']:
            init_wandb_logger(self.opt)
        if not settings['use_tb_logger'] or 'debug' in self.opt['name']:
            return None
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(self.opt['root_path'], 'tb_logger', self.opt['name'])
        # what a killed run logged after its last state is logged again
        return SummaryWriter(str(folder), purge_step=self.iteration + 1 if self.iteration else None)

    def run(self) -> None:
        left = max(0, self.total - self.iteration)
        message = MessageLogger(self.opt, self.iteration + 1, self.tb_logger)
        times = AvgTimer(), AvgTimer()  # of an iteration, and of the wait for its data
        bar = tqdm(
            total=self.total,
            initial=self.iteration,
            unit='it',
            dynamic_ncols=True,
            disable=None if self.is_first else True,
        )
        batches = self.data.batches(self.position, left)
        with StopRequest() as request, logging_redirect_tqdm([self.logger]), bar, closing(batches):
            for batch in batches:
                times[1].record()
                self.step(batch)
                times[0].record()
                bar.update()
                if self.is_due(self.opt['logger']['print_freq']):
                    self.log(message, times, bar)
                if self.opt.get('val') and self.is_due(self.opt['val']['val_freq']):
                    self.validate()
                if self.is_due(self.opt['logger']['save_checkpoint_freq']):
                    self.save()
                if distributed.any_rank(bool(request.number)):
                    self.stop(request.number)
                for timer in times:
                    timer.start()
        self.finish()

    def is_due(self, frequency: float) -> bool:
        return self.iteration % frequency == 0

    def step(self, batch: dict) -> None:
        self.iteration += 1
        self.recent[self.iteration] = image_names(batch)
        self.model.update_learning_rate(self.iteration, self.opt['train'].get('warmup_iter', -1))
        self.model.feed_data(batch)
        self.model.optimize_parameters(self.iteration)
        self.position += self.data.samples_per_iteration
        # where the losses are numbers already, or reading them waits for nothing, look at once
        if self.model.device.type == 'cpu' or not hasattr(self.model, 'first_non_finite'):
            self.check_finite()

    def check_finite(self) -> None:
        """Stop if a loss was not finite since the last look; nothing is saved from then on."""
        if hasattr(self.model, 'first_non_finite'):
            bad = self.model.first_non_finite()
        else:
            log = self.model.get_current_log()
            bad = next(((self.iteration, name) for name, value in log.items() if not math.isfinite(value)), None)
        if distributed.any_rank(bad is not None):
            iteration, term = min(found for found in distributed.gather(bad) if found is not None)
            names = [name for part in distributed.gather(self.recent.get(iteration, [])) for name in part]
            states = checkpoint.states_in(Path(self.opt['path']['training_states']))
            kept = f'the last good state is {states[0]}' if states else 'no state was saved before'
            raise UserError(
                f'{term} is not finite in iteration {iteration}. Images of that batch: '
                f'{", ".join(names) or "unknown"}. Training stops; {kept}. '
                'Look at these images, or take a lower learning rate or a smaller weight of that term'
            )
        self.recent.clear()

    def log(self, message: MessageLogger, times: tuple[AvgTimer, AvgTimer], bar: tqdm) -> None:
        self.check_finite()
        losses = self.model.get_current_log()
        rates = self.model.get_current_learning_rate()
        message(
            {
                'epoch': self.data.epoch(self.position - 1),
                'iter': self.iteration,
                'lrs': rates,
                'time': times[0].get_avg_time(),
                'data_time': times[1].get_avg_time(),
                **losses,
            }
        )
        if self.tb_logger:
            self.tb_logger.add_scalar('lr', rates[0], self.iteration)
        bar.set_postfix({name: f'{value:.4g}' for name, value in losses.items()}, refresh=False)

    def validate(self) -> None:
        self.check_finite()
        with rng.preserved(), distributed.without_ddp(self.model):
            for loader in self.val_loaders:
                self.model.validation(loader, self.iteration, self.tb_logger, self.opt['val']['save_img'])
                if self.is_first and self.opt['val'].get('metrics'):
                    self.report(loader.dataset)
        self.validated_at = self.iteration

    def report(self, dataset: Any) -> None:
        """One line: the model's metrics beside bicubic's; models of videos, with metrics by frame, tell theirs."""
        results = getattr(self.model, 'metric_results', {})
        if not results or not all(isinstance(value, Number) for value in results.values()):
            return
        name = dataset.opt['name']
        if name not in self.bicubic:
            bicubic = bicubic_metrics(dataset, self.opt['val']['metrics'], self.opt.get('scale'))
            self.bicubic[name] = mean(bicubic) if bicubic else None
        line = compare(results, self.bicubic[name])
        self.logger.info(f'{name} at iteration {self.iteration:,}: {line}')

    def save(self) -> None:
        self.check_finite()
        states = distributed.gather(rng.get_state())

        def write() -> None:
            checkpoint.save_networks(self.model, self.opt, str(self.iteration))
            epoch = self.data.epoch(self.position)
            checkpoint.save_state(self.model, self.opt, self.iteration, epoch, self.position, states)

        distributed.rank0_first(write)
        self.saved_at = self.iteration

    def stop(self, number: int) -> None:
        if self.saved_at != self.iteration:
            self.save()
        number = max(distributed.gather(number))
        raise Stopped(number, f'stopped at iteration {self.iteration:,}; everything is saved, go on with --auto_resume')

    def finish(self) -> None:
        if self.saved_at != self.iteration:
            self.save()
        distributed.rank0_first(lambda: checkpoint.save_networks(self.model, self.opt, 'latest'))
        if self.opt.get('val') and self.validated_at != self.iteration:
            self.validate()
        self.logger.info(f'end of training; the network is {self.opt["path"]["models"]}/net_g_latest.pth')
        if self.tb_logger:
            self.tb_logger.close()

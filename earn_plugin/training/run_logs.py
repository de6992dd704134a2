"""The logs of a run: the log file, TensorBoard, and BasicSR's log lines of losses."""

import logging
import sys
import threading
from collections.abc import Callable
from functools import partial
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from basicsr.utils import MessageLogger, get_root_logger, get_time_str, init_wandb_logger
from basicsr.utils.options import dict2str

from earn_plugin.errors import PrintableStream


class LogFile(logging.FileHandler):
    """A log file; lines that cannot be written are reported once and do not end the run."""

    is_reported = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.is_reported:
            self.is_reported = True
            print(
                f'warning: cannot write {self.baseFilename}: {sys.exc_info()[1]}; the log is incomplete',
                file=sys.stderr,
            )


class TensorBoard:
    """torch's SummaryWriter; scalars that cannot be written are reported once and do not end the run."""

    def __init__(self, folder: Path, purge_step: int | None):
        from torch.utils.tensorboard import SummaryWriter

        self._folder, self._is_reported = folder, False
        default = threading.excepthook
        # its thread's errors are raised again at the next call
        threading.excepthook = lambda e: None if type(e.thread).__module__.startswith('tensorboard') else default(e)
        self._writer = self._try(SummaryWriter, str(folder), purge_step=purge_step)

    def __getattr__(self, name: str) -> Any:
        return partial(self._try, getattr(self._writer, name, None))

    def _try(self, call: Callable | None, *arguments, **settings) -> Any:
        try:
            return call and call(*arguments, **settings)
        except OSError as error:
            if not self._is_reported:
                self._is_reported = True
                get_root_logger().warning(f'cannot write {self._folder}: {error}; TensorBoard has no more of this run')
            return None


def start_log(opt: dict[str, Any]) -> None:
    """Log to the terminal, and keep for the log file what is logged before the run's folder exists."""
    logger = get_root_logger()
    if opt['rank'] == 0:
        logger.setLevel(logging.INFO)
        logger.addHandler(MemoryHandler(capacity=1000))


def open_log(opt: dict[str, Any], command: str, warnings: list[str]) -> logging.Logger:
    """BasicSR's logger; in the first process it also writes COMMAND_NAME_TIME.log, which starts with the options."""
    logger = get_root_logger()
    if opt['rank'] == 0:
        path = Path(opt['path']['log'], f'{command}_{opt["name"]}_{get_time_str()}.log')
        handler = LogFile(path, encoding='utf-8')  # appends, should two runs start in one second
        handler.stream = PrintableStream(handler.stream)
        handler.setFormatter(logger.handlers[0].formatter)
        try:
            handler.stream.write(f'options:{dict2str(opt)}\n')
        except OSError:
            handler.handleError(None)
        for early in [handler for handler in logger.handlers if isinstance(handler, MemoryHandler)]:
            early.setTarget(handler)
            early.close()  # writes to its target
            logger.removeHandler(early)
        logger.addHandler(handler)
    for warning in warnings:
        logger.warning(warning)
    return logger


def open_tensorboard(opt: dict[str, Any], iteration: int) -> Any:
    """A SummaryWriter, or None if the options do not ask for one; also starts Weights & Biases."""
    settings = opt['logger']
    if opt['rank'] != 0 or 'debug' in opt['name']:
        return None
    if (settings.get('wandb') or {}).get('project'):
        init_wandb_logger(opt)
    if not settings['use_tb_logger']:
        return None
    # a killed run logged more iterations than it saved; these are logged again
    return TensorBoard(tensorboard_folder(opt), purge_step=iteration + 1 if iteration else None)


def tensorboard_folder(opt: dict[str, Any]) -> Path:
    return Path(opt['root_path'], 'tb_logger', opt['name'])


def message_logger(opt: dict[str, Any], iteration: int, tensorboard: Any) -> MessageLogger:
    """BasicSR's writer of log lines, for a run that continues after an iteration."""
    logger = MessageLogger(opt, iteration + 1, tensorboard)
    logger.max_iters += 1  # its ETA leaves one iteration out, which makes the last one negative
    return logger

"""Fixtures: the basicsr command without the seconds that a new process takes to import torch."""

import logging
from collections.abc import Callable, Iterator

import pytest
from basicsr.utils.logger import initialized_logger

from tests.helpers.command import command_here


@pytest.fixture
def run_here(capsys, monkeypatch) -> Iterator[Callable[..., str]]:
    """``command`` in this process."""

    def run(*arguments, cwd, expect=0) -> str:
        monkeypatch.chdir(cwd)
        forget_log()
        return command_here(*arguments, capsys=capsys, expect=expect)

    yield run
    forget_log()


def forget_log() -> None:
    """BasicSR has one logger for a process, which would go on writing to the log of the run before."""
    logger = logging.getLogger('basicsr')
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
        handler.close()
    initialized_logger.clear()

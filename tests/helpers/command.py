"""Runs the basicsr command, in a separate process or in this one."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from basicsr.utils.logger import initialized_logger


def start(*arguments: str | Path, cwd: Path, **keywords: Any) -> subprocess.Popen:
    """Start the command in a separate process."""
    return subprocess.Popen(
        [sys.executable, '-m', 'earn_plugin', *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **keywords,
    )


def command(*arguments: str | Path, cwd: Path, expect: int = 0, timeout: float = 300) -> str:
    """Run the command in a separate process; returns what it printed."""
    process = start(*arguments, cwd=cwd)
    output = process.communicate(timeout=timeout)[0]
    assert process.returncode == expect, output
    assert 'Traceback' not in output, output
    return output


TORCHRUN = (sys.executable, '-m', 'torch.distributed.run')


def torchrun(
    folder: Path,
    *arguments: str,
    program: tuple[str, ...] = ('-m', 'earn_plugin'),
    expect: int = 0,
    launch: tuple[str, ...] = ('--standalone', '--nproc_per_node=2'),
) -> str:
    """Run the command in several processes; returns what they printed."""
    done = subprocess.run(
        [*TORCHRUN, *launch, *program, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == expect, done.stdout
    return done.stdout


def close_log() -> None:
    """BasicSR has one logger in a process, which would also write the next run to the log file of this one."""
    logger = logging.getLogger('basicsr')
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
        handler.close()
    initialized_logger.clear()


def command_here(*arguments: str | Path, capsys: pytest.CaptureFixture, expect: int = 0) -> str:
    """Run the command in this process and working directory, which saves the import of torch."""
    from earn_plugin.cli import main

    close_log()
    capsys.readouterr()
    assert main([*map(str, arguments)]) == expect
    printed = capsys.readouterr()
    close_log()
    return printed.out + printed.err

"""The basicsr command, in a process of its own or in this one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def start(*arguments: str | Path, cwd: Path, **keywords: Any) -> subprocess.Popen:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, '-m', 'earn_plugin', *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **keywords,
    )


def command(*arguments: str | Path, cwd: Path, expect: int = 0, timeout: float = 300) -> str:
    """Run the command to its end; returns what it printed."""
    process = start(*arguments, cwd=cwd)
    output = process.communicate(timeout=timeout)[0]
    assert process.returncode == expect, output
    assert 'Traceback' not in output, output
    return output


def command_here(*arguments: str | Path, capsys: pytest.CaptureFixture, expect: int = 0) -> str:
    """The same in this process and its working directory, without the seconds that a new one takes to import torch."""
    from earn_plugin.cli import main

    capsys.readouterr()
    assert main([*map(str, arguments)]) == expect
    printed = capsys.readouterr()
    return printed.out + printed.err

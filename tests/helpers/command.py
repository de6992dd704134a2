"""Runs the basicsr command, in a separate process or in this one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


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


def command_here(*arguments: str | Path, capsys: pytest.CaptureFixture, expect: int = 0) -> str:
    """Run the command in this process and working directory, which saves the import of torch."""
    from earn_plugin.cli import main

    capsys.readouterr()
    assert main([*map(str, arguments)]) == expect
    printed = capsys.readouterr()
    return printed.out + printed.err

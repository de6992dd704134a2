"""The basicsr command: a file for each group of commands, which parses and dispatches.

What a command needs is imported when it runs, so that --help stays fast.
"""

import argparse
import errno
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import earn_plugin
from earn_plugin.cli import (
    figure_commands,
    inference_commands,
    network_commands,
    ntire_commands,
    prepare_commands,
    train_commands,
)
from earn_plugin.compat import OtherBasicSR
from earn_plugin.errors import PrintableStream, UserError
from earn_plugin.signals import signal_number, sigterm_as_ctrl_c


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failure, 2 for wrong usage, 130 or 143 when stopped."""
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:  # closed, as by some schedulers
            setattr(sys, name, Path(os.devnull).open('w'))  # noqa: SIM115 (open until the process ends)
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may not be printable in its encoding
        sys.stdout.reconfigure(errors='backslashreplace')
    if not isinstance(sys.stdout, PrintableStream):
        sys.stdout = PrintableStream(sys.stdout)
    if not isinstance(sys.stderr, PrintableStream):
        sys.stderr = PrintableStream(sys.stderr, has_bars=True)
    args = parser().parse_args(arguments)
    command = ' '.join(filter(None, (args.command, getattr(args, 'what', None))))
    warnings.simplefilter('error', OtherBasicSR)
    try:
        with sigterm_as_ctrl_c():
            network_commands.import_own_code(args)
            code = args.run(args) or 0
        sys.stdout.flush()  # a closed pipe raises here rather than when Python exits
        return code
    except (UserError, OtherBasicSR) as error:
        print(f'basicsr {command}: {error}', file=sys.stderr)
        return getattr(error, 'exit_code', 1)
    except KeyboardInterrupt as interrupt:
        print(f'basicsr {command}: interrupted', file=sys.stderr)
        return 128 + signal_number(interrupt)
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader, such as head, has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if error.errno is None:
            raise
        # a full or read-only disk, missing permissions, a name that is too long
        print(f'basicsr {command}: {error.filename or "writing"!s:.200}: {error.strerror}', file=sys.stderr)
        return 2 if error.errno == errno.ENAMETOOLONG else 1


class _Parser(argparse.ArgumentParser):
    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.register('type', Path, _possible_path)  # for every argument with type=Path, also of the commands below


def _possible_path(text: str) -> Path:
    if not text or '\0' in text:
        raise argparse.ArgumentTypeError(f'a path cannot be empty or have a null character, got {text!r}')
    encoded = os.fsencode(text)
    if len(encoded) > 4095 or any(len(part) > 255 for part in encoded.split(b'/')):
        raise argparse.ArgumentTypeError(f'{text:.100}… is too long: a name can have 255 bytes, a path 4,095')
    return Path(text)


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog='basicsr', description='Train, test and measure super-resolution networks with BasicSR.')
    top.add_argument('--version', action='version', version=f'earn_plugin {earn_plugin.__version__}')
    commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')
    groups = (train_commands, inference_commands, figure_commands, prepare_commands, network_commands, ntire_commands)
    for group in groups:
        group.add_commands(commands)
    return top

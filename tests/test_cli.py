import argparse
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import earn_plugin
from earn_plugin import cli
from earn_plugin.cli import network_commands as networks
from earn_plugin.cli import train_commands as running
from earn_plugin.errors import UsageError, UserError
from tests.helpers.command import command_here
from tests.helpers.places import ROOT


def commands(parser: argparse.ArgumentParser, *above: str) -> list[tuple[str, ...]]:
    found = [above]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [words for name, below in action.choices.items() for words in commands(below, *above, name)]
    return found


@pytest.mark.parametrize('words', commands(cli.parser()), ids=' '.join)
def test_help_of_every_command(words, capsys):
    with pytest.raises(SystemExit) as leave:
        cli.main([*words, '--help'])
    assert leave.value.code == 0
    assert capsys.readouterr().out.startswith(' '.join(['usage: basicsr', *words]))


def test_help_imports_nothing_heavy():
    """It takes 0.1 s because it imports neither torch nor basicsr nor numpy."""
    code = (
        'import sys; from earn_plugin import cli\n'
        'try: cli.main(["--help"])\n'
        'except SystemExit: pass\n'
        'assert not {"torch", "basicsr", "numpy", "yaml", "cv2"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_basicsrs_flags_are_accepted(monkeypatch):
    seen = []
    monkeypatch.setattr(running, 'run_train', lambda args: seen.append(args))
    for rank in ('--local_rank', '--local-rank'):
        flags = ['-opt', 'x.yml', '--launcher', 'pytorch', '--auto_resume', '--debug', f'{rank}=1']
        assert cli.main(['train', *flags, '--force_yml', 'a:b=c', 'd=e']) == 0
        assert (seen[-1].opt, seen[-1].launcher, seen[-1].local_rank) == ('x.yml', 'pytorch', 1)
        assert (seen[-1].auto_resume, seen[-1].debug, seen[-1].force_yml) == (True, True, ['a:b=c', 'd=e'])


@pytest.mark.parametrize(
    ('error', 'code'), [(UserError('what to do'), 1), (UsageError('what to do'), 2), (KeyboardInterrupt(), 130)]
)
def test_user_errors_have_an_exit_code_and_no_traceback(monkeypatch, capsys, error, code):
    def fail(args):
        raise error

    monkeypatch.setattr(networks, 'run_list', fail)
    assert cli.main(['list']) == code
    printed = capsys.readouterr().err
    assert printed.startswith('basicsr list: ')
    assert printed.count('\n') == 1


def test_names_that_the_terminal_cannot_print(monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(printed, encoding='ascii', write_through=True))
    monkeypatch.setattr(networks, 'run_list', lambda args: print('ä ×\udcff'))
    assert cli.main(['list']) == 0
    assert printed.getvalue() == b'\\xe4 \\xd7\\udcff\n'


def test_a_bug_keeps_its_traceback(monkeypatch):
    def fail(args):
        raise ZeroDivisionError

    monkeypatch.setattr(networks, 'run_list', fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(['list'])


@pytest.mark.parametrize(
    'arguments', [[], ['trian'], ['train'], ['train', '-opt'], ['train', '-opt', 'x', '--launcher', 'y']]
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as leave:
        cli.main(arguments)
    assert leave.value.code == 2
    assert 'usage: basicsr' in capsys.readouterr().err


def path_arguments(parser: argparse.ArgumentParser, *above: str) -> list[tuple[str, ...]]:
    """Command lines in which an argument of type Path is PATH, for each such argument."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [line for name, below in action.choices.items() for line in path_arguments(below, *above, name)]
        elif action.type is Path:
            before = (
                ['x'] * [a for a in parser._actions if not a.option_strings].index(action)
                if not action.option_strings
                else []
            )
            found.append((*above, *action.option_strings[:1], *before, 'PATH'))
    return found


@pytest.mark.parametrize('line', path_arguments(cli.parser()), ids=' '.join)
@pytest.mark.parametrize('path', ['', 'x' * 5000, 'x/' * 2500, 'a\0b'], ids=['empty', 'long', 'deep', 'null'])
def test_a_path_that_cannot_exist_exits_with_2(line, path, capsys):
    with pytest.raises(SystemExit) as leave:
        cli.main([path if word == 'PATH' else word for word in line])
    assert leave.value.code == 2
    assert 'cannot be empty' in (printed := capsys.readouterr().err) or 'too long' in printed


@pytest.mark.parametrize('words', [['train', '-opt'], ['test', '-opt'], ['prepare', 'check']])
@pytest.mark.parametrize('name', ['', '.yml', 'x' * 5000, '~nobody_of_this_name/x'])
def test_an_options_file_that_cannot_exist_exits_with_2(words, name, capsys):
    assert 'is neither an options file' in command_here(*words, name, capsys=capsys, expect=2)


def test_a_name_that_becomes_too_long_exits_with_2(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(networks, 'run_list', lambda args: (tmp_path / ('x' * 300)).touch())
    assert cli.main(['list']) == 2
    assert 'too long' in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(['--version'])
    assert capsys.readouterr().out == f'earn_plugin {earn_plugin.__version__}\n'


def test_an_unknown_recipe_exits_with_2_and_names_the_nearest(capsys):
    printed = command_here('train', '-opt', 'demo_EARN_x5', capsys=capsys, expect=2)
    assert printed.startswith('basicsr train: demo_EARN_x5 ')
    assert 'did you mean demo_EARN_x4?' in printed


def test_a_closed_pipe_is_not_a_traceback(monkeypatch):
    """Also if all that is printed still fits in the buffer when the command ends."""
    monkeypatch.setattr(networks, 'run_list', lambda args: print('printed'))
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, 'w') as pipe:  # noqa: PTH123 (a file descriptor)
        monkeypatch.setattr(sys, 'stdout', pipe)
        assert cli.main(['list']) == 1


@pytest.mark.slow
def test_list_doctor_and_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed = command_here('list', capsys=capsys)
    assert 'EARN                            2,181,443 parameters' in printed
    assert 'EDSR                            needs num_in_ch, num_out_ch' in printed
    assert 'SSIMLoss                        earn_plugin' in printed
    assert 'demo_EARN_x4' in printed
    assert "ablate_EARN_x4                  EARN's ablations" in printed
    assert 'problems: 0' in command_here('doctor', capsys=capsys)
    printed = command_here('prepare', 'demo', capsys=capsys)
    assert 'datasets/demo created' in printed
    assert 'datasets/demo already exists' in command_here('prepare', 'demo', capsys=capsys)


def test_closed_output(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', None)
    assert cli.main(['list']) == 0
    sys.stdout.close()

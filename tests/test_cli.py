import argparse
import io
import subprocess
import sys

import pytest

import earn_plugin
from earn_plugin import cli
from earn_plugin.cli import network_commands as networks
from earn_plugin.cli import train_commands as running
from earn_plugin.errors import UsageError, UserError
from tests.helpers.command import command, start
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
    """What keeps it under half a second: neither torch nor basicsr nor numpy."""
    code = (
        'import sys; from earn_plugin import cli\n'
        'try: cli.main(["--help"])\n'
        'except SystemExit: pass\n'
        'assert not {"torch", "basicsr", "numpy", "yaml", "cv2"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_basicsrs_flags_are_taken_as_they_are(monkeypatch):
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
def test_mistakes_have_no_traceback_and_an_exit_code(monkeypatch, capsys, error, code):
    def fail(args):
        raise error

    monkeypatch.setattr(networks, 'run_list', fail)
    assert cli.main(['list']) == code
    printed = capsys.readouterr().err
    assert printed.startswith('basicsr list: ')
    assert printed.count('\n') == 1


def test_names_that_the_terminal_does_not_have(monkeypatch):
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
def test_wrong_usage_is_2(arguments, capsys):
    with pytest.raises(SystemExit) as leave:
        cli.main(arguments)
    assert leave.value.code == 2
    assert 'usage: basicsr' in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(['--version'])
    assert capsys.readouterr().out == f'earn_plugin {earn_plugin.__version__}\n'


def test_unknown_options_file_is_2_and_names_the_nearest_recipe(tmp_path):
    printed = command('train', '-opt', 'demo_EARN_x5', cwd=tmp_path, expect=2)
    assert printed.startswith('basicsr train: no options file demo_EARN_x5, and no recipe of that name; did you mean')


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    process = start('list', cwd=tmp_path)
    process.stdout.close()  # long before it prints; a reader that closes later may come after the last line
    assert process.wait(timeout=300) == 1


@pytest.mark.slow
def test_list_doctor_and_demo_in_a_folder_of_ones_own(tmp_path):
    printed = command('list', cwd=tmp_path)
    assert 'EARN                            2,181,443 parameters' in printed
    assert 'EDSR                            needs num_in_ch, num_out_ch' in printed
    assert 'SSIMLoss                        earn_plugin' in printed
    assert 'demo_EARN_x4' in printed
    printed = command('doctor', cwd=tmp_path)
    assert 'everything is in order' in printed
    printed = command('prepare', 'demo', cwd=tmp_path)
    assert 'datasets/demo is made' in printed
    assert 'datasets/demo is there already' in command('prepare', 'demo', cwd=tmp_path)

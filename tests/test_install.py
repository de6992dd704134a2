"""install.py: the commands that it runs, where it installs, and how it fails."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from torch.utils.tensorboard import SummaryWriter

from tests.helpers.places import ROOT

PYTHONS = [sys.executable, *map(str, Path.home().glob('.pyenv/versions/3.13.*/bin/python'))]
SETUP = """
def get_version():
    exec(compile("__version__ = '1.4.2'", 'version.py', 'exec'))
    return locals()['__version__']

assert get_version() == '1.4.2'

def namespaces():
    name, given, mapping = 'caller', {'name': 'given'}, {}
    exec('seen = name')
    exec('seen = name', given)
    exec('seen = name', None, mapping)
    return locals()['seen'], given['seen'], mapping['seen']

name = 'module'
assert namespaces() == ('caller', 'given', 'module')
"""


@pytest.fixture
def install(monkeypatch, tmp_path):
    """install.py as a module, without an active virtual environment, that creates .venv in tmp_path."""
    spec = importlib.util.spec_from_file_location('install', ROOT / 'install.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'VENV', tmp_path / '.venv')
    monkeypatch.setattr(sys, 'prefix', sys.base_prefix)
    return module


@pytest.fixture
def commands(monkeypatch):
    """The commands that are run, and whether each finds a sitecustomize; ``codes`` are their exit codes."""

    class Commands(list):
        codes: dict[int, int] = {}

        def run(self, command, *, cwd, env):
            assert cwd == ROOT
            is_patched = Path(env.get('PYTHONPATH', 'nowhere'), 'sitecustomize.py').exists()
            self.append((command, is_patched))
            return subprocess.CompletedProcess(command, self.codes.get(len(self), 0))

    found = Commands()
    monkeypatch.setattr(subprocess, 'run', found.run)
    monkeypatch.delenv('PYTHONPATH', raising=False)
    return found


@pytest.mark.parametrize('python', PYTHONS)
def test_exec_without_a_namespace_defines_names_in_its_caller(install, tmp_path, python):
    (tmp_path / 'sitecustomize.py').write_text(install.SITECUSTOMIZE)
    result = subprocess.run([python, '-c', SETUP], env={'PYTHONPATH': str(tmp_path)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(('version', 'is_patched'), [((3, 10, 1), False), ((3, 13, 0), True), ((3, 14, 0), True)])
def test_creates_an_environment_and_installs_into_it(install, commands, monkeypatch, capsys, version, is_patched):
    monkeypatch.setattr(sys, 'version_info', version)
    install.main()
    python = str(install.VENV / 'bin/python')
    pip = (python, '-m', 'pip', 'install', '-c', 'constraints.txt')
    assert commands == [
        ((sys.executable, '-m', 'venv', str(install.VENV)), False),
        ((*pip, '--upgrade', 'pip', 'setuptools'), False),
        ((*pip, '--no-build-isolation', '-e', '.[dev]'), is_patched),
    ]
    assert f'{install.VENV}/bin/basicsr train -opt demo_EARN_x4\n' in capsys.readouterr().out


def test_an_active_environment_is_used(install, commands, monkeypatch):
    monkeypatch.setattr(sys, 'prefix', '/active')
    install.main()
    assert [command[:3] for command, _ in commands] == [(sys.executable, '-m', 'pip')] * 2


def test_ends_with_the_exit_code_of_the_first_failure(install, commands, capsys):
    commands.codes = {2: 7}
    with pytest.raises(SystemExit) as error:
        install.main()
    assert error.value.code == 7
    assert len(commands) == 2
    assert 'pip setuptools" failed with exit code 7' in capsys.readouterr().err


def test_an_older_python_is_refused(install, commands, monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 9, 18))
    with pytest.raises(SystemExit, match=r'3\.10 or newer; this is 3\.9'):
        install.main()
    assert commands == []


@pytest.mark.parametrize('key', ['version', 'version_info'])  # as venv and as virtualenv write it
def test_an_environment_of_another_python_is_refused(install, commands, key):
    install.VENV.mkdir()
    config = install.VENV / 'pyvenv.cfg'
    config.write_text(f'home = /usr/bin\n{key} = 3.9.18\n')
    with pytest.raises(SystemExit, match='remove it'):
        install.main()
    assert commands == []
    config.write_text(f'home = /usr/bin\n{key} = {".".join(map(str, sys.version_info[:3]))}\n')
    install.main()
    assert len(commands) == 3


@pytest.mark.slow
def test_the_installed_tensorboard_serves_logs(tmp_path):
    with SummaryWriter(str(tmp_path / 'tb_logger')) as writer:
        writer.add_scalar('losses/l_pix', 0.5, 1)
    arguments = ['--logdir', str(tmp_path), '--port', '0', '--load_fast', 'false', '--reload_interval', '0']
    command = [sys.executable, '-m', 'tensorboard.main', *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            printed = []
            for line in server.stderr:
                printed.append(line)
                if address := re.search(r'http://\S+/', line):
                    break
            else:
                raise AssertionError(''.join(printed))
            with urlopen(f'{address[0]}data/plugin/scalars/tags', timeout=60) as answer:
                assert answer.status == 200
        finally:
            server.kill()

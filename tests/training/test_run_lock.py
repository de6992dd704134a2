"""Two runs of one name, and processes whose launcher was killed."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from tests.helpers.command import command, start
from tests.helpers.options import write_options
from tests.helpers.runs import state_of

pytestmark = pytest.mark.slow


@pytest.fixture
def options(tiny, tmp_path):
    """Trains until it is stopped."""
    tiny['train']['total_iter'] = 1_000_000
    tiny['logger'].update(save_checkpoint_freq=2, print_freq=1)
    tiny['datasets']['train']['num_worker_per_gpu'] = 1
    del tiny['val']
    return write_options(tmp_path, tiny)


def wait_for(process: subprocess.Popen, text: str) -> str:
    seen = ''
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(seen)


def test_a_second_run_is_refused_until_the_first_has_ended(options, tmp_path):
    first = start('train', '-opt', options, cwd=tmp_path)
    wait_for(first, 'iter:       4')
    expected = f'tiny is in use by process {first.pid} on {socket.gethostname()}; '
    assert expected in command('train', '-opt', options, cwd=tmp_path, expect=1)
    assert [path.name for path in (tmp_path / 'experiments').iterdir() if path.is_dir()] == ['tiny']
    first.kill()
    first.wait()
    first.stdout.close()
    force = ('--force_yml', 'train:total_iter=6')  # at once, although a worker of the first may still live
    stale = command('train', '-opt', options, '--auto_resume', *force, cwd=tmp_path)
    assert 'resuming from' in stale
    assert [path.name for path in (tmp_path / 'experiments').iterdir()] == ['tiny']


def test_processes_stop_when_their_launcher_was_killed(options, tmp_path):
    launch = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')
    launcher = subprocess.Popen(
        [sys.executable, *launch, '-m', 'earn_plugin', 'train', '-opt', str(options)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {'OMP_NUM_THREADS': '1'},
    )
    wait_for(launcher, 'iter:       4')
    launcher.send_signal(signal.SIGKILL)
    printed = launcher.communicate(timeout=60)[0]  # until the last of its processes has closed the pipe
    stopped = re.search(r'the launcher of this process has ended: stopped at iteration (\d+)', printed)
    assert stopped, printed
    assert 'Traceback' not in printed
    assert state_of(tmp_path, int(stopped[1]))['iter'] == int(stopped[1])

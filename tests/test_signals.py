import os
import signal
import subprocess
import sys

import pytest

from earn_plugin.signals import Stopped, StopRequest, signal_number, sigterm_as_ctrl_c


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_the_second_interrupts(number, capfd):
    before = signal.getsignal(number)
    with StopRequest() as request:
        assert request.number == 0
        os.kill(os.getpid(), number)
        assert request.number == number
        assert 'repeat' in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_sigterm_raises_like_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as raised, sigterm_as_ctrl_c():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal_number(raised.value) == signal.SIGTERM
    assert signal_number(KeyboardInterrupt()) == signal.SIGINT
    assert signal.getsignal(signal.SIGTERM) is before


FORKED = """
import os, signal, time
from earn_plugin.signals import sigterm_as_ctrl_c

with sigterm_as_ctrl_c():
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        os.write(tell, b'.')
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_ends_silently():
    done = subprocess.run([sys.executable, '-c', FORKED], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ('143\n', '')


def test_exit_codes_are_those_of_a_shell():
    assert Stopped(signal.SIGINT, '').exit_code == 130
    assert Stopped(signal.SIGTERM, '').exit_code == 143

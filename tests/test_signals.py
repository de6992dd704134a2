import os
import signal
import time

import pytest

from earn_plugin.signals import StopRequest, signal_number, sigterm_as_ctrl_c


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_the_second_interrupts(number, capfd):
    before = signal.getsignal(number)
    with StopRequest() as request:
        assert request.number == 0
        os.kill(os.getpid(), number)
        assert request.number == number
        assert 'repeat' in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt) as raised:
            os.kill(os.getpid(), number)
        assert signal_number(raised.value) == number
    assert signal.getsignal(number) is before


def test_sigterm_raises_like_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as raised, sigterm_as_ctrl_c():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal_number(raised.value) == signal.SIGTERM
    assert signal_number(KeyboardInterrupt()) == signal.SIGINT
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_forked_process_ends_silently(capfd):
    reader, writer = os.pipe()
    with sigterm_as_ctrl_c():
        child = os.fork()
        if not child:
            os.write(writer, b'.')  # Python drops signals that arrive during the fork
            time.sleep(60)
            os._exit(0)
        os.read(reader, 1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
    os.close(reader)
    os.close(writer)
    assert capfd.readouterr() == ('', '')

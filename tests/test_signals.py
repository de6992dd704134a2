import os
import signal

import pytest

from earn_plugin.signals import Stopped, StopRequest


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_a_request_the_second_interrupts(number, capfd):
    before = signal.getsignal(number)
    with StopRequest() as request:
        assert request.number == 0
        os.kill(os.getpid(), number)
        assert request.number == number
        assert 'once more stops at once' in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_exit_codes_are_a_shells():
    assert Stopped(signal.SIGINT, '').exit_code == 130
    assert Stopped(signal.SIGTERM, '').exit_code == 143

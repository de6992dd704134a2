import logging

import pytest
from basicsr.utils import logger as basicsr_logger

from earn_plugin.training import run_logs


@pytest.mark.parametrize(('iteration', 'eta'), [(4, '0:00:10'), (5, '0:00:05'), (6, '0:00:00')])
def test_eta_of_a_resumed_run(monkeypatch, caplog, tiny, iteration, eta):
    """5 seconds for each iteration after the third of six; BasicSR alone shows -1 day, 23:59:55 at the end."""
    monkeypatch.setattr(basicsr_logger, 'get_root_logger', lambda: logging.getLogger('eta'))
    message = run_logs.message_logger(tiny, 3, None)
    monkeypatch.setattr(basicsr_logger.time, 'time', lambda: message.start_time + 5 * (iteration - 3))
    with caplog.at_level(logging.INFO, 'eta'):
        message({'epoch': 0, 'iter': iteration, 'lrs': [0.1], 'time': 5.0, 'data_time': 0.0})
    assert f'eta: {eta},' in caplog.text


def test_a_log_file_that_cannot_be_written_is_reported_once(capsys):
    log = logging.Logger('full')
    file = run_logs.LogFile('/dev/full')
    log.addHandler(file)
    for _ in range(3):
        log.info('text')
    assert capsys.readouterr().err == (
        'warning: cannot write /dev/full: [Errno 28] No space left on device; the log is incomplete\n'
    )
    with pytest.raises(OSError, match='No space left'):
        file.close()

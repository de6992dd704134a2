from types import SimpleNamespace

import pytest
from basicsr.models.sr_model import SRModel
from basicsr.utils import MessageLogger, get_root_logger
from basicsr.utils.options import dict2str

from earn_plugin.errors import UsageError, UserError
from earn_plugin.figures.run_log import RunLog, Value, mean_run, read_run
from tests.helpers.command import close_log, command_here
from tests.helpers.options import write_options


def values_of(run: RunLog) -> dict[tuple[str, str, int], float]:
    return {
        (name, dataset, iteration): value.value
        for name, sets in run.values.items()
        for dataset, series in sets.items()
        for iteration, value in series.items()
    }


def test_log_files_and_tensorboard_of_a_resumed_run_have_the_same_values(tiny, tmp_path, monkeypatch, capsys):
    """It was killed after iteration 6, whose state is lost, and resumes from iteration 3 with another learning rate."""
    monkeypatch.chdir(tmp_path)
    tiny['logger']['use_tb_logger'] = True
    options = write_options(tmp_path, tiny)
    command_here('train', '-opt', options, capsys=capsys)
    first = read_run('tiny')
    (tmp_path / 'experiments/tiny/training_states/6.state').unlink()
    command_here('train', '-opt', options, '--auto_resume', '--force_yml', 'train:optim_g:lr=1e-4', capsys=capsys)
    run, events = read_run('tiny'), read_run('tb_logger/tiny')

    values = values_of(run)
    assert values == pytest.approx(values_of(events), abs=6e-5, rel=6e-5)  # logs have 4 or 5 digits
    training = ('lr', 'l_pix', 'l_ssim', 'grad_norm_g')
    wanted = {(name, '', iteration) for name in training for iteration in range(1, 7)}
    assert values.keys() == wanted | {(name, 'held_out', i) for name in ('psnr', 'ssim') for i in (3, 6)}
    assert [values['lr', '', i] for i in range(1, 7)] == [1e-3] * 3 + [1e-4, 5e-5, 5e-5]
    before = values_of(first)
    assert [values['l_pix', '', i] == before['l_pix', '', i] for i in range(1, 7)] == [True] * 4 + [False] * 2
    seconds = [run.values['l_pix'][''][iteration].seconds for iteration in range(1, 7)]
    assert seconds == sorted(seconds)
    assert seconds[-1] < 60

    log = max((tmp_path / 'experiments/tiny').glob('*.log'))
    whole = log.read_bytes()
    log.write_bytes(whole[: whole.rindex(b'l_pix') + 9])  # while it writes the line of iteration 6
    assert max(read_run('experiments/tiny').values['l_pix']['']) == 5
    event_file = max((tmp_path / 'tb_logger/tiny').iterdir(), key=lambda path: path.stat().st_mtime)
    event_file.write_bytes(event_file.read_bytes()[:-3])
    assert ('ssim', 'held_out', 6) not in values_of(read_run(str(event_file)))
    (tmp_path / 'experiments/tiny').rename(tmp_path / 'experiments/tiny_archived_20260101_000000')
    assert read_run('tiny_archived_20260101_000000').values['lr'][''].keys() == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(('print_freq', 'val_freq'), [(2, 4), (4, 2)])
def test_logs_of_stock_basicsr(tmp_path, monkeypatch, print_freq, val_freq):
    """By its own writers; its lines of a validation do not have the iteration."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'experiments/001_MSRResNet'
    folder.mkdir(parents=True)
    close_log()
    logger = get_root_logger(log_file=str(folder / 'train_001_MSRResNet_20200101_000000.log'))
    options = {'name': 'x', 'logger': {'print_freq': print_freq, 'use_tb_logger': False}, 'train': {'total_iter': 10}}
    logger.info(dict2str(options | {'val': {'val_freq': val_freq}}))
    message = MessageLogger(options)
    psnr = {'Set5': {}, 'Set 14': {}}

    def validate(iteration: int) -> None:
        for name, offset in (('Set5', 30), ('Set 14', 28)):
            psnr[name][iteration] = offset - iteration / 8
            best = {name: {'psnr': {'val': 31.0, 'iter': 2}}}
            model = SimpleNamespace(metric_results={'psnr': psnr[name][iteration]}, best_metric_results=best)
            SRModel._log_validation_metric_values(model, iteration, name, None)

    for iteration in range(1, 11):
        if iteration % print_freq == 0:
            rates = {'epoch': 0, 'iter': iteration, 'lrs': [2e-4, 1e-4], 'time': 0.5, 'data_time': 0.1}
            message(rates | {'l_pix': iteration / 4, 'l_g_gan': float('nan')})
        if iteration % val_freq == 0:
            validate(iteration)
    logger.info('End of training. Time consumed: 0:00:05')
    validate(10)
    close_log()
    run = read_run('001_MSRResNet')
    logged = range(print_freq, 11, print_freq)
    assert {i: v.value for i, v in run.values['l_pix'][''].items()} == {i: i / 4 for i in logged}
    assert {v.value for v in run.values['lr'][''].values()} == {2e-4}
    assert run.values['l_g_gan'].keys() == {''}
    assert {name: {i: v.value for i, v in series.items()} for name, series in run.values['psnr'].items()} == psnr


def test_what_cannot_be_read_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r'x is not an experiment, .*experiments and tb_logger of the working directory'
    ):
        read_run('x')
    (tmp_path / 'experiments/demo_EARN_x4').mkdir(parents=True)
    with pytest.raises(UsageError, match=r"^'' is not an experiment"):
        read_run('')
    with pytest.raises(UsageError, match=r'demo_EARN_4 is not .*; did you mean demo_EARN_x4'):
        read_run('demo_EARN_4')
    with pytest.raises(UsageError, match=r'experiments/demo_EARN_x4 has neither log files \(\*\.log\) nor'):
        read_run('demo_EARN_x4')
    log = tmp_path / 'experiments/demo_EARN_x4/train.log'
    log.write_text('options:\n  name: x\n2026-11-26 02:43:20,683 INFO: Loss [L1Loss] is created.\n')
    with pytest.raises(UserError, match='demo_EARN_x4 has no values yet'):
        read_run('demo_EARN_x4')
    with pytest.raises(UsageError, match=r'experiments has neither .*; of its folders these have: demo_EARN_x4'):
        read_run('experiments')


def test_the_mean_run():
    runs = [RunLog(str(n), {'psnr': {'Set5': {5: Value(n, 30.0 + n), 10 + n: Value(9, 31.0)}}}) for n in (1, 2, 3)]
    assert mean_run('all', runs) == RunLog('all', {'psnr': {'Set5': {5: Value(2.0, 32.0, 1.0)}}})

"""Checkpoints that are written while training continues."""

import os
import signal
import threading

import pytest
import torch

from earn_plugin.errors import UserError
from earn_plugin.training import checkpoint
from earn_plugin.training.checkpoint_writer import CheckpointWriter
from earn_plugin.training.train import Training
from tests.helpers.options import completed
from tests.helpers.runs import same, state_of


@pytest.fixture
def training(tiny, tmp_path, monkeypatch) -> Training:
    """A checkpoint in iteration 2 of 6."""
    monkeypatch.chdir(tmp_path)
    del tiny['val']
    tiny['logger'].update(print_freq=100, save_checkpoint_freq=2)
    return Training(completed(tmp_path, tiny), tmp_path / 'options.yml', [])


def test_training_continues_while_a_state_is_written(training, tmp_path, monkeypatch):
    real, step, is_later, copies = checkpoint.save_file, training.step, threading.Event(), {}

    def save_file(path, content):
        assert is_later.wait(60), 'training waits for the file'
        real(path, content)

    def step_and_copy(batch):
        step(batch)
        copies[training.iteration] = checkpoint.weights_of(training.model)
        if training.iteration == 4:
            is_later.set()

    # of iteration 2, but the files of 4 wait for it
    monkeypatch.setattr(checkpoint, 'save_file', save_file)
    monkeypatch.setattr(training, 'step', step_and_copy)
    training.run()
    for iteration in (2, 4, 6):
        assert same(state_of(tmp_path, iteration)['networks'], copies[iteration])
        network = torch.load(tmp_path / f'experiments/tiny/models/net_g_{iteration}.pth', weights_only=True)
        assert same(network['params'], copies[iteration]['net_g']['params'])


def test_a_failure_ends_the_next_iteration(training, monkeypatch):
    monkeypatch.setattr(checkpoint, 'save_file', lambda path, content: 1 / 0)
    reached, step = [], training.step
    monkeypatch.setattr(training, 'step', lambda batch: (step(batch), training.writer.join(), reached.append(1)))
    with pytest.raises(ZeroDivisionError):
        training.run()
    assert len(reached) <= 3


def test_a_failure_behind_another_one_is_logged(caplog):
    with pytest.raises(KeyboardInterrupt), CheckpointWriter() as writer:
        writer.start(lambda: (_ for _ in ()).throw(UserError('cannot write 2.state')))
        raise KeyboardInterrupt
    assert 'cannot write 2.state' in caplog.text


def test_an_interrupted_wait_can_be_repeated():
    """Not so that of Thread.join, after which the thread counts as ended."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    release, written = threading.Event(), []
    writer = CheckpointWriter()
    writer.start(lambda: release.wait(60) and written.append(1))
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        writer.wait()
    signal.signal(signal.SIGINT, before)
    threading.Timer(0.1, release.set).start()
    writer.wait()
    assert written == [1]

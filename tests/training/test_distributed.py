import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from earn_plugin.errors import UserError
from earn_plugin.training import distributed


def test_a_single_process(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    assert distributed.start('none') == (0, 1)
    assert distributed.broadcast(3) == 3
    assert distributed.all_gather(3) == [3]
    assert distributed.any_rank(True)
    assert not distributed.any_rank(False)
    done = []
    assert distributed.rank0_first(lambda: done.append(1) or 2) == 2
    assert done == [1]
    assert distributed.LateMaximum().update(3, 4) == [3, 4]
    with pytest.raises(ZeroDivisionError):
        distributed.rank0_first(lambda: 1 / 0)
    distributed.stop()


def test_a_launcher_that_ended_before_the_processes_started_is_reported_at_once(monkeypatch):
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    environment = {'RANK': '0', 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
    for name, value in (environment | {'TORCHELASTIC_USE_AGENT_STORE': 'True'}).items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(UserError, match=f'the launcher of this process has ended: 127.0.0.1:{port} does not answer'):
        distributed.start('none')
    assert time.monotonic() - began < 10


def test_a_missing_launcher_is_reported(monkeypatch):
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match='torchrun --nproc_per_node=2 -m earn_plugin train'):
        distributed.start('pytorch')
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(UserError, match='torchrun'):
        distributed.start('slurm')
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    with pytest.raises(UserError, match='srun basicsr train'):
        distributed.start('slurm')


ROUNDS = """
import os
import torch
import torch.distributed as dist
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel
from earn_plugin.errors import UserError
from earn_plugin.training import distributed

def start_and_stop(rank):
    torch.set_num_threads(1)
    for number in range(12):
        dist.init_process_group('gloo', store=dist.FileStore(f'store{number}', 2), rank=rank, world_size=2)
        net = DistributedDataParallel(torch.nn.Linear(2, 2))
        net(torch.rand(1, 2)).sum().backward()
        for _ in range(2):
            assert distributed.all_gather(list(range(100))) == [list(range(100))] * 2
        largest = distributed.LateMaximum()
        assert [largest.update(15 * rank, number) for number in (0, 7, 0)] == [[0, 0], [15, 0], [15, 7]]
        assert (largest.last(), largest.last()) == ([15, 0], [])
        distributed.stop()
        del net
    dist.init_process_group('gloo', store=dist.FileStore('last', 2), rank=rank, world_size=2)
    assert not distributed.any_rank(False)
    if rank == 1:
        os._exit(0)  # as when it is killed
    for exchange in (distributed.all_gather, distributed.any_rank, distributed.broadcast):
        try:
            exchange(False)
        except UserError as error:
            assert 'another process of this run has ended' in str(error)
        else:
            raise AssertionError(exchange)
    os._exit(0)

if __name__ == '__main__':
    spawn(start_and_stop, (), 2)
"""


def test_stop_never_hangs_and_a_killed_process_is_reported(tmp_path):
    """Right after an exchange, a thread of the group may still wait for Python's lock; mostly within ten rounds."""
    (tmp_path / 'rounds.py').write_text(ROUNDS)
    subprocess.run([sys.executable, 'rounds.py'], cwd=tmp_path, check=True, timeout=300)


GRADIENTS = """
import copy, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes
import earn_plugin
from basicsr.models import build_model
from tests.helpers.options import completed, TINY
from tests.helpers.runs import batch

def gradients(world_size, rank=0):
    opt = completed(Path(f'{world_size}_{rank}'), copy.deepcopy(TINY), rank=rank, world_size=world_size)
    opt['train'].update(losses={'pix': {'type': 'L1Loss'}})
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    model = build_model(opt)
    images = batch(shape=(4, 3, 16, 16))
    model.feed_data({key: value.double().chunk(world_size)[rank] for key, value in images.items()})
    model.optimize_parameters(1)
    return [p.grad for p in model.net_g.parameters()]

def compare(rank):
    torch.set_num_threads(1)
    alone = gradients(1, rank) if rank == 0 else None
    dist.init_process_group('gloo', store=dist.FileStore('store', 2), rank=rank, world_size=2)
    both = gradients(2, rank)
    if rank == 0:
        assert any(grad.abs().max() > 1e-3 for grad in alone)
        for one, two in zip(alone, both, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-12)

if __name__ == '__main__':
    for folder in ('1_0', '2_0', '2_1'):
        Path(folder).mkdir()
    start_processes(compare, (), 2, start_method='fork')  # which imports everything once
"""


def test_two_processes_of_batch_b_have_the_gradients_of_one_of_2b(tmp_path):
    (tmp_path / 'gradients.py').write_text(GRADIENTS)
    root = str(Path(__file__).parents[2])
    environment = os.environ | {'PYTHONPATH': root}
    subprocess.run([sys.executable, 'gradients.py'], cwd=tmp_path, check=True, timeout=300, env=environment)

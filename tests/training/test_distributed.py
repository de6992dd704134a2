import subprocess
import sys

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
    distributed.rank0_first(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        distributed.rank0_first(lambda: 1 / 0)
    distributed.stop()


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

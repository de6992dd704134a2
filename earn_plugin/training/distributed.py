"""The processes of one training, started by torchrun or Slurm, on GPUs (nccl) or CPUs (gloo)."""

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from basicsr.utils.dist_util import get_dist_info, init_dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from earn_plugin.errors import UserError, reason_of

# Gradients use nccl, flags and objects gloo, so that exchanging them never waits for the GPUs.
CUDA_BACKEND = 'cpu:gloo,cuda:nccl'
SECONDS_TO_ANSWER = 60
CONSEQUENCE = 10  # seconds by which a failure that follows from another one is reported as later


class LostProcess(UserError):
    """Another process has ended, or does not answer."""


def start(launcher: str, dist_params: dict[str, Any] | None = None) -> tuple[int, int]:
    """Join the other processes, if there are any; returns rank and world size.

    torchrun is detected also without ``--launcher pytorch``.

    Raises:
        UserError: the launcher is torchrun or Slurm, but this process was started differently, or Slurm has no CUDA.
    """
    if launcher == 'none' and int(os.environ.get('WORLD_SIZE', 1)) > 1 and 'RANK' in os.environ:
        launcher = 'pytorch'
    if launcher == 'slurm':
        if not torch.cuda.is_available():
            raise UserError('--launcher slurm needs CUDA devices; on CPUs use torchrun')
        if 'SLURM_PROCID' not in os.environ:
            raise UserError('--launcher slurm needs srun, for example srun basicsr train -opt FILE --launcher slurm')
        init_dist('slurm', **{**(dist_params or {}), 'backend': CUDA_BACKEND})
    elif launcher == 'pytorch':
        if 'RANK' not in os.environ:
            raise UserError(
                '--launcher pytorch needs torchrun, for example '
                'torchrun --nproc_per_node=2 -m earn_plugin train -opt FILE --launcher pytorch'
            )
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count())
        check_launcher()
        store, rank, world_size = next(dist.rendezvous('env://'))
        backend = CUDA_BACKEND if torch.cuda.is_available() else 'gloo'
        dist.init_process_group(backend, store=_fresh(store, rank, world_size), rank=rank, world_size=world_size)
    return get_dist_info()


def check_launcher() -> None:
    """torchrun answers at its address before it starts processes; if it has ended, torch would wait for half an hour.

    Raises:
        UserError: it does not answer.
    """
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return
    address = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    try:
        socket.create_connection(address, timeout=SECONDS_TO_ANSWER).close()
    except OSError as error:
        place = ':'.join(map(str, address))
        raise UserError(
            f'the launcher of this process has ended: {place} does not answer ({reason_of(error)})'
        ) from error


def _fresh(store: dist.Store, rank: int, world_size: int) -> dist.Store:
    """The part of a store that belongs to these processes.

    torchrun keeps one store however often it starts the processes again, in which the addresses of those that have
    ended remain, and its nodes count the attempts differently. So the first process names the attempt, and the others
    join the one that confirms them.
    """
    mine = uuid.uuid4().hex
    if rank == 0:
        store.set('attempt', mine)
        for other in range(1, world_size):
            store.set(f'{mine}/confirmed/{other}', store.get(f'{mine}/joined/{other}'))
        return dist.PrefixStore(mine, store)
    while True:
        attempt = store.get('attempt').decode()  # perhaps an earlier one
        store.set(f'{attempt}/joined/{rank}', mine)
        confirmed = f'{attempt}/confirmed/{rank}'
        if store.check([confirmed]) and store.get(confirmed).decode() == mine:
            return dist.PrefixStore(attempt, store)
        time.sleep(0.02)


_parent = os.getppid()


def is_orphan() -> bool:
    """Whether the launcher has ended without ending this process."""
    return dist.is_initialized() and os.getppid() != _parent


_groups = []


def stop() -> None:
    if dist.is_initialized():
        # Otherwise its last owner would be DDP, which destroys it while holding Python's lock and then waits for the
        # group's threads, one of which may wait for that lock. Destroyed from Python, it releases the lock first.
        _groups.append(dist.group.WORLD)
        dist.destroy_process_group()


@contextmanager
def without_ddp(model: Any) -> Iterator[None]:
    """Run the model's networks without communication, because other processes may not run theirs."""
    wrapped = {name: net for name, net in vars(model).items() if isinstance(net, DistributedDataParallel)}
    vars(model).update({name: net.module for name, net in wrapped.items()})
    try:
        yield
    finally:
        vars(model).update(wrapped)


def copy_buffers(model: Any) -> None:
    """Give the buffers of the model's networks, such as running means, the values that they have in the first process.

    DistributedDataParallel does so only before a forward pass, and not in averages of networks.
    """
    if dist.is_initialized():
        with _lost_processes_reported():
            for network in [value for value in vars(model).values() if isinstance(value, nn.Module)]:
                for buffer in network.buffers():
                    value = buffer.contiguous()
                    dist.broadcast(value, src=0)
                    buffer.copy_(value)


def rank0_first(do: Callable[[], Any]) -> Any:
    """Call a function in the first process while the others wait; all return what it returns or raise what it does."""
    result = failure = None
    if get_dist_info()[0] == 0:
        try:
            result = do()
        except Exception as error:
            failure = error
    result, failure = broadcast((result, failure))
    if failure:
        raise failure
    return result


def broadcast(value: Any) -> Any:
    """The value of the first process."""
    values = [value]
    if dist.is_initialized():
        with _lost_processes_reported():
            dist.broadcast_object_list(values, src=0)
    return values[0]


def all_gather(value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    values = [value] * get_dist_info()[1]
    if dist.is_initialized():
        with _lost_processes_reported():
            dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool) -> bool:
    """Whether any process has the flag set."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor([flag], dtype=torch.int32)
    with _lost_processes_reported():
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags.item())


class LateMaximum:
    """The largest of each of a few numbers over all processes, one call later, so that no process waits for another."""

    def __init__(self):
        self._numbers = torch.zeros(0)
        self._exchange: dist.Work | None = None

    def update(self, *numbers: int) -> list[int]:
        """The maxima of the call before, the same in all processes; 0 at first. In a single process, of this call."""
        if not dist.is_initialized():
            return list(numbers)
        maxima = self.last() or [0] * len(numbers)
        self._numbers = torch.tensor(numbers, dtype=torch.int32)
        with _lost_processes_reported():
            self._exchange = dist.all_reduce(self._numbers, op=dist.ReduceOp.MAX, async_op=True)
        return maxima

    def last(self) -> list[int]:
        """The maxima of the last call, waited for; none if they were returned before."""
        if self._exchange is None:
            return []
        with _lost_processes_reported():
            self._exchange.wait()
        self._exchange = None
        return self._numbers.tolist()


@contextmanager
def _lost_processes_reported() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # a closed connection, or a timeout
        reason = re.sub(r'^\[\S+\] ', '', reason_of(error)).partition('. ')[0]  # without place in the source and advice
        raise LostProcess(
            f'another process of this run has ended or does not answer ({reason}). Its own message, if there is one, '
            'says why; resume with --auto_resume'
        ) from error


@contextmanager
def failures_reported() -> Iterator[None]:
    """Explain that another process has ended wherever torch notices it, and give torchrun the reason of a failure.

    torchrun ends by showing the earliest failure, which it knows to the second.
    """
    try:
        try:
            yield
        except RuntimeError as error:  # also within DistributedDataParallel
            if not isinstance(error, dist.DistError) and 'gloo' not in str(error):
                raise
            with _lost_processes_reported():
                raise
    except Exception as error:
        if path := os.environ.get('TORCHELASTIC_ERROR_FILE'):
            text = str(error) if isinstance(error, UserError) else f'{type(error).__name__}: {error}'
            text = text.partition('\n')[0].partition('. ')[0]  # the process itself prints all of it
            seconds = int(time.time()) + CONSEQUENCE * isinstance(error, LostProcess)
            failure = {'message': {'message': text, 'extraInfo': {'timestamp': str(seconds)}}}
            Path(path).write_text(json.dumps(failure))
        raise


def is_restart() -> bool:
    """Whether torchrun has started the processes again after one failed; only its own node counts that."""
    return any_rank(int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0)

"""The device that a command computes on, and the memory layout of a network on it."""

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from earn_plugin.errors import UsageError, UserError, reason_of


def find_device(name: str | None) -> torch.device:
    """The device of that name; for None the GPU where there is one, else the CPU.

    Raises:
        UserError: there is no such device, or torch cannot use it.
    """
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError:
        raise UsageError(f'{name} is not a device; possible: cpu, cuda, cuda:1, …') from None
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise UserError('there is no CUDA device that torch can use (see `basicsr doctor`); omit --device')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ModuleNotFoundError) as error:
        raise UserError(f'torch cannot use {device} here ({reason_of(error)}); omit --device') from error
    return device


def to_channels_last(network: nn.Module) -> nn.Module:
    """Store convs' weights with the channels last, in place; convs then return features in that layout."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:  # other dimensions have no such format
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return network


@contextmanager
def kernel_search(enabled: bool) -> Iterator[None]:
    """In the block, cuDNN times its kernels for each new size and uses the fastest, or does not if not ``enabled``."""
    before = torch.backends.cudnn.benchmark  # torch's own cudnn.flags() would set the user's other choices as well
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def cuda_is_optional() -> Iterator[None]:
    """In the block, where there is no CUDA, ``cuda()`` leaves modules and tensors where they are.

    BasicSR's RealESRGANModel and some networks call it whatever the device.
    """
    if torch.cuda.is_available():
        yield
        return
    originals = {kind: kind.cuda for kind in (nn.Module, torch.Tensor)}
    for kind in originals:
        kind.cuda = lambda self, *arguments, **settings: self
    try:
        yield
    finally:
        for kind, original in originals.items():
            kind.cuda = original


def describe_device(device: torch.device) -> str:
    """The name of the GPU, or of the processor with the number of torch's threads."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    cpuinfo = Path('/proc/cpuinfo')  # platform.processor() is empty on Linux
    found = re.search(r'^model name\s*: (.+)$', cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    name = found[1] if found else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f'{name}, {threads} thread{"s" if threads > 1 else ""}'

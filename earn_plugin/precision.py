"""The precision that a network computes in, and which networks float16 suits."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from earn_plugin.errors import UsageError

HALVES = {'bf16': torch.bfloat16, 'fp16': torch.float16}  # the values of ``train: precision`` other than fp32
LARGEST_HALF = torch.finfo(torch.float16).max


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """torch's autocast for 'bf16' or 'fp16'; without effect for 'fp32'."""
    return torch.autocast(device.type, HALVES[precision]) if precision in HALVES else nullcontext()


def check_float16(network: nn.Module, given: str, instead: str) -> None:
    """Raise UsageError for a network that works on [0, 255], whose features float16 cannot hold.

    Args:
        given, instead: the option that asks for float16, and the one to use.
    """
    largest = max((getattr(module, 'img_range', 1) for module in network.modules()), default=1)
    if largest > 1:
        raise UsageError(
            f'{given}: this network works on values up to {largest:g}, and its features may exceed the largest '
            f'float16, {LARGEST_HALF:,.0f}; use {instead}'
        )

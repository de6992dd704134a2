"""The precision that a network computes in, and where half precision must not be used."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor, nn

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


def widen_dilated_convs(network: nn.Module) -> None:
    """Compute grouped convs with vertical dilation in float32, for training in bfloat16 on a CPU; in place.

    oneDNN 3.12, of torch 2.13, returns wrong gradients of their weights in bfloat16 with channels last, different ones
    each time.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.dilation[0] > 1:
            module.__class__ = widened(type(module))


@cache
def widened(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """The class of convs that compute in float32 under autocast; one for all, so that they are compiled once."""

    class Widened(kind):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast(x.device.type, enabled=False):
                return super().forward(x.float()).to(x.dtype)

    return Widened

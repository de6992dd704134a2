"""torch.compile for networks of many equal blocks."""

from collections import Counter

from torch import nn


def compile_blocks(net: nn.Module) -> None:
    """Compile a network in place: its repeated blocks, one of them for all, or as a whole if it has none.

    A network of 200 blocks then takes the compiler's time for one.
    """
    blocks = []
    for part in net.children():
        if isinstance(part, (nn.Sequential, nn.ModuleList)):
            counts = Counter(type(block) for block in part if any(block.children()))
            blocks += [block for block in part if counts[type(block)] > 1]
    for module in blocks or [net]:
        module.compile(dynamic=False)  # blocks of other widths, as of an upsampler, are compiled for their own

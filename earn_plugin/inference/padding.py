"""Networks that take sides of some multiple only, as SwinIR and Real-ESRGAN ×2 do, for pictures of any size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earn_plugin.convert.networks import output_of
from earn_plugin.errors import UserError
from earn_plugin.protocols import HasReach

SIDE = 65  # of a picture that only a network for any size takes
MULTIPLES = (2, 4, 8, 16, 32, 64)


class PaddedNetwork(nn.Module):
    """Repeats the last row and column up to a multiple, and cuts the result: N×C×H×W → N×C×sH×sW for any H and W."""

    def __init__(self, network: nn.Module, scale: int, multiple: int):
        super().__init__()
        self.network, self.scale, self.multiple = network, scale, multiple

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode='replicate')
        return self.network(padded)[:, :, : self.scale * height, : self.scale * width]


def for_any_size(network: nn.Module, channels: int, scale: int) -> nn.Module:
    """The network, padded if it takes multiples only; unchanged if it takes any size, or nothing that is tried."""
    if isinstance(network, HasReach):  # takes any size, and is not tried, which saves its time
        return network
    weight = next(network.parameters(), torch.empty(0))
    probe = torch.rand(1, channels, SIDE, SIDE).to(weight)
    for candidate in (network, *(PaddedNetwork(network, scale, multiple) for multiple in MULTIPLES)):
        try:
            with torch.inference_mode():
                output_of(candidate.eval(), probe)
        except UserError:
            continue
        return candidate
    return network

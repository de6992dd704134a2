"""What the attentions of a network do for an image: read by forward hooks, which are removed afterwards."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from basicsr.archs import rcan_arch
from torch import Tensor, nn
from torch.nn import functional as F

from earn_plugin.archs import a2n_arch, attention, earn_arch, han_arch, lgvan_arch, rk4rdn_arch, rnan_arch
from earn_plugin.archs.blocks import spatial_mean
from earn_plugin.errors import UsageError

NETWORKS = ('A2N', 'DualAttentionRCAN', 'EARN', 'HAN', 'LGVAN', 'RCAN', 'RK4RDN', 'RNAN')


class Reading(NamedTuple):
    """What one attention did for an image; ``kind`` says what the values are.

    ==========================  ====================================================================================
    mask, pixel_attention,      H×W in (0, 1), mean over the channels
    channel_spatial_attention
    upsampling_attention        the same at the size of the enlarged features
    gate                        H×W, mean over the channels; any values
    non_local_attention         H×W: how much the chosen pixel takes from each; where the softmax runs over the queries,
                                as in RNAN, how much each takes from the chosen pixel; they sum to 1
    local_attention             k²×H×W: how much each pixel attends to its window, row by row; they sum to 1
    channel_attention           C in (0, 1)
    branch_weights              of the attention and of the non-attention branch; they sum to 1
    layer_attention             L×L: how much each layer (row) takes from each (column), the first layer first
    coefficients                those of ``rk4rdn_arch.COEFFICIENTS``
    ==========================  ====================================================================================
    """

    kind: str
    block: int  # from 1, in the order in which the attentions of this kind run
    call: int  # from 1; more than one where a block runs several times, as in RK4RDN
    values: np.ndarray


class Source(NamedTuple):
    """Where a kind of attention is computed: in layers of a type, or in an inner layer of these.

    ``read`` takes the layer, and the input and the output of the inner layer, and returns N×… values.
    """

    layer: type[nn.Module]
    inner: str
    kind: str
    read: Callable[[nn.Module, Tensor, Tensor], Tensor]


def _mean(layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    return out.mean(1)


def _sigmoid_mean(layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    return out.sigmoid().mean(1)


def _sigmoid_mean_3d(layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    return out[:, 0].sigmoid().mean(1)


def _channels(layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    return out.flatten(1)


def _sigmoid_channels(layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    return out.sigmoid().flatten(1)


def _branch_weights(block: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    return block.weights(spatial_mean(block.enter(x)))


def _coefficients(block: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    return torch.stack([getattr(block, name) for name in rk4rdn_arch.COEFFICIENTS[block.order]], 1)


def _layer_attention(layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    rows = x.flatten(2)
    energy = rows @ rows.transpose(1, 2)
    return (energy.amax(2, keepdim=True) - energy).softmax(2).flip(1, 2)  # the network has the last layer first


def _window_weights(layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    size = layer.window_size
    around = F.pad(x, [size // 2] * 4)
    position = layer.rel_h[:, :, None].expand(-1, size, size), layer.rel_w[:, None, :].expand(-1, size, size)
    tensors = layer.query(x), layer.key(around), layer.value(around), torch.cat(position)
    return attention.attend_windows(*tensors)[1]


def _weights_of_pixel(layer: nn.Module, x: Tensor, out: Tensor, *, pixel: tuple[int, int] | None) -> Tensor:
    """The softmax of the chosen pixel alone: a row of the HW×HW weights, or a column where it runs over the queries."""
    height, width = x.shape[2:]
    column, row = pixel or (width // 2, height // 2)
    own, others = layer.query(x), layer.key(x)
    if layer.softmax_over == 'queries':
        own, others = others, own
    return (own[:, :, row, column, None, None] * others).sum(1).flatten(1).softmax(1).view(-1, height, width)


SOURCES = (
    Source(earn_arch.MaskBranch, '', 'mask', _mean),
    Source(attention.AdaptivelyScaledChannelAttention, 'se_merged', 'channel_attention', _sigmoid_channels),
    Source(attention.PixelAttention, 'bottleneck', 'pixel_attention', _sigmoid_mean),
    Source(attention.LocalAttention, '', 'local_attention', _window_weights),
    Source(attention.ChannelAttention, 'bottleneck', 'channel_attention', _sigmoid_channels),
    Source(attention.NonLocalAttention, '', 'non_local_attention', _weights_of_pixel),
    Source(rcan_arch.ChannelAttention, 'attention', 'channel_attention', _channels),
    Source(a2n_arch.AttentionInAttentionBlock, '', 'branch_weights', _branch_weights),
    Source(a2n_arch.AttentionBranch, 'conv_mask2', 'pixel_attention', _sigmoid_mean),
    Source(a2n_arch.UpsampleBlock, 'attention', 'upsampling_attention', _sigmoid_mean),
    Source(han_arch.LayerAttention, '', 'layer_attention', _layer_attention),
    Source(han_arch.ChannelSpatialAttention, 'conv', 'channel_spatial_attention', _sigmoid_mean_3d),
    Source(rnan_arch.NonLocalMaskBranch, '', 'mask', _mean),
    Source(rk4rdn_arch.RungeKuttaBlock, '', 'coefficients', _coefficients),
    Source(lgvan_arch.LGCA, 'proj_out', 'gate', _mean),
)


def sources_of(network: nn.Module) -> list[tuple[Source, nn.Module]]:
    """The attentions of a network, each with its layer.

    Raises:
        UsageError: there are none, or the network is in its fused form, which merges them with other layers.
    """
    name = type(network).__name__
    if getattr(network, 'fused', None) is True:
        raise UsageError(
            f'{name} is in its fused form, in which the attentions are merged with other layers; give the training '
            f'form: the checkpoint that the fused one was converted from, without fused=true'
        )
    found = [(source, layer) for layer in network.modules() for source in SOURCES if isinstance(layer, source.layer)]
    found = [(source, layer) for source, layer in found if getattr(layer, 'order', 2) > 1]  # Euler has no coefficients
    if not found:
        raise UsageError(
            f'{name} has no attention that can be shown; networks with attention: {", ".join(NETWORKS)}, and your own '
            'with layers of earn_plugin.archs.attention'
        )
    return found


@contextmanager
def recorded_attention(network: nn.Module, pixel: tuple[int, int] | None = None) -> Iterator[list[Reading]]:
    """In the block, each forward pass of the network adds its readings to the list; its outputs are unchanged.

    Args:
        network: takes images 1×C×H×W.
        pixel: column and row of the pixel whose non-local attention is read; None for the middle.

    Raises:
        UsageError: as ``sources_of``.
    """
    readings: list[Reading] = []
    calls: dict[str, Counter[nn.Module]] = defaultdict(Counter)

    @torch.no_grad()
    def record(source: Source, layer: nn.Module, module: nn.Module, inputs: tuple, out: Tensor) -> None:
        at = {'pixel': pixel} if source.kind == 'non_local_attention' else {}
        values = source.read(layer, inputs[0], out, **at)[0].cpu().numpy()
        calls[source.kind][layer] += 1
        block = list(calls[source.kind]).index(layer) + 1
        readings.append(Reading(source.kind, block, calls[source.kind][layer], values))

    handles = []
    try:
        for source, layer in sources_of(network):
            hook = partial(record, source, layer)
            handles.append(layer.get_submodule(source.inner).register_forward_hook(hook))
        yield readings
    finally:
        for handle in handles:
            handle.remove()

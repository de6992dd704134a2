"""HAN: "Single Image Super-Resolution via a Holistic Attention Network" (Niu et al., ECCV 2020)."""

from collections.abc import Iterator

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.archs.arguments import check_choice, check_counts, check_images
from earn_plugin.archs.attention import ChannelAttention, without_autocast
from earn_plugin.archs.blocks import MeanShift, ResidualAttentionUnit, ResidualGroup, Upsampler


class LayerAttention(nn.Module):
    """LAM, equations 3 and 4: mixes the outputs of L layers, N×L×C×H×W → N×(L·C)×H×W. Starts as the identity.

    Deviation: equation 3 has softmax(energy); the authors' code computes softmax(max − energy), and their weights
    need it.
    """

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, layers: Tensor) -> Tensor:
        rows = layers.flatten(2)
        with without_autocast(rows):  # sums over all pixels, too large for float16
            wide = rows.float() if rows.element_size() == 2 else rows
            energy = wide @ wide.transpose(1, 2)
        attention = (energy.amax(2, keepdim=True) - energy).softmax(2)
        mixed = (attention.to(rows.dtype) @ rows).view_as(layers)
        return (self.gamma * mixed + layers).flatten(1, 2)


class ChannelSpatialAttention(nn.Module):
    """CSAM, equations 5 and 6: the mask is a 3-D conv over channels, rows and columns. Starts as the identity."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 3, 1, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        mask = self.conv(x[:, None])[:, 0].sigmoid()
        return x * (self.gamma * mask) + x


@ARCH_REGISTRY.register()
class HAN(nn.Module):
    """Holistic attention network: RCAN's groups, attention over all their outputs and over channels and pixels.

    N×C×H×W in [0, 1] → N×C×sH×sW; any H and W of at least 1. Layers have torch's default initialisation, γ of
    both attentions 0.

    Source: Niu et al., "Single Image Super-Resolution via a Holistic Attention Network" (ECCV 2020), section 3.
    Deviation: see ``LayerAttention``.

    Args:
        num_in_ch, num_out_ch: channels of the images; as many as ``rgb_mean`` has values.
        num_feat: channels of the features; a multiple of ``squeeze_factor``.
        num_group: residual groups; the paper has 10, and any number works.
        num_block: channel attention blocks in a group.
        upscale: 2, 3, 4 or 8.
        squeeze_factor: reduction of the channels in the channel attention.
        img_range, rgb_mean: the network works on (x − rgb_mean) · img_range.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_group: int = 10,
        num_block: int = 20,
        upscale: int = 4,
        squeeze_factor: int = 16,
        img_range: float = 255.0,
        rgb_mean: tuple[float, ...] = (0.4488, 0.4371, 0.4040),
    ):
        super().__init__()
        check_counts(num_feat=num_feat, num_group=num_group, num_block=num_block)
        check_choice((2, 3, 4, 8), upscale=upscale)
        check_images(num_in_ch, num_out_ch, img_range, rgb_mean)

        self.reach = 6 + num_group * (2 * num_block + 1)
        self.alignment = 1
        self.shift = MeanShift(rgb_mean, img_range)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.groups = nn.ModuleList(
            ResidualGroup(
                num_feat,
                [ResidualAttentionUnit(num_feat, ChannelAttention(num_feat, squeeze_factor)) for _ in range(num_block)],
            )
            for _ in range(num_group)
        )
        self.conv_after_groups = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.layer_attention = LayerAttention()
        self.conv_layers = nn.Conv2d(num_feat * (num_group + 1), num_feat, 3, 1, 1)
        self.channel_spatial_attention = ChannelSpatialAttention()
        self.conv_fuse = nn.Conv2d(2 * num_feat, num_feat, 3, 1, 1)
        self.upsample = Upsampler(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def shallow(self, x: Tensor) -> Tensor:
        return self.conv_first(self.shift(x))

    def reconstruct(self, shallow: Tensor, deep: Tensor, layers: Tensor) -> Tensor:
        """The result from the outputs of the groups: the last alone, and all after the layer attention."""
        deep = torch.cat([self.channel_spatial_attention(deep), self.conv_layers(layers)], dim=1)
        deep = self.conv_fuse(deep) + shallow
        return self.shift.undo(self.conv_last(self.upsample(deep)))

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.shallow(x)
        outputs = []
        deep = shallow
        for group in [*self.groups, self.conv_after_groups]:
            deep = group(deep)
            outputs.append(deep)
        layers = torch.stack(outputs[::-1], dim=1)  # the last first, as the authors' weights need
        return self.reconstruct(shallow, deep, self.layer_attention(layers))

    def by_parts(self, x: Tensor, runner) -> Iterator:
        deep = shallow = runner.map(self.shallow, x, reach=1)
        outputs = []
        for group in self.groups:
            deep = group.by_parts(deep, runner)
            outputs.append(deep)
        deep = runner.map(self.conv_after_groups, deep, reach=1)
        layers = self.layer_attention(torch.stack([deep, *outputs[::-1]], dim=1))
        return runner.output(self.reconstruct, shallow, deep, layers, reach=6)

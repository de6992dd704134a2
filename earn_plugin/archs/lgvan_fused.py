"""The parts of LGVAN's fused form: the same functions as those of the training form, faster.

Consecutive linear operations become one layer, and channels are last in memory, so that a layer norm is one pass and a
1×1 conv a matrix product. ``take`` computes a part's weights from those of its training form, which must be in float64.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earn_plugin.archs.blocks import in_bands, is_traced


class FusedStrips(nn.Module):
    """The two strip convs of LGCA and the identity as one depthwise 5×5 conv. Keeps N×C×H×W.

    A strip conv of length k adds only its last bias to the outermost k//2 columns. So the columns next to the border
    have a 3×3 conv of their own (``near``), and those at the border only a bias.
    """

    def __init__(self, num_feat: int):
        super().__init__()
        self.inner = nn.Conv2d(num_feat, num_feat, 5, 1, 2, groups=num_feat)
        self.near = nn.Conv2d(num_feat, num_feat, 3, 1, (1, 0), groups=num_feat)
        self.border_bias = nn.Parameter(torch.zeros(num_feat, 1))

    def take(self, gate: nn.Module) -> None:
        one = torch.ones(self.near.in_channels, 1, 1, 1, dtype=torch.float64)
        bias = gate.strip5.column.bias + gate.strip3.column.bias
        self.border_bias.copy_(bias[:, None])
        weight, bias = F.pad(one, [1] * 4) + product(gate.strip3), bias + constant(gate.strip3)
        fill(self.near, weight, bias)
        fill(self.inner, F.pad(weight, [1] * 4) + product(gate.strip5), bias + constant(gate.strip5))

    def forward(self, x: Tensor) -> Tensor:
        out, last = self.inner(x), x.shape[3] - 1
        if is_traced():  # without a choice that depends on the width
            near = F.conv2d(x, self.near.weight, self.near.bias, padding=1, groups=self.near.groups)
            column = torch.arange(last + 1, device=x.device)
            from_border = torch.minimum(column, last - column)
            out = torch.where(from_border == 1, near, out)
            return torch.where(from_border == 0, x + self.border_bias[:, :, None], out)
        for column in (1, last - 1):
            if 0 < column < last:
                out[..., column : column + 1] = self.near(x[..., column - 1 : column + 2])
        for column in (0, last):
            out[..., column] = x[..., column] + self.border_bias
        return out


class FusedGatedAttention(nn.Module):
    """Attention with LGCA; the norm's weights are part of ``proj_in``, the scale of ``proj_out``. Keeps N×C×H×W."""

    def __init__(self, num_feat: int):
        super().__init__()
        self.proj_in = nn.Conv2d(num_feat, num_feat, 1)
        self.gate_in = nn.Conv2d(num_feat, num_feat, 1)
        self.local = nn.Conv2d(num_feat, num_feat, 5, 1, 2, groups=num_feat)
        self.wide = nn.Conv2d(num_feat, num_feat, 5, 1, 6, dilation=3, groups=num_feat)
        self.strips = FusedStrips(num_feat)
        self.gate_out = nn.Conv2d(num_feat, num_feat, 1)
        self.proj_out = nn.Conv2d(num_feat, num_feat, 1)

    def take(self, trained: nn.Module) -> None:
        gate = trained.gate
        fill_after_norm(self.proj_in, trained.norm, trained.proj_in)
        self.gate_in.load_state_dict(gate.proj_in.state_dict())
        self.local.load_state_dict(gate.local.state_dict())
        self.wide.load_state_dict(gate.wide.state_dict())
        self.gate_out.load_state_dict(gate.proj_out.state_dict())
        self.strips.take(gate)
        fill_scaled(self.proj_out, trained.proj_out, trained.scale)

    def forward(self, x: Tensor) -> Tensor:
        u = gelu(self.proj_in(plain_norm(x)))
        v = self.gate_in(u)
        mask = self.gate_out(self.wide(self.local(v)).add_(self.strips(v)))
        return self.proj_out(mask.mul_(u)).add_(x)


class FusedLEFN(nn.Module):
    """LEFN; the norm's weights are part of ``expand``, the inner skip of the depthwise conv, the scale of ``reduce``.

    Keeps N×C×H×W.
    """

    def __init__(self, num_feat: int):
        super().__init__()
        self.expand = nn.Conv2d(num_feat, 2 * num_feat, 1)
        self.depthwise = nn.Conv2d(2 * num_feat, 2 * num_feat, 3, 1, 1, groups=2 * num_feat, bias=False)
        self.reduce = nn.Conv2d(2 * num_feat, num_feat, 1)

    def take(self, trained: nn.Module) -> None:
        fill_after_norm(self.expand, trained.norm, trained.expand)
        one = torch.ones(self.depthwise.in_channels, 1, 1, 1, dtype=torch.float64)
        fill(self.depthwise, trained.depthwise.weight + F.pad(one, [1] * 4))
        fill_scaled(self.reduce, trained.reduce, trained.scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(gelu(self.depthwise(self.expand(plain_norm(x))))).add_(x)


class FusedLGAB(nn.Sequential):
    """Attention, then feed-forward. Keeps N×C×H×W."""

    def __init__(self, num_feat: int):
        super().__init__(FusedGatedAttention(num_feat), FusedLEFN(num_feat))

    def take(self, trained: nn.Sequential) -> None:
        self[0].take(trained[0])
        self[1].take(trained[1])

    def forward(self, x: Tensor) -> Tensor:
        return in_bands(super().forward, x, reach=9, width=2 * x.shape[1])


class FusedUpsampler(nn.Sequential):
    """One 1×1 conv and one PixelShuffle for all steps of the upsampler, LeakyReLU, the last conv."""

    def __init__(self, num_feat: int, num_out_ch: int, upscale: int):
        super().__init__(
            nn.Conv2d(num_feat, num_feat * upscale**2, 1),
            nn.LeakyReLU(0.2, inplace=True),  # commutes with the shuffle
            nn.PixelShuffle(upscale),
            nn.Conv2d(num_feat, num_out_ch, 3, 1, 1),
        )

    def take(self, upsample: nn.Sequential, conv_last: nn.Conv2d) -> None:
        weight = with_bias(upsample[0])
        if len(upsample) > 2:  # ×2 twice: rows i, columns j of the first shuffle; k, l of the second
            first, second = weight.unflatten(0, (-1, 2, 2)), with_bias(upsample[2]).unflatten(0, (-1, 2, 2))
            weight = torch.einsum('dklc,cijx->dikjlx', second[..., :-1], first)
            weight[..., -1] += second[:, None, :, None, :, -1]
            weight = weight.flatten(0, 4)
        fill(self[0], weight[:, :-1], weight[:, -1])
        self[3].load_state_dict(conv_last.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return in_bands(super().forward, x, reach=1, width=self[0].out_channels, upscale=self[2].upscale_factor)


def plain_norm(x: Tensor) -> Tensor:
    """Layer norm over the channels of each pixel, without weights; in parts, as torch's is slow for so few channels."""
    if x.element_size() == 2:  # sums need float32
        return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), eps=1e-6).permute(0, 3, 1, 2)
    centred = x - x.mean(1, keepdim=True)
    variance = torch.linalg.vector_norm(centred, dim=1, keepdim=True).square() / x.shape[1]
    return centred * (variance + 1e-6).rsqrt()


def gelu(x: Tensor) -> Tensor:
    if x.element_size() == 2:  # twice as fast in memory that torch sees as contiguous
        return F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return F.gelu(x)


def product(strip: nn.Module) -> Tensor:
    """The two weights of a strip conv as one, C×1×k×k."""
    return strip.column.weight * strip.row.weight


def constant(strip: nn.Module) -> Tensor:
    """What the first bias of a strip conv adds to columns whose window is inside the image."""
    return strip.row.bias * strip.column.weight.sum((1, 2, 3))


def with_bias(conv: nn.Conv2d) -> Tensor:
    """The weight of a 1×1 conv with the bias as one more column."""
    return torch.cat([conv.weight[:, :, 0, 0], conv.bias[:, None]], 1)


def fill(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None = None) -> None:
    conv.weight.copy_(weight.view_as(conv.weight))
    if bias is not None:
        conv.bias.copy_(bias)


def fill_after_norm(conv: nn.Conv2d, norm: nn.LayerNorm, trained: nn.Conv2d) -> None:
    weight = trained.weight[:, :, 0, 0]
    fill(conv, weight * norm.weight, trained.bias + weight @ norm.bias)


def fill_scaled(conv: nn.Conv2d, trained: nn.Conv2d, scale: Tensor) -> None:
    scale = scale.flatten()
    fill(conv, trained.weight * scale[:, None, None, None], trained.bias * scale)

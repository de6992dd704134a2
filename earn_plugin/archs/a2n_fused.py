"""The parts of A2N's fused form: the same functions as those of the training form, faster.

Convs of one input become one conv, nearest upsampling a part of the conv that follows it, and channels are last in
memory. ``take`` computes a part's weights from those of its training form, which must be in float64.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earn_plugin.archs.blocks import in_bands


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class FusedBranches(nn.Module):
    """The two branches of a block, weighted for each image, its last conv and its skip. Keeps N×C×H×W."""

    def __init__(self, num_feat: int, kernel_size: int):
        super().__init__()
        self.conv_mask_value = nn.Conv2d(num_feat, 2 * num_feat, 3, 1, 1, bias=False)
        self.conv_mask2 = nn.Conv2d(num_feat, num_feat, 1)
        self.conv_attention = nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False)
        self.non_attention = nn.Conv2d(num_feat, num_feat, kernel_size, 1, kernel_size // 2, bias=False)
        self.conv_last = nn.Conv2d(num_feat, num_feat, 1, bias=False)

    def take(self, trained: nn.Module) -> None:
        branch = trained.attention
        self.conv_mask_value.weight.copy_(torch.cat([branch.conv_mask1.weight, branch.conv.weight]))
        self.conv_mask2.load_state_dict(branch.conv_mask2.state_dict())
        self.conv_attention.load_state_dict(branch.conv_last.state_dict())
        self.non_attention.load_state_dict(trained.non_attention.state_dict())
        self.conv_last.load_state_dict(trained.conv_last.state_dict())

    def forward(self, x: Tensor, entered: Tensor, weights: Tensor) -> Tensor:
        second = weights[:, 1, None, None, None]  # the first is 1 minus this

        def band(x: Tensor, entered: Tensor) -> Tensor:
            mask, value = self.conv_mask_value(entered).chunk(2, 1)
            mask = self.conv_mask2(F.leaky_relu(mask, 0.2)).sigmoid_()
            attention = self.conv_attention(value * mask)
            out = attention.lerp_(self.non_attention(entered), second.to(attention.dtype))
            return self.conv_last(F.leaky_relu_(out, 0.2)).add_(x)

        return in_bands(band, x, entered, reach=2, width=2 * x.shape[1])


class FusedUpsampleBlock(nn.Module):
    """Nearest upsampling and conv as one conv, pixel attention, conv: N×C×H×W → N×C'×sH×sW.

    The s×s pixels around a corner of four pixels of the input depend on these four alone. So a 2×2 conv has them as
    s²C' channels for each of the (H+1)×(W+1) corners.
    """

    def __init__(self, num_feat: int, num_upfeat: int, scale: int):
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(num_feat, scale**2 * num_upfeat, 2, 1, 1)
        self.attention = nn.Conv2d(num_upfeat, num_upfeat, 1)
        self.conv2 = nn.Conv2d(num_upfeat, num_upfeat, 3, 1, 1)

    def take(self, trained: nn.Module) -> None:
        s = self.scale
        # row r of a corner's pixels is s·i−1+r of the image; its tap k is in row i−1 of the input, or in row i
        taps = torch.zeros(s, 2, 3, dtype=torch.float64)  # r×row×k
        for r in range(s):
            for k in range(3):
                taps[r, int(r + k >= 2), k] = 1
        weight = torch.einsum('ryk,qxl,ockl->rqocyx', taps, taps, trained.conv1.weight)
        self.conv1.weight.copy_(weight.flatten(0, 2))
        self.conv1.bias.copy_(trained.conv1.bias.repeat(s * s))
        self.attention.load_state_dict(trained.attention.state_dict())
        self.conv2.load_state_dict(trained.conv2.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        s, h, w = self.scale, x.shape[2], x.shape[3]
        x = self.conv1(x).permute(0, 2, 3, 1).unflatten(3, (s, -1)).transpose(2, 3)  # N×(H+1)×s×(W+1)×sC'
        x = x.reshape(x.shape[0], s * (h + 1), s * (w + 1), -1).permute(0, 3, 1, 2)
        inside = (..., slice(1, 1 + s * h), slice(1, 1 + s * w))
        x = F.leaky_relu_(x[inside] * self.attention(x).sigmoid_()[inside], 0.2)
        return F.leaky_relu_(self.conv2(x), 0.2)

"""A2N: "Attention in Attention Network for Image Super-Resolution" (Chen, Gu, Zhang)."""

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from earn_plugin.archs.arguments import check_choice, check_multiple, check_positive, check_range, check_same

TEMPERATURE = 30  # of the softmax between the two branches, section 3.3
FIXED_WEIGHTS = {'attention': (1.0, 0.0), 'non_attention': (0.0, 1.0), 'equal': (0.5, 0.5)}


class AttentionBranch(nn.Module):
    """Pixels weighted by pixel attention, between convs. Keeps N×C×H×W."""

    def __init__(self, num_feat: int):
        super().__init__()
        self.conv_mask1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False)
        self.conv_mask2 = nn.Conv2d(num_feat, num_feat, 1)
        self.conv = nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False)
        self.conv_last = nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.conv_mask2(F.leaky_relu(self.conv_mask1(x), 0.2)).sigmoid()
        return self.conv_last(self.conv(x) * mask)


class AttentionInAttentionBlock(nn.Module):
    """A2B, section 3.2: an attention and a non-attention branch, weighed for each image. Keeps N×C×H×W."""

    def __init__(self, num_feat: int, kernel_size: int, branch_weights: str):
        super().__init__()
        self.conv_first = nn.Conv2d(num_feat, num_feat, 1, bias=False)
        self.attention = AttentionBranch(num_feat)
        self.non_attention = nn.Conv2d(num_feat, num_feat, kernel_size, 1, kernel_size // 2, bias=False)
        self.conv_last = nn.Conv2d(num_feat, num_feat, 1, bias=False)
        if branch_weights == 'dynamic':
            squeezed = num_feat // 4
            self.dropout = nn.Sequential(
                nn.Linear(num_feat, squeezed, bias=False), nn.ReLU(), nn.Linear(squeezed, 2, bias=False)
            )
        else:
            self.register_buffer('fixed', torch.tensor(FIXED_WEIGHTS[branch_weights]), persistent=False)

    def weigh(self, entered: Tensor) -> Tensor:
        """The weights of the attention and the non-attention branch for each image: N×2, with sum 1."""
        if hasattr(self, 'fixed'):
            return self.fixed.expand(len(entered), 2)
        return (self.dropout(entered.mean((2, 3))) / TEMPERATURE).softmax(1)

    def enter(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv_first(x), 0.2)

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        attention, non_attention = self.weigh(entered)[:, :, None, None, None].unbind(1)
        out = self.attention(entered) * attention + self.non_attention(entered) * non_attention
        return self.conv_last(F.leaky_relu(out, 0.2)) + x


class UpsampleBlock(nn.Module):
    """Nearest upsampling, conv, pixel attention, conv: N×C×H×W → N×C'×sH×sW."""

    def __init__(self, num_feat: int, num_upfeat: int, scale: int):
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(num_feat, num_upfeat, 3, 1, 1)
        self.attention = nn.Conv2d(num_upfeat, num_upfeat, 1)
        self.conv2 = nn.Conv2d(num_upfeat, num_upfeat, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(F.interpolate(x, scale_factor=self.scale, mode='nearest'))
        x = F.leaky_relu(x * self.attention(x).sigmoid(), 0.2)
        return F.leaky_relu(self.conv2(x), 0.2)


@ARCH_REGISTRY.register()
class A2N(nn.Module):
    """Attention in attention network: each block learns how much of its attention to use.

    N×C×H×W in [0, 1] → N×C×sH×sW; any H and W of at least 1. Layers start as torch initialises them.

    Source: Chen, Gu, Zhang, "Attention in Attention Network for Image Super-Resolution" (2021), section 3.

    Args:
        num_in_ch, num_out_ch: channels of the images, the same.
        num_feat: channels of the features, a multiple of 4.
        num_upfeat: channels after the upsampling.
        num_block: attention in attention blocks.
        upscale: 2, 3 or 4.
        variant: 'A2N', or 'A2N-M' with 1×1 convs in the non-attention branches.
        branch_weights: 'dynamic' for the learned ones; 'attention', 'non_attention' or 'equal' for fixed ones, the
            paper's ablations.
        img_range: the network works on x · img_range.

    Raises:
        ValueError: names an argument that the network cannot serve.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 40,
        num_upfeat: int = 24,
        num_block: int = 16,
        upscale: int = 4,
        variant: str = 'A2N',
        branch_weights: str = 'dynamic',
        img_range: float = 255.0,
    ):
        super().__init__()
        check_same(num_in_ch, num_out_ch)
        check_positive(num_feat=num_feat, num_upfeat=num_upfeat, num_block=num_block)
        check_multiple(4, 'the weights of the branches are made of a quarter', num_feat=num_feat)
        check_choice((2, 3, 4), upscale=upscale)
        check_choice(('A2N', 'A2N-M'), variant=variant)
        check_choice(('dynamic', *FIXED_WEIGHTS), branch_weights=branch_weights)
        check_range(img_range)

        self.img_range = img_range
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        kernel_size = 3 if variant == 'A2N' else 1
        self.body = nn.Sequential(
            *[AttentionInAttentionBlock(num_feat, kernel_size, branch_weights) for _ in range(num_block)]
        )
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        steps = [2, 2] if upscale == 4 else [upscale]
        widths = [num_feat, *[num_upfeat] * len(steps)]
        self.upsample = nn.Sequential(*map(UpsampleBlock, widths, widths[1:], steps))
        self.conv_last = nn.Conv2d(num_upfeat, num_out_ch, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.img_range
        shallow = self.conv_first(x)
        out = self.upsample(self.conv_after_body(self.body(shallow)) + shallow)
        skip = F.interpolate(x, size=out.shape[2:], mode='bilinear', align_corners=False)
        return (self.conv_last(out) + skip) / self.img_range

    def branch_weights(self, x: Tensor) -> Tensor:
        """How much each block uses of its attention and of its non-attention branch: images → N×num_block×2."""
        features = self.conv_first(x * self.img_range)
        weights = []
        for block in self.body:
            weights.append(block.weigh(block.enter(features)))
            features = block(features)
        return torch.stack(weights, dim=1)

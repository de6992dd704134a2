"""A2N: "Attention in Attention Network for Image Super-Resolution" (Chen, Gu, Zhang)."""

import copy
from collections.abc import Iterator
from functools import partial

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from earn_plugin.archs.a2n_fused import FusedBranches, FusedUpsampleBlock, channels_last
from earn_plugin.archs.arguments import check_choice, check_counts, check_images, check_multiple
from earn_plugin.archs.blocks import bilinear, in_bands, spatial_mean

FIXED_WEIGHTS = {'attention': (1.0, 0.0), 'non_attention': (0.0, 1.0), 'equal': (0.5, 0.5)}


class AttentionBranch(nn.Module):
    """Convs with pixel attention between them. Keeps N×C×H×W."""

    def __init__(self, num_feat: int):
        super().__init__()
        self.conv_mask1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False)
        self.conv_mask2 = nn.Conv2d(num_feat, num_feat, 1)
        self.conv = nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False)
        self.conv_last = nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.conv_mask2(F.leaky_relu(self.conv_mask1(x), 0.2)).sigmoid()
        return self.conv_last(self.conv(x) * mask)


class DynamicAttention(nn.Sequential):
    """The dynamic attention module, section 3.3: means N×C → weights of the two branches, N×2, which sum to 1."""

    temperature = 30

    def __init__(self, num_feat: int):
        squeezed = num_feat // 4
        super().__init__(nn.Linear(num_feat, squeezed, bias=False), nn.ReLU(), nn.Linear(squeezed, 2, bias=False))

    def forward(self, mean: Tensor) -> Tensor:
        return (super().forward(mean) / self.temperature).softmax(1)


class AttentionInAttentionBlock(nn.Module):
    """A2B, section 3.2: an attention and a non-attention branch, weighted for each image. Keeps N×C×H×W."""

    def __init__(self, num_feat: int, kernel_size: int, branch_weights: str, fused: bool = False):
        super().__init__()
        self.conv_first = nn.Conv2d(num_feat, num_feat, 1, bias=False)
        self.fused = fused
        if fused:
            self.branches = FusedBranches(num_feat, kernel_size)
        else:
            self.attention = AttentionBranch(num_feat)
            self.non_attention = nn.Conv2d(num_feat, num_feat, kernel_size, 1, kernel_size // 2, bias=False)
            self.conv_last = nn.Conv2d(num_feat, num_feat, 1, bias=False)
        fixed = FIXED_WEIGHTS.get(branch_weights)
        self.dynamic_attention = None if fixed else DynamicAttention(num_feat)
        self.register_buffer('fixed_weights', torch.tensor(fixed) if fixed else None, persistent=False)

    def take(self, trained: 'AttentionInAttentionBlock') -> None:
        """Compute the fused form's weights from those of the training form, which must be in float64."""
        self.conv_first.load_state_dict(trained.conv_first.state_dict())
        self.branches.take(trained)
        if self.dynamic_attention is not None:
            self.dynamic_attention.load_state_dict(trained.dynamic_attention.state_dict())

    def enter(self, x: Tensor) -> Tensor:
        if self.fused:
            return F.leaky_relu_(self.conv_first(channels_last(x)), 0.2)
        return F.leaky_relu(self.conv_first(x), 0.2)

    def weights(self, mean: Tensor) -> Tensor:
        """Weights of the attention and the non-attention branch: means of the entered features N×C → N×2."""
        if self.dynamic_attention is None:
            return self.fixed_weights.expand(len(mean), 2)
        return self.dynamic_attention(mean)

    def mix(self, x: Tensor, weights: Tensor, entered: Tensor | None = None) -> Tensor:
        """The block's result for given weights; ``entered``, if at hand, is not computed again."""
        entered = self.enter(x) if entered is None else entered
        if self.fused:
            return self.branches(x, entered, weights)
        attention, non_attention = weights[:, :, None, None, None].unbind(1)
        out = self.attention(entered) * attention + self.non_attention(entered) * non_attention
        return self.conv_last(F.leaky_relu(out, 0.2)) + x

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        return self.mix(x, self.weights(spatial_mean(entered)), entered)


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
    """Attention in attention network: each block learns how much to use its attention branch.

    N×C×H×W in [0, 1] → N×C×sH×sW; any H and W of at least 1. Layers have torch's default initialisation.

    Source: Chen, Gu, Zhang, "Attention in Attention Network for Image Super-Resolution" (2021), section 3.

    Args:
        num_in_ch, num_out_ch: channels of the images; must be equal.
        num_feat: channels of the features; a multiple of 4.
        num_upfeat: channels after the upsampling.
        num_block: attention in attention blocks.
        upscale: 2, 3 or 4.
        variant: 'A2N', or 'A2N-M' with 1×1 convs in the non-attention branches.
        branch_weights: 'dynamic' for those of the dynamic attention module; 'attention', 'non_attention' or 'equal'
            for fixed ones, the paper's ablations.
        img_range: the network works on x · img_range.
        fused: build the fused form, which ``fuse()`` gives: the same function, faster; for inference, not for training.

    Raises:
        ValueError: an argument is out of range; the message names it.
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
        fused: bool = False,
    ):
        super().__init__()
        check_images(num_in_ch, num_out_ch, img_range)
        check_counts(num_feat=num_feat, num_upfeat=num_upfeat, num_block=num_block)
        check_multiple(4, 'the dynamic attention module has a quarter of them', num_feat=num_feat)
        check_choice((2, 3, 4), upscale=upscale)
        check_choice(('A2N', 'A2N-M'), variant=variant)
        check_choice(('dynamic', *FIXED_WEIGHTS), branch_weights=branch_weights)
        check_choice((False, True), fused=fused)

        self.upscale, self.variant, self.branch_weights, self.fused = upscale, variant, branch_weights, fused
        self.img_range = img_range
        self.factor = 1.0 if fused else img_range  # the fused form's first and last conv include the range
        self.reach = 2 * num_block + (3 if upscale == 3 and not fused else 4)  # fused, a zero weight reaches farther
        self.alignment = 1
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        kernel_size = 3 if variant == 'A2N' else 1
        blocks = [AttentionInAttentionBlock(num_feat, kernel_size, branch_weights, fused) for _ in range(num_block)]
        self.body = nn.Sequential(*blocks)
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        steps = [2, 2] if upscale == 4 else [upscale]
        widths = [num_feat, *[num_upfeat] * len(steps)]
        self.upsample = nn.Sequential(*map(FusedUpsampleBlock if fused else UpsampleBlock, widths, widths[1:], steps))
        self.conv_last = nn.Conv2d(num_upfeat, num_out_ch, 3, 1, 1)

    @torch.no_grad()
    def fuse(self) -> 'A2N':
        """The same function in the fused form; a network in the fused form is returned as it is."""
        if self.fused:
            return self
        fused = A2N(
            num_in_ch=self.conv_first.in_channels,
            num_out_ch=self.conv_last.out_channels,
            num_feat=self.conv_first.out_channels,
            num_upfeat=self.conv_last.in_channels,
            num_block=len(self.body),
            upscale=self.upscale,
            variant=self.variant,
            branch_weights=self.branch_weights,
            img_range=self.img_range,
            fused=True,
        )
        fused.to(self.conv_first.weight).train(self.training)
        trained = copy.deepcopy(self).cpu().double()  # sums and products of weights are rounded once, at the end
        trained.conv_first.weight *= self.img_range
        trained.conv_last.weight /= self.img_range
        trained.conv_last.bias /= self.img_range
        for name in ('conv_first', 'conv_after_body', 'conv_last'):
            getattr(fused, name).load_state_dict(getattr(trained, name).state_dict())
        for name in ('body', 'upsample'):
            for index, part in enumerate(getattr(fused, name)):
                part.take(getattr(trained, name)[index])
        return fused

    def shallow(self, x: Tensor) -> Tensor:
        """The features that enter the body."""
        return self.conv_first((channels_last(x) if self.fused else x) * self.factor)

    def reconstruct(self, features: Tensor, x: Tensor, shallow: Tensor | None = None) -> Tensor:
        """The result from the body's features; ``shallow``, if at hand, is not computed again."""
        shallow = self.shallow(x) if shallow is None else shallow
        out = self.conv_after_body(channels_last(features) if self.fused else features) + shallow
        if self.fused:
            width = self.conv_last.in_channels * self.upscale**2
            out = in_bands(self.enlarge, out, reach=2, width=width, upscale=self.upscale)
        else:
            out = self.enlarge(out)
        return (out + bilinear(x * self.factor, self.upscale)) / self.factor

    def enlarge(self, x: Tensor) -> Tensor:
        return self.conv_last(self.upsample(x))

    def forward(self, x: Tensor) -> Tensor:
        features = shallow = self.shallow(x)
        for block in self.body:
            features = block(features)
        return self.reconstruct(features, x, shallow)

    def by_parts(self, x: Tensor, runner) -> Iterator:
        features = runner.map(self.shallow, x, reach=1)
        for block in self.body:
            weights = block.weights(runner.mean(block.enter, features))
            runner.update(partial(block.mix, weights=weights), features, reach=2)
        return runner.output(self.reconstruct, features, x, reach=3)

    def weights_per_block(self, x: Tensor) -> Tensor:
        """Weights of each block's attention and non-attention branch: images N×C×H×W → N×num_block×2."""
        features, weights = self.shallow(x), []
        for block in self.body:
            entered = block.enter(features)
            weights.append(block.weights(spatial_mean(entered)))
            features = block.mix(features, weights[-1], entered)
        return torch.stack(weights, dim=1)

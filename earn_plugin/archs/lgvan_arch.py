"""LGVAN: "Local-Global Visual Attention Network", NTIRE 2023 challenge on efficient super-resolution, team 18."""

import copy

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from earn_plugin.archs.arguments import check_choice, check_counts, check_images, check_multiple
from earn_plugin.archs.blocks import bilinear
from earn_plugin.archs.lgvan_fused import FusedLGAB, FusedUpsampler


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel. Keeps N×C×H×W.

    Written out as in the authors' code: fvcore, NTIRE's counter, counts 5 operations an element for ``F.layer_norm``.
    """

    def __init__(self, num_feat: int):
        super().__init__(num_feat, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.element_size() == 2 else x
        wide = wide.contiguous(memory_format=torch.channels_last)  # faster for the depthwise convs that follow
        centred = wide - wide.mean(1, keepdim=True)
        scale = (centred.square().mean(1, keepdim=True) + self.eps).rsqrt()
        return (centred * scale * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class DepthwiseConv(nn.Conv2d):
    """Depthwise conv, in training on a GPU as a dense conv whose other weights are zero.

    For dilated and non-square kernels, that is several times faster than cuDNN's depthwise convs.
    """

    def __init__(self, num_feat: int, kernel_size: int | tuple[int, int], padding, dilation: int = 1):
        super().__init__(num_feat, num_feat, kernel_size, 1, padding, dilation, groups=num_feat)

    def forward(self, x: Tensor) -> Tensor:
        return self.as_dense(x) if self.training and x.is_cuda else super().forward(x)

    def as_dense(self, x: Tensor) -> Tensor:
        diagonal = torch.eye(len(self.weight), device=x.device, dtype=self.weight.dtype)
        return F.conv2d(x, self.weight * diagonal[:, :, None, None], self.bias, 1, self.padding, self.dilation)


class StripConv(nn.Module):
    """Depthwise 1×k, then k×1. Keeps N×C×H×W.

    The authors pad the 1×k conv vertically and the k×1 conv horizontally, and their weights need it: the outermost
    k//2 columns are the second bias alone. If the image is narrower than k, all columns are.
    """

    def __init__(self, num_feat: int, kernel_size: int):
        super().__init__()
        pad = kernel_size // 2
        self.row = DepthwiseConv(num_feat, (1, kernel_size), (pad, 0))
        self.column = DepthwiseConv(num_feat, (kernel_size, 1), (0, pad))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[3] < self.row.kernel_size[1]:
            return self.column.bias[:, None, None].to(x.dtype).expand_as(x)
        return self.column(self.row(x))


class LGCA(nn.Module):
    """The attention gate: u times a mask with a large receptive field from small depthwise convs. Keeps N×C×H×W."""

    def __init__(self, num_feat: int):
        super().__init__()
        self.proj_in = nn.Conv2d(num_feat, num_feat, 1)
        self.local = nn.Conv2d(num_feat, num_feat, 5, 1, 2, groups=num_feat)
        self.wide = DepthwiseConv(num_feat, 5, 6, dilation=3)
        self.strip5 = StripConv(num_feat, 5)
        self.strip3 = StripConv(num_feat, 3)
        self.proj_out = nn.Conv2d(num_feat, num_feat, 1)

    def forward(self, u: Tensor) -> Tensor:
        x = self.proj_in(u)
        return u * self.proj_out(self.wide(self.local(x)) + self.strip5(x) + self.strip3(x) + x)


class GatedAttention(nn.Module):
    """x + scale · f(norm(x)) with f: 1×1 conv, GELU, LGCA, 1×1 conv. Starts as the identity. Keeps N×C×H×W."""

    def __init__(self, num_feat: int):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1, num_feat, 1, 1))
        self.norm = ChannelNorm(num_feat)
        self.proj_in = nn.Conv2d(num_feat, num_feat, 1)
        self.gate = LGCA(num_feat)
        self.proj_out = nn.Conv2d(num_feat, num_feat, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.proj_out(self.gate(F.gelu(self.proj_in(self.norm(x)))))


class LEFN(nn.Module):
    """The feed-forward part: x + scale · f(norm(x)) with f: 1×1 conv to 2C channels, depthwise 3×3 conv with a skip,
    GELU, 1×1 conv back. Starts as the identity. Keeps N×C×H×W."""

    def __init__(self, num_feat: int):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1, num_feat, 1, 1))
        self.norm = ChannelNorm(num_feat)
        self.expand = nn.Conv2d(num_feat, 2 * num_feat, 1)
        self.depthwise = nn.Conv2d(2 * num_feat, 2 * num_feat, 3, 1, 1, groups=2 * num_feat, bias=False)
        self.reduce = nn.Conv2d(2 * num_feat, num_feat, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.expand(self.norm(x))
        return x + self.scale * self.reduce(F.gelu(self.depthwise(wide) + wide))


class LGAB(nn.Sequential):
    """The block: attention, then feed-forward. Keeps N×C×H×W."""

    def __init__(self, num_feat: int):
        super().__init__(GatedAttention(num_feat), LEFN(num_feat))


@ARCH_REGISTRY.register()
class LGVAN(nn.Module):
    """Local-global visual attention network: few parameters, a large receptive field from strip and dilated convs.

    N×C×H×W in [0, 1] → N×C×sH×sW; any H and W of at least 1. Layers have torch's default initialisation; the scale of
    every residual branch is initialised to zero. 118,243 parameters at ×4 with the defaults.

    Source: team 18 of "NTIRE 2023 Challenge on Efficient Super-Resolution: Methods and Results" (CVPRW 2023), and its
    factsheet, whose names LGAB, LGCA and LEFN are. Deviations from the factsheet, all as in the authors' code: a skip
    from the input by bilinear upsampling, 2 groups in the conv after the body, a LeakyReLU before the last conv.

    Args:
        num_in_ch, num_out_ch: channels of the images; must be equal.
        num_feat: channels of the features; a multiple of 2.
        num_block: blocks (LGAB).
        upscale: 2, 3 or 4.
        fused: build the fused form, which ``fuse()`` gives: the same function, faster; for inference, not for training.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 32,
        num_block: int = 9,
        upscale: int = 4,
        fused: bool = False,
    ):
        super().__init__()
        check_images(num_in_ch, num_out_ch)
        check_counts(num_feat=num_feat, num_block=num_block)
        check_multiple(2, 'the conv after the body has 2 groups', num_feat=num_feat)
        check_choice((2, 3, 4), upscale=upscale)
        check_choice((False, True), fused=fused)
        self.fused = fused
        self.reach = 3 + 9 * num_block
        self.alignment = 1
        self.upscale = upscale

        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        blocks = [FusedLGAB(num_feat) if fused else LGAB(num_feat) for _ in range(num_block)]
        self.body = nn.Sequential(*blocks)
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1, groups=2)
        if fused:
            self.upsample = FusedUpsampler(num_feat, num_out_ch, upscale)
            return
        steps = [2, 2] if upscale == 4 else [upscale]
        layers = [layer for s in steps for layer in (nn.Conv2d(num_feat, num_feat * s**2, 1), nn.PixelShuffle(s))]
        self.upsample = nn.Sequential(*layers)
        self.lrelu = nn.LeakyReLU(0.2)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    @torch.no_grad()
    def fuse(self) -> 'LGVAN':
        """The same function in the fused form; a network in the fused form is returned as it is."""
        if self.fused:
            return self
        fused = LGVAN(
            num_in_ch=self.conv_first.in_channels,
            num_out_ch=self.conv_last.out_channels,
            num_feat=self.conv_first.out_channels,
            num_block=len(self.body),
            upscale=self.upscale,
            fused=True,
        )
        fused.to(self.conv_first.weight).train(self.training)
        trained = copy.deepcopy(self).cpu().double()  # sums and products of weights are rounded once, at the end
        fused.conv_first.load_state_dict(trained.conv_first.state_dict())
        for index, block in enumerate(fused.body):
            block.take(trained.body[index])
        fused.conv_after_body.load_state_dict(trained.conv_after_body.state_dict())
        fused.upsample.take(trained.upsample, trained.conv_last)
        return fused

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            x = x.contiguous(memory_format=torch.channels_last)
        shallow = self.conv_first(x)
        out = self.upsample(self.conv_after_body(self.body(shallow)) + shallow)
        if not self.fused:
            out = self.conv_last(self.lrelu(out))
        return out + bilinear(x, self.upscale)

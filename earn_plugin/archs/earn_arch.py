"""EARN: "Efficient Multi-Attention Residual Network for Image Super Resolution" (Şentürk, Çakıcı)."""

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.archs.arguments import check_channels, check_choice, check_multiple, check_positive, check_range
from earn_plugin.archs.attention import AdaptivelyScaledChannelAttention, LocalAttention, PixelAttention
from earn_plugin.archs.blocks import EfficientResidualBlock, MeanShift, ResidualBlock, Upsampler


class MaskBranch(nn.Module):
    """The mask, in (0, 1), that weighs the trunk: local attention, once down and up again, skip. Keeps N×C×H×W."""

    def __init__(self, num_feat: int, num_group: int, window_size: int, use_local_attention: bool):
        super().__init__()
        self.erb1 = EfficientResidualBlock(num_feat, num_group)
        self.attention = LocalAttention(num_feat, window_size) if use_local_attention else nn.Identity()
        self.down = nn.Conv2d(num_feat, num_feat, 3, 2, 1)
        self.erb2 = EfficientResidualBlock(num_feat, num_group)
        self.up = nn.PixelShuffle(2)
        self.expand = nn.Conv2d(num_feat // 4, num_feat, 1)
        self.erb3 = EfficientResidualBlock(num_feat, num_group)
        self.last = nn.Conv2d(num_feat, num_feat, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.erb1(x)
        out = self.up(self.erb2(self.down(self.attention(skip))))
        out = out[..., : x.shape[2], : x.shape[3]]  # an odd size comes back one larger
        return self.last(self.erb3(self.expand(out) + skip)).sigmoid()


class ResidualAttentionBlock(nn.Module):
    """RAB, equations 3 and 4. Keeps N×C×H×W."""

    def __init__(
        self,
        num_feat: int,
        num_group: int,
        reduction: int,
        window_size: int,
        released: bool,
        use_asca: bool,
        use_skip: bool,
        use_local_attention: bool,
    ):
        super().__init__()

        def residual_blocks(count: int) -> nn.Sequential:
            return nn.Sequential(*[ResidualBlock(num_feat, relu_out=released) for _ in range(count)])

        self.use_skip = use_skip
        attention = []
        if use_asca:
            attention += [*residual_blocks(2)] if released else []
            attention += [AdaptivelyScaledChannelAttention(num_feat, reduction)]
        if not released:
            attention += [PixelAttention(num_feat, reduction)]
        self.attention = nn.Sequential(*attention)
        self.head = residual_blocks(1)
        self.trunk = residual_blocks(2)
        self.mask = MaskBranch(num_feat, num_group, window_size, use_local_attention)
        self.tail = residual_blocks(2)

    def forward(self, x: Tensor) -> Tensor:
        r = self.head(self.attention(x))
        h = self.tail(self.trunk(r) * self.mask(r) + r)
        return h + x if self.use_skip else h


@ARCH_REGISTRY.register()
class EARN(nn.Module):
    """Efficient Multi-Attention Residual Network.

    N×3×H×W RGB in [0, 1] → N×3×sH×sW, any H and W of at least 1. 2,181,443 parameters at ×4 with the defaults.

    Source: the paper; ``variant='released'`` is the network of the authors' code, which has two residual blocks
    before ASCA, no pixel attention, a ReLU at the end of each residual block and depthwise mask convs. Deviations:
    odd sizes work, and the local attention's result keeps its channels in place, which the authors' code does not.
    Layers start as torch's own do, the relative embeddings at N(0, 1).

    Args:
        num_in_ch, num_out_ch: channels; as many as ``rgb_mean`` has values.
        num_feat: channels of the features; a multiple of 4, of ``reduction`` and of ``num_group``.
        num_block: residual attention blocks.
        upscale: 2, 3 or 4.
        variant: 'paper' or 'released'.
        num_group: groups of the mask's 3×3 convs; None takes the variant's: num_feat / 4, or num_feat.
        reduction: of the channel and pixel attentions.
        window_size: of the local attention; odd.
        use_asca, use_skip, use_local_attention: False for an ablation of Table 2. Without skips neither the blocks
            nor the whole have one; the released variant without ASCA has no blocks before it either.
        img_range, rgb_mean: the range inside the network, and DIV2K's mean in [0, 1].

    Raises:
        ValueError: a value that the network cannot serve.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 4,
        upscale: int = 4,
        variant: str = 'paper',
        num_group: int | None = None,
        reduction: int = 16,
        window_size: int = 3,
        use_asca: bool = True,
        use_skip: bool = True,
        use_local_attention: bool = True,
        img_range: float = 255.0,
        rgb_mean: tuple[float, ...] = (0.4488, 0.4371, 0.4040),
    ):
        super().__init__()
        check_choice(('paper', 'released'), variant=variant)
        check_positive(num_feat=num_feat, num_block=num_block, reduction=reduction, window_size=window_size)
        check_multiple(4, 'the mask shuffles them into 2×2 pixels', num_feat=num_feat)
        check_multiple(reduction, 'reduction', num_feat=num_feat)
        if num_group is None:
            num_group = num_feat if variant == 'released' else num_feat // 4
        check_positive(num_group=num_group)
        check_multiple(num_group, 'num_group', num_feat=num_feat)
        check_choice((2, 3, 4), upscale=upscale)
        check_channels(num_in_ch, num_out_ch, rgb_mean)
        check_choice((True, False), use_asca=use_asca, use_skip=use_skip, use_local_attention=use_local_attention)
        if window_size % 2 == 0:
            raise ValueError(f'window_size must be odd, got {window_size}; try {window_size + 1}')
        check_range(img_range)

        self.use_skip = use_skip
        self.shift = MeanShift(rgb_mean, img_range)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = nn.Sequential(
            *[
                ResidualAttentionBlock(
                    num_feat,
                    num_group,
                    reduction,
                    window_size,
                    released=variant == 'released',
                    use_asca=use_asca,
                    use_skip=use_skip,
                    use_local_attention=use_local_attention,
                )
                for _ in range(num_block)
            ]
        )
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.upsample = Upsampler(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.conv_first(self.shift(x))
        deep = self.conv_after_body(self.body(shallow))
        if self.use_skip:
            deep = deep + shallow
        return self.shift.undo(self.conv_last(self.upsample(deep)))

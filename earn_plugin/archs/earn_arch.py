"""EARN: "Efficient Multi-Attention Residual Network for Image Super Resolution" (Şentürk, Çakıcı)."""

from collections.abc import Iterator

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.archs.arguments import check_choice, check_counts, check_images, check_multiple
from earn_plugin.archs.attention import AdaptivelyScaledChannelAttention, LocalAttention, PixelAttention
from earn_plugin.archs.blocks import EfficientResidualBlock, MeanShift, ResidualBlock, Upsampler


class MaskBranch(nn.Module):
    """The mask of the trunk, in (0, 1): local attention, down and up once, with a skip. Keeps N×C×H×W."""

    def __init__(self, num_feat: int, groups: int, window_size: int, use_local_attention: bool):
        super().__init__()
        self.erb1 = EfficientResidualBlock(num_feat, groups)
        self.attention = LocalAttention(num_feat, window_size) if use_local_attention else nn.Identity()
        self.down = nn.Conv2d(num_feat, num_feat, 3, 2, 1)
        self.erb2 = EfficientResidualBlock(num_feat, groups)
        self.up = nn.PixelShuffle(2)
        self.expand = nn.Conv2d(num_feat // 4, num_feat, 1)
        self.erb3 = EfficientResidualBlock(num_feat, groups)
        self.last = nn.Conv2d(num_feat, num_feat, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.erb1(x)
        out = self.up(self.erb2(self.down(self.attention(skip))))
        out = out[..., : x.shape[2], : x.shape[3]]  # an odd size comes back larger by one
        return self.last(self.erb3(self.expand(out) + skip)).sigmoid()


class ResidualAttentionBlock(nn.Module):
    """RAB, equations 3 and 4. Keeps N×C×H×W."""

    def __init__(
        self,
        num_feat: int,
        *,
        released: bool,
        groups: int,
        squeeze_factor: int,
        window_size: int,
        use_asca: bool,
        use_skip: bool,
        use_local_attention: bool,
    ):
        super().__init__()

        def residual_blocks(count: int) -> nn.Sequential:
            return nn.Sequential(*[ResidualBlock(num_feat, relu_out=released) for _ in range(count)])

        self.use_skip = use_skip
        self.reach = 15 + (window_size // 2 if use_local_attention else 0)  # of what follows the attention
        attention = []
        if use_asca:
            attention += [*residual_blocks(2)] if released else []
            attention += [AdaptivelyScaledChannelAttention(num_feat, squeeze_factor)]
        if not released:
            attention += [PixelAttention(num_feat, squeeze_factor)]
        self.attention = nn.Sequential(*attention)
        self.head = residual_blocks(1)
        self.trunk = residual_blocks(2)
        self.mask = MaskBranch(num_feat, groups, window_size, use_local_attention)
        self.tail = residual_blocks(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.after_attention(x, self.attention(x))

    def after_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        r = self.head(attended)
        h = self.tail(self.trunk(r) * self.mask(r) + r)
        return h + x if self.use_skip else h

    def by_parts(self, x: Tensor, runner) -> None:
        """The same in place."""
        attended = x
        for layer in self.attention:
            is_global = isinstance(layer, AdaptivelyScaledChannelAttention)
            attended = layer(attended) if is_global else runner.map(layer, attended, reach=2)
        runner.update(self.after_attention, x, attended, reach=self.reach, alignment=2)


@ARCH_REGISTRY.register()
class EARN(nn.Module):
    """Efficient Multi-Attention Residual Network.

    N×C×H×W in [0, 1] → N×C×sH×sW; any H and W of at least 1. Layers have torch's default initialisation, relative
    embeddings N(0, 1). 2,181,443 parameters at ×4 with the defaults.

    Source: the paper, section 3; ``variant='released'`` is the network of the authors' code, which has two residual
    blocks before ASCA, no pixel attention, a ReLU at the end of each residual block and depthwise convs in the mask.
    Deviations from that code: odd sizes work, and the local attention's result keeps its channels in place.

    Args:
        num_in_ch, num_out_ch: channels of the images; as many as ``rgb_mean`` has values.
        num_feat: channels of the features; a multiple of 4, of ``squeeze_factor`` and of ``groups``.
        num_block: residual attention blocks.
        upscale: 2, 3 or 4.
        variant: 'paper' or 'released'.
        groups: of the mask's 3×3 convs; None for the variant's: num_feat / 4, or num_feat.
        squeeze_factor: reduction of the channels in the channel and pixel attentions.
        window_size: of the local attention, in pixels; odd.
        use_asca, use_skip, use_local_attention: False for an ablation of Table 2. Without skips neither the blocks
            nor the network has one; the released variant without ASCA also lacks the two residual blocks before it.
        img_range, rgb_mean: the network works on (x − rgb_mean) · img_range.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 4,
        upscale: int = 4,
        variant: str = 'paper',
        groups: int | None = None,
        squeeze_factor: int = 16,
        window_size: int = 3,
        use_asca: bool = True,
        use_skip: bool = True,
        use_local_attention: bool = True,
        img_range: float = 255.0,
        rgb_mean: tuple[float, ...] = (0.4488, 0.4371, 0.4040),
    ):
        super().__init__()
        check_choice(('paper', 'released'), variant=variant)
        check_counts(num_feat=num_feat, num_block=num_block, window_size=window_size)
        check_multiple(4, 'the mask shuffles them into 2×2 pixels', num_feat=num_feat)
        if groups is None:
            groups = num_feat if variant == 'released' else num_feat // 4
        check_counts(groups=groups)
        check_multiple(groups, 'groups', num_feat=num_feat)
        check_choice((2, 3, 4), upscale=upscale)
        check_images(num_in_ch, num_out_ch, img_range, rgb_mean)
        check_choice((True, False), use_asca=use_asca, use_skip=use_skip, use_local_attention=use_local_attention)
        if window_size % 2 == 0:
            raise ValueError(f'window_size must be odd, got {window_size}; try {window_size + 1}')

        def block() -> nn.Module:
            return ResidualAttentionBlock(
                num_feat,
                released=variant == 'released',
                groups=groups,
                squeeze_factor=squeeze_factor,
                window_size=window_size,
                use_asca=use_asca,
                use_skip=use_skip,
                use_local_attention=use_local_attention,
            )

        self.use_skip = use_skip
        self.shift = MeanShift(rgb_mean, img_range)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = nn.Sequential(*[block() for _ in range(num_block)])
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.upsample = Upsampler(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)
        block_reach = self.body[0].reach + (4 if variant == 'released' and use_asca else 0)
        self.reach = 5 + num_block * block_reach
        self.alignment = 2  # the masks halve the image

    def shallow(self, x: Tensor) -> Tensor:
        return self.conv_first(self.shift(x))

    def reconstruct(self, features: Tensor, shallow: Tensor) -> Tensor:
        deep = self.conv_after_body(features)
        if self.use_skip:
            deep = deep + shallow
        return self.shift.undo(self.conv_last(self.upsample(deep)))

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.shallow(x)
        return self.reconstruct(self.body(shallow), shallow)

    def by_parts(self, x: Tensor, runner) -> Iterator:
        features = runner.map(self.shallow, x, reach=1)
        for block in self.body:
            block.by_parts(features, runner)
        return runner.output(lambda deep, x: self.reconstruct(deep, self.shallow(x)), features, x, reach=5)

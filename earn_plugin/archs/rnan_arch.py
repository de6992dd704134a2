"""RNAN: "Residual Non-local Attention Networks for Image Restoration" (Zhang et al., ICLR 2019)."""

from collections.abc import Iterator

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.archs.arguments import check_choice, check_counts, check_images
from earn_plugin.archs.attention import NonLocalAttention
from earn_plugin.archs.blocks import MeanShift, ResidualBlock, Upsampler


class NonLocalMaskBranch(nn.Module):
    """The mask of the trunk, in (0, 1), from the result of ``attention``: down and up once, with a skip.

    Keeps N×C×H×W. The block applies ``attention``, which is non-local or the identity, as it sees the entire image.
    """

    def __init__(self, num_feat: int, non_local: bool):
        super().__init__()
        # the authors' softmax runs over the queries, and their weights need it
        attention = NonLocalAttention(num_feat, 'embedded', softmax_over='queries', zero_init=True)
        self.attention = attention if non_local else nn.Identity()
        self.rb1 = ResidualBlock(num_feat)
        self.down = nn.Conv2d(num_feat, num_feat, 3, 2, 1)
        self.rb2 = nn.Sequential(ResidualBlock(num_feat), ResidualBlock(num_feat))
        self.up = nn.ConvTranspose2d(num_feat, num_feat, 6, 2, 2)
        self.rb3 = ResidualBlock(num_feat)
        self.last = nn.Conv2d(num_feat, num_feat, 1)

    def forward(self, attended: Tensor) -> Tensor:
        skip = self.rb1(attended)
        out = self.up(self.rb2(self.down(skip)))
        out = out[..., : skip.shape[2], : skip.shape[3]]  # an odd size comes back larger by one
        return self.last(self.rb3(out + skip)).sigmoid()


class NonLocalAttentionBlock(nn.Module):
    """Residual (non-)local attention block, equations 5 to 7, and the conv after it. Keeps N×C×H×W."""

    def __init__(self, num_feat: int, non_local: bool):
        super().__init__()
        self.head = ResidualBlock(num_feat)
        self.trunk = nn.Sequential(ResidualBlock(num_feat), ResidualBlock(num_feat))
        self.mask = NonLocalMaskBranch(num_feat, non_local)
        self.tail = nn.Sequential(ResidualBlock(num_feat), ResidualBlock(num_feat))
        self.conv = nn.Conv2d(num_feat, num_feat, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.after_attention(x, self.mask.attention(x))

    def after_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        return self.conv(self.tail(self.trunk(x) * self.mask(attended) + x))

    def by_parts(self, x: Tensor, runner) -> Tensor:
        x = runner.map(self.head, x, reach=2)
        return runner.map(self.after_attention, x, self.mask.attention(x), reach=22, alignment=2)


@ARCH_REGISTRY.register()
class RNAN(nn.Module):
    """Residual non-local attention network: the first and the last block attend to the entire image.

    N×C×H×W in [0, 1] → N×C×sH×sW; any H and W of at least 1. Layers have torch's default initialisation; the last
    conv of each non-local attention is initialised to zero, so that it starts as the identity.

    Source: Zhang et al., "Residual Non-local Attention Networks for Image Restoration" (ICLR 2019), section 3.
    Deviations: as in the authors' code the softmax runs over the queries; odd sizes work; the mean shift is fixed.

    Args:
        num_in_ch, num_out_ch: channels of the images; as many as ``rgb_mean`` has values.
        num_feat: channels of the features; a multiple of 2.
        num_block: attention blocks, at least 2; the first and the last are non-local.
        upscale: 2, 3 or 4.
        img_range, rgb_mean: the network works on (x − rgb_mean) · img_range.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 10,
        upscale: int = 4,
        img_range: float = 255.0,
        rgb_mean: tuple[float, ...] = (0.4488, 0.4371, 0.4040),
    ):
        super().__init__()
        check_counts(num_feat=num_feat, num_block=num_block)
        if num_block < 2:
            raise ValueError(f'num_block must be at least 2 (the first and the last), got {num_block}')
        check_choice((2, 3, 4), upscale=upscale)
        check_images(num_in_ch, num_out_ch, img_range, rgb_mean)

        self.reach = 6 + 22 * num_block
        self.alignment = 2  # the masks halve the image
        self.shift = MeanShift(rgb_mean, img_range)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.block_first = NonLocalAttentionBlock(num_feat, non_local=True)
        self.body = nn.Sequential(*[NonLocalAttentionBlock(num_feat, non_local=False) for _ in range(num_block - 2)])
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.block_last = NonLocalAttentionBlock(num_feat, non_local=True)
        self.upsample = Upsampler(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def shallow(self, x: Tensor) -> Tensor:
        return self.conv_first(self.shift(x))

    def reconstruct(self, features: Tensor, shallow: Tensor) -> Tensor:
        return self.shift.undo(self.conv_last(self.upsample(features + shallow)))

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.shallow(x)
        return self.reconstruct(self.block_last(self.conv_after_body(self.body(self.block_first(shallow)))), shallow)

    def by_parts(self, x: Tensor, runner) -> Iterator:
        features = shallow = runner.map(self.shallow, x, reach=1)
        for block in [self.block_first, *self.body]:
            features = block.by_parts(features, runner)
        features = runner.map(self.conv_after_body, features, reach=1)
        return runner.output(self.reconstruct, self.block_last.by_parts(features, runner), shallow, reach=4)

"""RCAN with dual attention: "Dual-Attention GAN with ODE inspired architecture for Super Resolution" (Gao), 4.3."""

from collections.abc import Iterator

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.archs.arguments import check_choice, check_counts, check_images
from earn_plugin.archs.attention import ChannelAttention, NonLocalAttention
from earn_plugin.archs.blocks import MeanShift, ResidualAttentionUnit, ResidualGroup, Upsampler


@ARCH_REGISTRY.register()
class DualAttentionRCAN(nn.Module):
    """RCAN with spatial attention before each channel attention.

    N×C×H×W in [0, 1] → N×C×sH×sW; any H and W of at least 1. Layers have torch's default initialisation. The paper
    does not give the sizes of its small model; the defaults are ours.

    Source: Gao, "Dual-Attention GAN with ODE inspired architecture for Super Resolution", section 4.3; Zhang et al.,
    "Image Super-Resolution Using Very Deep Residual Channel Attention Networks" (ECCV 2018).

    Args:
        num_in_ch, num_out_ch: channels of the images; as many as ``rgb_mean`` has values.
        num_feat: channels of the features; a multiple of ``squeeze_factor`` and of 2.
        num_group: residual groups.
        num_block: attention blocks in a group.
        upscale: 2, 3, 4 or 8.
        non_local_mode: of the spatial attention, 'gaussian' or 'embedded'.
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
        num_group: int = 3,
        num_block: int = 3,
        upscale: int = 4,
        non_local_mode: str = 'gaussian',
        squeeze_factor: int = 16,
        img_range: float = 1.0,
        rgb_mean: tuple[float, ...] = (0.4488, 0.4371, 0.4040),
    ):
        super().__init__()
        check_counts(num_feat=num_feat, num_group=num_group, num_block=num_block)
        check_choice((2, 3, 4, 8), upscale=upscale)
        check_choice(NonLocalAttention.modes, non_local_mode=non_local_mode)
        check_images(num_in_ch, num_out_ch, img_range, rgb_mean)

        def unit() -> nn.Module:
            attention = NonLocalAttention(num_feat, non_local_mode), ChannelAttention(num_feat, squeeze_factor)
            return ResidualAttentionUnit(num_feat, nn.Sequential(*attention))

        self.reach = 4 + num_group * (2 * num_block + 1)
        self.alignment = 1
        self.shift = MeanShift(rgb_mean, img_range)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = nn.Sequential(
            *[ResidualGroup(num_feat, [unit() for _ in range(num_block)]) for _ in range(num_group)]
        )
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.upsample = Upsampler(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def shallow(self, x: Tensor) -> Tensor:
        return self.conv_first(self.shift(x))

    def reconstruct(self, features: Tensor, shallow: Tensor) -> Tensor:
        deep = self.conv_after_body(features) + shallow
        return self.shift.undo(self.conv_last(self.upsample(deep)))

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.shallow(x)
        return self.reconstruct(self.body(shallow), shallow)

    def by_parts(self, x: Tensor, runner) -> Iterator:
        features = shallow = runner.map(self.shallow, x, reach=1)
        for group in self.body:
            features = group.by_parts(features, runner)
        return runner.output(self.reconstruct, features, shallow, reach=5)

"""RK4-RDN: "Dual-Attention GAN with ODE inspired architecture for Super Resolution" (Gao)."""

from collections.abc import Callable, Iterator

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.archs.arguments import check_choice, check_counts, check_images
from earn_plugin.archs.attention import ChannelAttention, NonLocalAttention
from earn_plugin.archs.blocks import Upsampler

ATTENTIONS = ('none', 'spatial', 'channel', 'dual')
COEFFICIENTS = {1: {}, 2: {'one_half': 1 / 2}, 4: {'one_half': 1 / 2, 'one_third': 1 / 3, 'one_sixth': 1 / 6}}


class DenseLayers(nn.Module):
    """3×3 convs with ReLU, each concatenated to its input, and a 1×1 conv back. Keeps N×C×H×W."""

    def __init__(self, num_feat: int, num_grow_ch: int, num_layer: int):
        super().__init__()
        widths = range(num_feat, num_feat + num_grow_ch * num_layer, num_grow_ch)
        self.layers = nn.ModuleList(nn.Conv2d(width, num_grow_ch, 3, 1, 1) for width in widths)
        self.local_fusion = nn.Conv2d(num_feat + num_grow_ch * num_layer, num_feat, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x).relu()], dim=1)
        return self.local_fusion(x)


class RungeKuttaBlock(nn.Module):
    """One step of y' = f(y) by a Runge-Kutta method with learned coefficients. Keeps N×C×H×W.

    The coefficients are initialised to the textbook values.
    """

    def __init__(self, function: nn.Module, order: int):
        super().__init__()
        self.function = function
        self.order = order
        for name, value in COEFFICIENTS[order].items():
            self.register_parameter(name, nn.Parameter(torch.tensor([value])))

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, self.function)

    def step(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        k1 = f(x)
        if self.order == 1:
            return x + k1
        if self.order == 2:
            return x + self.one_half * (k1 + f(x + k1))
        k2 = f(x + self.one_half * k1)
        k3 = f(x + self.one_half * k2)
        k4 = f(x + k3)
        return x + self.one_sixth * (k1 + k4) + self.one_third * (k2 + k3)

    def by_parts(self, x: Tensor, runner) -> Tensor:
        dense, *attentions = self.function

        def function(x: Tensor) -> Tensor:
            x = runner.map(dense, x, reach=len(dense.layers))
            for attention in attentions:
                x = attention(x)
            return x

        return self.step(x, function)


@ARCH_REGISTRY.register()
class RK4RDN(nn.Module):
    """Residual dense network whose blocks are steps of a Runge-Kutta method, with dual attention.

    N×C×H×W in [0, 1] → N×C×sH×sW; any H and W of at least 1. Layers have torch's default initialisation.

    Source: Gao, "Dual-Attention GAN with ODE inspired architecture for Super Resolution", sections 3.1 to 3.3; for the
    frame Zhang et al., "Residual Dense Network for Image Super-Resolution" (CVPR 2018).

    Args:
        num_in_ch, num_out_ch: channels of the images; must be equal.
        num_feat: channels of the features; a multiple of ``squeeze_factor`` and of 2.
        num_grow_ch: channels that each dense layer adds.
        num_block: Runge-Kutta blocks.
        num_layer: dense layers in a block.
        upscale: 2, 3 or 4.
        order: of the Runge-Kutta method: 1 (Euler), 2 (Heun) or 4 (Runge-Kutta).
        attention: 'none', 'spatial', 'channel' or 'dual'.
        non_local_mode: of the spatial attention, 'gaussian' or 'embedded'.
        squeeze_factor: reduction of the channels in the channel attention.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_grow_ch: int = 16,
        num_block: int = 4,
        num_layer: int = 6,
        upscale: int = 4,
        order: int = 4,
        attention: str = 'dual',
        non_local_mode: str = 'gaussian',
        squeeze_factor: int = 8,
    ):
        super().__init__()
        check_images(num_in_ch, num_out_ch)
        check_counts(num_feat=num_feat, num_grow_ch=num_grow_ch, num_block=num_block, num_layer=num_layer)
        check_choice((2, 3, 4), upscale=upscale)
        check_choice(tuple(COEFFICIENTS), order=order)
        check_choice(ATTENTIONS, attention=attention)
        check_choice(NonLocalAttention.modes, non_local_mode=non_local_mode)

        def function() -> nn.Module:
            """f: dense layers, then spatial, then channel attention."""
            parts: list[nn.Module] = [DenseLayers(num_feat, num_grow_ch, num_layer)]
            if attention in ('spatial', 'dual'):
                parts.append(NonLocalAttention(num_feat, non_local_mode))
            if attention in ('channel', 'dual'):
                parts.append(ChannelAttention(num_feat, squeeze_factor, bias=False))
            return nn.Sequential(*parts)

        self.reach = 5 + num_block * order * num_layer
        self.alignment = 1
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.conv_second = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.body = nn.ModuleList(RungeKuttaBlock(function(), order) for _ in range(num_block))
        self.global_fusion = nn.Sequential(
            nn.Conv2d(num_feat * num_block, num_feat, 1), nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        )
        self.upsample = Upsampler(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def reconstruct(self, shallow: Tensor, *outputs: Tensor) -> Tensor:
        """The result from the outputs of the blocks."""
        deep = self.global_fusion(torch.cat(outputs, dim=1)) + shallow
        return self.conv_last(self.upsample(deep))

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.conv_first(x)
        deep = self.conv_second(shallow)
        outputs = []
        for block in self.body:
            deep = block(deep)
            outputs.append(deep)
        return self.reconstruct(shallow, *outputs)

    def by_parts(self, x: Tensor, runner) -> Iterator:
        shallow = runner.map(self.conv_first, x, reach=1)
        deep = runner.map(self.conv_second, shallow, reach=1)
        outputs = []
        for block in self.body:
            deep = block.by_parts(deep, runner)
            outputs.append(deep)
        return runner.output(self.reconstruct, shallow, *outputs, reach=5)

"""What the networks share: bands of rows, mean shift, residual blocks, bottleneck, upsampler."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earn_plugin.archs.arguments import check_counts, check_multiple

# Of the widest map of a band; the fastest of several on a processor with 32 MiB of cache. All maps of a band then have
# more than the 20,480 values below which torch takes convs that round differently.
BAND_BYTES = 2**23


def is_traced() -> bool:
    """Whether a trace or an export records the operators, so that loops over parts of the image would fix its size."""
    is_exporting = getattr(getattr(torch, 'compiler', None), 'is_exporting', bool)  # which torch 1.13 lacks
    return torch.jit.is_tracing() or is_exporting()


def in_bands(function, *maps: Tensor, reach: int, width: int, upscale: int = 1) -> Tensor:
    """function(*maps), where maps are N×C×H×W each and the result N×C'×sH×sW, computed in bands of rows on a CPU.

    The maps between the function's layers then stay in the processor's cache. Bands overlap by the layers' receptive
    field, so the result is the same. With gradients enabled, in a trace or an export, and on other devices the image is
    processed at once.

    Args:
        reach: rows above and below a pixel of the maps that its result depends on.
        width: channels of the widest map between the layers, for each pixel of the maps.
        upscale: s.
    """
    x = maps[0]
    if x.device.type != 'cpu' or torch.is_grad_enabled() or is_traced():
        return function(*maps)
    n, _, h, w = x.shape
    count = -(-h // max(8 * reach, BAND_BYTES // (n * w * width * x.element_size())))
    if count == 1:
        return function(*maps)
    rows = -(-h // count)  # bands of about the same height
    out = None
    for top in range(0, h, rows):
        start = max(0, top - reach)
        band = function(*(part[:, :, start : top + rows + reach] for part in maps))
        if out is None:
            size = (n, band.shape[1], h * upscale, w * upscale)
            out = torch.empty(size, dtype=band.dtype, memory_format=torch.channels_last)
        height = min(rows, h - top) * upscale
        above = (top - start) * upscale
        out[:, :, top * upscale : top * upscale + height] = band[:, :, above : above + height]
    return out


def spatial_mean(x: Tensor) -> Tensor:
    """Mean over rows and columns: N×C×H×W → N×C.

    In inference it is summed in float64, so that it does not depend on the parts in which an image is processed.
    """
    if torch.is_grad_enabled() or is_traced() or x.device.type not in ('cpu', 'cuda'):
        return x.mean((2, 3))
    n, c, h, w = x.shape
    rows = h if x.is_cuda else max(1, 2**17 // (n * c * w))  # whose copy in float64 stays in the cache
    total = sum(part.sum((2, 3), dtype=torch.float64) for part in x.split(rows, 2))
    return (total / (h * w)).to(x.dtype)


def bilinear(x: Tensor, scale: int) -> Tensor:
    """Bilinear upsampling by 2, 3 or 4: N×C×H×W → N×C×sH×sW; pixels are areas, the border is repeated.

    At ×3 ``F.interpolate`` rounds its coordinates, the more the farther they are from the first pixel, so that tiles
    would differ from the whole image.
    """
    if scale != 3 or is_traced():
        return F.interpolate(x, scale_factor=scale, mode='bilinear', align_corners=False)
    for dim in (2, 3):
        x = x.transpose(2, dim)
        before, after = torch.cat([x[:, :, :1], x[:, :, :-1]], 2), torch.cat([x[:, :, 1:], x[:, :, -1:]], 2)
        x = torch.stack([(before + 2 * x) / 3, x, (2 * x + after) / 3], 3).flatten(2, 3).transpose(2, dim)
    return x


class MeanShift(nn.Module):
    """Shift and scale images from [0, 1] to the network's range around the data set's mean, and back.

    The shift is constant, so it is a buffer outside the state dict. As in the authors' networks it is rounded to
    float32 once, whatever precision the network runs in.
    """

    def __init__(self, rgb_mean: tuple[float, ...], img_range: float):
        super().__init__()
        self.img_range = img_range
        mean = torch.tensor(rgb_mean, dtype=torch.float32) * img_range
        self.register_buffer('mean', mean.view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.img_range - self.mean

    def undo(self, x: Tensor) -> Tensor:
        return (x + self.mean) / self.img_range


class ResidualBlock(nn.Module):
    """conv, ReLU, conv, + input, and a final ReLU if ``relu_out``. Keeps N×C×H×W."""

    def __init__(self, num_feat: int, relu_out: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.relu_out = relu_out

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x).relu()) + x
        return out.relu() if self.relu_out else out


class ResidualAttentionUnit(ResidualBlock):
    """conv, ReLU, conv, attention, + input: RCAN's RCAB, with any attention. Keeps N×C×H×W."""

    def __init__(self, num_feat: int, attention: nn.Module):
        super().__init__(num_feat)
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.convs(x)) + x

    def convs(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x).relu())

    def by_parts(self, x: Tensor, runner) -> None:
        """The same in place."""
        x += self.attention(runner.map(self.convs, x, reach=2))


class ResidualGroup(nn.Module):
    """Blocks in sequence, conv, + input: RCAN's group. Keeps N×C×H×W."""

    def __init__(self, num_feat: int, blocks: list[nn.Module]):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.conv = nn.Conv2d(num_feat, num_feat, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.blocks(x)) + x

    def by_parts(self, x: Tensor, runner) -> Tensor:
        deep = x.clone()
        for block in self.blocks:
            block.by_parts(deep, runner)
        return runner.update(lambda deep, x: self.conv(deep) + x, deep, x, reach=1)


class EfficientResidualBlock(nn.Module):
    """Two grouped 3×3 convs and a 1×1 conv, each followed by a ReLU; the skip is added before the last ReLU.

    Source: CARN, "Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual Network" (ECCV 2018),
    section 3.3. Keeps N×C×H×W.
    """

    def __init__(self, num_feat: int, groups: int):
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1, groups=groups)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1, groups=groups)
        self.conv3 = nn.Conv2d(num_feat, num_feat, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x).relu()).relu()
        return (self.conv3(out) + x).relu()


class Bottleneck(nn.Sequential):
    """1×1 conv from C to C/squeeze_factor channels, ReLU, 1×1 conv back: the core of channel and pixel attentions."""

    def __init__(self, num_feat: int, squeeze_factor: int, bias: bool = True):
        check_counts(squeeze_factor=squeeze_factor)
        check_multiple(squeeze_factor, 'squeeze_factor', num_feat=num_feat)
        squeezed = num_feat // squeeze_factor
        super().__init__(
            nn.Conv2d(num_feat, squeezed, 1, bias=bias), nn.ReLU(), nn.Conv2d(squeezed, num_feat, 1, bias=bias)
        )


class Upsampler(nn.Sequential):
    """Sub-pixel upsampling: N×C×H×W → N×C×sH×sW by 3×3 conv and PixelShuffle; powers of 2 in steps of 2."""

    def __init__(self, upscale: int, num_feat: int):
        steps = [3] if upscale == 3 else [2] * (upscale.bit_length() - 1)
        layers = []
        for step in steps:
            layers += [nn.Conv2d(num_feat, num_feat * step**2, 3, 1, 1), nn.PixelShuffle(step)]
        super().__init__(*layers)

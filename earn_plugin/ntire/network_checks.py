"""Whether a network fits the challenge: ×4 in RGB, images of any size, the right data range."""

import torch
from torch import nn
from torch.nn import functional as F

from earn_plugin.convert.networks import output_of
from earn_plugin.errors import UserError
from earn_plugin.metrics.ntire_metrics import SCALE
from earn_plugin.ntire.official_run import as_official_input
from earn_plugin.own_code import lacks_cuda

SIZES = ((24, 20), (17, 33))
CREDIBLE, FAR_BETTER = 40, 6  # dB: what trained weights reach with the right range, and by how much it is better


def check_network(network: nn.Module, data_range: float, trained: bool) -> None:
    """``check_scale``, and ``check_data_range`` if the weights are trained."""
    check_scale(network, data_range)
    if trained:
        check_data_range(network, data_range)


def check_scale(network: nn.Module, data_range: float) -> None:
    """Raise UserError unless the output is an RGB image four times as large, for images of any size."""
    for height, width in SIZES:
        try:
            with torch.no_grad():
                shape = tuple(output_of(network, as_official_input(torch.rand(height, width, 3)) * data_range).shape)
        except UserError as error:
            if isinstance(error.__cause__, NameError) or lacks_cuda(error.__cause__):  # whatever the image
                raise
            raise UserError(
                f"the network does not take an RGB image of {height}×{width} in the organisers' memory layout, H×W×3 "
                f'({error}); test images have any size: pad the input and crop the output in the network, and use '
                '`reshape` where a `view` fails'
            ) from error
        if shape != (1, 3, SCALE * height, SCALE * width):
            raise UserError(
                f'the output for 1×3×{height}×{width} is {"×".join(map(str, shape))}, so this is a network for '
                f'×{shape[-1] / width:g}; the challenge is ×{SCALE} in RGB'
            )


def check_data_range(network: nn.Module, data_range: float) -> None:
    """Raise UserError if trained weights do far better with the other data range."""
    y, x = torch.meshgrid(torch.linspace(0, 6, 48), torch.linspace(0, 5, 40), indexing='ij')
    image = torch.stack([0.5 + 0.3 * torch.sin(x + k) * torch.cos(y - k) for k in range(3)])[None]
    enlarged = F.interpolate(image, scale_factor=SCALE, mode='bicubic')  # so smooth an image has no other details

    def psnr(scale: float) -> float:
        with torch.no_grad():
            output = (network(image * scale) / scale).clamp(0, 1)
        return -10 * ((output - enlarged) ** 2).mean().clamp(min=1e-10).log10().item()

    other = 1.0 if data_range == 255 else 255.0
    given, better = psnr(data_range), psnr(other)
    if better > max(CREDIBLE, given + FAR_BETTER):
        raise UserError(
            f'the data range is wrong: a test image reaches {given:.1f} dB with [0, {data_range:g}], but {better:.1f} '
            f'dB with [0, {other:g}]; use --data-range {other:g}'
        )

"""The discriminator of SRGAN, for images of any size."""

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.archs.arguments import check_counts


@ARCH_REGISTRY.register()
class SRGANDiscriminator(nn.Module):
    """Classifies images as real or generated.

    N×C×H×W in [0, 1] → N×1 logits; any H and W of at least 1. 5,215,425 parameters with the defaults. In training,
    batch norm needs two values per channel: two images, or one with more than 16 pixels on a side.

    Source: SRGAN, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network" (CVPR 2017),
    figure 4, as in https://github.com/leftthomas/SRGAN, which the code of the ODE paper uses: the features are averaged
    over the image instead of flattened, so any size works. The parameters have that code's names. Deviation: the final
    sigmoid is part of the loss.

    Args:
        num_in_ch: channels of the images.
        num_feat: channels of the first features; three doublings follow.

    Raises:
        ValueError: an argument is not an integer of at least 1.
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64):
        super().__init__()
        check_counts(num_in_ch=num_in_ch, num_feat=num_feat)

        def normalised(in_ch: int, out_ch: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(in_ch, out_ch, 3, stride, 1), nn.BatchNorm2d(out_ch), nn.LeakyReLU(0.2, inplace=True)]

        layers = [nn.Conv2d(num_in_ch, num_feat, 3, 1, 1), nn.LeakyReLU(0.2, inplace=True)]
        for width in (num_feat, 2 * num_feat, 4 * num_feat):
            layers += normalised(width, width, stride=2) + normalised(width, 2 * width, stride=1)
        layers += normalised(8 * num_feat, 8 * num_feat, stride=2)
        layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(8 * num_feat, 16 * num_feat, 1), nn.LeakyReLU(0.2, inplace=True)]
        self.net = nn.Sequential(*layers, nn.Conv2d(16 * num_feat, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).flatten(1)

"""A2N computed as in its authors' code: the slow reference for the fused form, and its speed compared with ours.

python -m tests.benchmarks.a2n_as_published [--size 96 96] [--repeats 7] [--threads 2]

Each branch is computed by itself, in contiguous memory; activations are in place. The weights are our network's.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from earn_plugin.archs.a2n_arch import A2N
from tests.benchmarks.lgvan_as_published import compare


def lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=True)


def attention_branch(x: Tensor, part: nn.Module) -> Tensor:
    mask = part.conv_mask2(lrelu(part.conv_mask1(x))).sigmoid()
    return part.conv_last(part.conv(x) * mask)


def block(x: Tensor, part: nn.Module) -> Tensor:
    entered = lrelu(part.conv_first(x))
    if part.dynamic_attention is None:
        weights = part.fixed_weights.expand(len(x), 2)
    else:
        squeeze, _, excite = part.dynamic_attention
        weights = (excite(F.relu(squeeze(F.adaptive_avg_pool2d(entered, 1).flatten(1)))) / 30).softmax(1)
    first, second = (weights[:, n].view(-1, 1, 1, 1) for n in (0, 1))
    out = attention_branch(entered, part.attention) * first + part.non_attention(entered) * second
    return part.conv_last(lrelu(out)) + x


def upsampled(x: Tensor, part: nn.Module) -> Tensor:
    x = part.conv1(F.interpolate(x, scale_factor=part.scale, mode='nearest'))
    return lrelu(part.conv2(lrelu(x * part.attention(x).sigmoid())))


def as_published(network: A2N, x: Tensor) -> Tensor:
    x = x * network.img_range
    shallow = out = network.conv_first(x)
    for part in network.body:
        out = block(out, part)
    out = network.conv_after_body(out) + shallow
    for part in network.upsample:
        out = upsampled(out, part)
    skip = F.interpolate(x, scale_factor=network.upscale, mode='bilinear', align_corners=False)
    return (network.conv_last(out) + skip) / network.img_range


if __name__ == '__main__':
    compare(__doc__, A2N, as_published, size=(96, 96))

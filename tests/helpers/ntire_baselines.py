"""IMDN and RFDN, the baselines of the challenge's first years, written from their papers, to check the counters."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(cin, cout, kernel=3, **settings):
    return nn.Conv2d(cin, cout, kernel, padding=settings.pop('padding', kernel // 2), **settings)


class InformationMultiDistillation(nn.Module):
    """Each step keeps a quarter of the channels, and the next step continues with the rest."""

    def __init__(self, c):
        super().__init__()
        kept, rest = c // 4, c - c // 4
        self.steps = nn.ModuleList(nn.Sequential(conv(cin, c), nn.LeakyReLU(0.05)) for cin in (c, rest, rest))
        self.last, self.fuse = conv(rest, kept), conv(4 * kept, c, 1)
        self.sizes = [kept, rest]

    def forward(self, x):
        parts, rest = [], x
        for step in self.steps:
            part, rest = step(rest).split(self.sizes, 1)
            parts.append(part)
        return x + self.fuse(torch.cat([*parts, self.last(rest)], 1))


class IMDN(nn.Module):
    def __init__(self, c=64, blocks=8):
        super().__init__()
        self.head = conv(3, c)
        self.body = nn.Sequential(*[InformationMultiDistillation(c) for _ in range(blocks)], conv(c, c))
        self.tail = nn.Sequential(conv(c, 48), nn.PixelShuffle(4))

    def forward(self, x):
        x = self.head(x)
        return self.tail(self.body(x) + x)


class EnhancedSpatialAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        f = c // 4
        self.squeeze, self.skip, self.expand = conv(c, f, 1), conv(f, f, 1), conv(f, c, 1)
        self.down, self.relu = conv(f, f, stride=2, padding=0), nn.ReLU()
        self.pooled = nn.Sequential(conv(f, f), self.relu, conv(f, f), self.relu, conv(f, f))

    def forward(self, x):
        small = self.squeeze(x)
        wide = self.pooled(F.max_pool2d(self.down(small), 7, 3))
        wide = F.interpolate(wide, x.shape[2:], mode='bilinear', align_corners=False)
        return x * self.expand(wide + self.skip(small)).sigmoid()


class ResidualFeatureDistillation(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.distil = nn.ModuleList(conv(c, c // 2, 1) for _ in range(3))
        self.refine = nn.ModuleList(conv(c, c) for _ in range(3))
        self.last, self.fuse, self.attention = conv(c, c // 2), conv(2 * c, c, 1), EnhancedSpatialAttention(c)
        self.act = nn.LeakyReLU(0.05)

    def forward(self, x):
        parts = []
        for distil, refine in zip(self.distil, self.refine, strict=True):
            parts.append(self.act(distil(x)))
            x = self.act(refine(x) + x)
        return self.attention(self.fuse(torch.cat([*parts, self.act(self.last(x))], 1)))


class RFDN(nn.Module):
    def __init__(self, c=50, blocks=4):
        super().__init__()
        self.head = conv(3, c)
        self.blocks = nn.ModuleList(ResidualFeatureDistillation(c) for _ in range(blocks))
        self.fuse = nn.Sequential(conv(blocks * c, c, 1), nn.LeakyReLU(0.05), conv(c, c))
        self.tail = nn.Sequential(conv(c, 48), nn.PixelShuffle(4))

    def forward(self, x):
        shallow = x = self.head(x)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return self.tail(self.fuse(torch.cat(outputs, 1)) + shallow)

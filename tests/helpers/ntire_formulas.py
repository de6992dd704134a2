"""What the module hooks of NTIRE count for each network at H×W, by hand, from the papers and not from the code.

Of the activations, those in bottlenecks (channel and pixel attentions, A2N's branch weights) are ReLU modules, and so
is LGVAN's last one; all others are functional, which the hooks do not count.
"""

import math


class Tally:
    """Multiply-adds, activations and conv calls, added up by hand."""

    def __init__(self):
        self.multiply_adds = self.activations = self.convs = 0

    def conv(self, kernel, cin, cout, height, width, groups=1, times=1):
        """``kernel``: side of a square, or taps; cin·cout/groups weights a tap, at each of the output's pixels."""
        taps = kernel * kernel if isinstance(kernel, int) else math.prod(kernel)
        self.multiply_adds += times * taps * cin * (cout // groups) * height * width
        self.activations += times * cout * height * width
        self.convs += times

    def elements(self, number, times=1):
        self.multiply_adds += times * number

    def bottleneck(self, c, reduction, height, width, times=1):
        self.conv(1, c, c // reduction, height, width, times=times)
        self.elements(c // reduction * height * width, times)
        self.conv(1, c // reduction, c, height, width, times=times)

    def tail(self, c, scale, height, width):
        """Sub-pixel upsampling, powers of 2 in steps of 2, and the last conv."""
        for step in [2] * int(math.log2(scale)) if scale != 3 else [3]:
            self.conv(3, c, c * step * step, height, width)
            height, width = height * step, width * step
        self.conv(3, c, 3, height, width)


def half(length):
    return (length + 1) // 2  # a 3×3 conv, stride 2, padding 1


def earn(h, w, c=64, blocks=4, scale=4, released=False):
    t = Tally()
    groups = c if released else c // 4
    t.conv(3, 3, c, h, w)
    for _ in range(blocks):
        t.bottleneck(c, 16, 1, 1, times=3)  # ASCA's three squeeze-excitations
        t.conv(1, 2 * c, c, 1, 1)
        if not released:
            t.bottleneck(c, 16, h, w)  # pixel attention
        t.conv(3, c, c, h, w, times=2 * (5 + 2 * released))  # residual blocks: 1, trunk 2, tail 2 (2 before ASCA)
        for height, width in ((h, w), (half(h), half(w)), (h, w)):  # ERBs
            t.conv(3, c, c, height, width, groups=groups, times=2)
            t.conv(1, c, c, height, width)
        t.conv(1, c, c, h, w)  # queries
        t.conv(1, c, c, h + 2, w + 2, times=2)  # keys and values of the padded input
        t.conv(3, c, c, half(h), half(w))
        t.conv(1, c // 4, c, h, w)
        t.conv(1, c, c, h, w)
    t.conv(3, c, c, h, w)
    t.tail(c, scale, h, w)
    return t


def rnan(h, w, c=64, blocks=10, scale=4):
    t = Tally()
    t.conv(3, 3, c, h, w)
    for block in range(blocks):
        t.conv(3, c, c, h, w, times=2 * 5)  # residual blocks: 1, trunk 2, tail 2
        t.conv(3, c, c, h, w, times=2 * 2)  # the mask's at full size
        if block in (0, blocks - 1):
            t.conv(1, c, c // 2, h, w, times=3)
            t.conv(1, c // 2, c, h, w)
        t.conv(3, c, c, half(h), half(w), times=1 + 2 * 2)
        t.conv(6, c, c, 2 * half(h), 2 * half(w))  # transposed
        t.conv(1, c, c, h, w)
        t.conv(3, c, c, h, w)  # after the block
    t.conv(3, c, c, h, w)
    t.tail(c, scale, h, w)
    return t


def lgvan(h, w, c=32, blocks=9, scale=4):
    t = Tally()
    t.conv(3, 3, c, h, w)
    for _ in range(blocks):
        t.conv(1, c, c, h, w, times=4)  # in and out, of the block and of LGCA
        t.conv(5, c, c, h, w, groups=c, times=2)
        for k in (5, 3):
            t.conv((1, k), c, c, h + k - 1, w - k + 1, groups=c)
            t.conv((k, 1), c, c, h, w, groups=c)
        t.conv(1, c, 2 * c, h, w)
        t.conv(3, 2 * c, 2 * c, h, w, groups=2 * c)
        t.conv(1, 2 * c, c, h, w)
    t.conv(3, c, c, h, w, groups=2)
    for step in [2, 2] if scale == 4 else [scale]:
        t.conv(1, c, c * step * step, h, w)
        h, w = h * step, w * step
    t.elements(c * h * w)  # LeakyReLU
    t.conv(3, c, 3, h, w)
    return t


def a2n(h, w, c=40, tail=24, blocks=16, scale=4):
    t = Tally()
    t.conv(3, 3, c, h, w)
    for _ in range(blocks):
        t.conv(1, c, c, h, w, times=3)  # first, last, and before the sigmoid
        t.elements(c * c // 4 + c // 4 + c // 4 * 2)  # Linear, ReLU, Linear
        t.conv(3, c, c, h, w, times=4)  # three of the attention branch, one of the other
    t.conv(3, c, c, h, w)
    for step in [2, 2] if scale == 4 else [scale]:
        h, w = h * step, w * step
        t.conv(3, c, tail, h, w)
        t.conv(1, tail, tail, h, w)
        t.conv(3, tail, tail, h, w)
        c = tail
    t.conv(3, c, 3, h, w)
    return t


def han(h, w, c=64, groups=10, blocks=20, scale=4):
    t = Tally()
    t.conv(3, 3, c, h, w)
    for _ in range(groups):
        t.conv(3, c, c, h, w, times=2 * blocks + 1)
        t.bottleneck(c, 16, 1, 1, times=blocks)
    t.conv(3, c, c, h, w)
    t.conv(3, (groups + 1) * c, c, h, w)
    t.conv(3, 2 * c, c, h, w)  # the 3-D conv counts nothing
    t.tail(c, scale, h, w)
    return t


def rk4rdn(h, w, c=64, growth=16, blocks=4, layers=6, order=4, scale=4):
    t = Tally()
    t.conv(3, 3, c, h, w)
    t.conv(3, c, c, h, w)
    for _ in range(blocks * order):  # an evaluation of f for each order
        for layer in range(layers):
            t.conv(3, c + layer * growth, growth, h, w)
        t.conv(1, c + layers * growth, c, h, w)
        t.conv(1, c, c // 2, h, w)
        t.conv(1, c // 2, c, h, w)
        t.bottleneck(c, 8, 1, 1)
    t.conv(1, blocks * c, c, h, w)
    t.conv(3, c, c, h, w)
    t.tail(c, scale, h, w)
    return t


def dual_attention_rcan(h, w, c=64, groups=3, blocks=3, scale=4):
    t = Tally()
    t.conv(3, 3, c, h, w)
    for _ in range(groups):
        t.conv(3, c, c, h, w, times=2 * blocks + 1)
        t.conv(1, c, c // 2, h, w, times=blocks)
        t.conv(1, c // 2, c, h, w, times=blocks)
        t.bottleneck(c, 16, 1, 1, times=blocks)
    t.conv(3, c, c, h, w)
    t.tail(c, scale, h, w)
    return t

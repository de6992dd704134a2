"""The attentions that the networks share. All keep N×C×H×W, and work for any H and W of at least 1."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from earn_plugin.archs.arguments import check_multiple
from earn_plugin.archs.blocks import Bottleneck, is_traced


def channel_mean_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased standard deviation of each channel: N×C×H×W → two of N×C×1×1.

    The gradient of the deviation of a constant channel is 0, where plain autograd gives NaN.
    """
    var, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    varies = var > 0
    std = torch.where(varies, var, torch.ones_like(var)).sqrt()
    return mean, torch.where(varies, std, torch.zeros_like(std))


class AdaptivelyScaledChannelAttention(nn.Module):
    """ASCA: scales each channel by a function of the means and standard deviations of all channels.

    Source: EARN ("Efficient Multi-Attention Residual Network for Image Super Resolution"), section 3, equation 2,
    figure 3b.
    """

    def __init__(self, num_feat: int, squeeze_factor: int = 16):
        super().__init__()
        self.se_mean = Bottleneck(num_feat, squeeze_factor)
        self.se_std = Bottleneck(num_feat, squeeze_factor)
        self.merge = nn.Conv2d(2 * num_feat, num_feat, 1)
        self.se_merged = Bottleneck(num_feat, squeeze_factor)

    def forward(self, x: Tensor) -> Tensor:
        mean, std = channel_mean_std(x)
        descriptor = torch.cat([self.se_std(std), self.se_mean(mean)], dim=1)  # N×2C×1×1
        return x * self.se_merged(self.merge(descriptor).relu()).sigmoid()


class PixelAttention(nn.Module):
    """PA: scales each value by a bottleneck and a sigmoid of its pixel."""

    def __init__(self, num_feat: int, squeeze_factor: int = 16):
        super().__init__()
        self.bottleneck = Bottleneck(num_feat, squeeze_factor)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.bottleneck(x).sigmoid()


class ChannelAttention(nn.Module):
    """CA: scales each channel by a bottleneck and a sigmoid of the means of all channels.

    Source: RCAN, "Image Super-Resolution Using Very Deep Residual Channel Attention Networks" (ECCV 2018), section
    3.3; without biases it is the squeeze-and-excitation of Hu et al. (CVPR 2018).
    """

    def __init__(self, num_feat: int, squeeze_factor: int = 16, bias: bool = True):
        super().__init__()
        self.bottleneck = Bottleneck(num_feat, squeeze_factor, bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.bottleneck(x.mean((2, 3), keepdim=True)).sigmoid()


class NonLocalAttention(nn.Module):
    """Non-local block: z = x + W·softmax(θ(x)ᵀφ(x))·g(x).

    The HW×HW attention matrix, 17 GB at 256×256, is never materialised, not even in training.

    Source: Wang et al., "Non-local Neural Networks" (CVPR 2018), equations 2 to 6.

    Args:
        num_feat: channels C; g(x) has C/2.
        mode: 'gaussian' for θ(x) = φ(x) = x, 'embedded' for 1×1 convs to C/2 channels.
        softmax_over: the attention weights sum to 1 over the 'keys' of each query, or, as in RNAN, over the 'queries'
            of each key.
        zero_init: whether W is initialised to zero, so that the block starts as the identity.
    """

    modes = ('gaussian', 'embedded')

    def __init__(self, num_feat: int, mode: str = 'gaussian', softmax_over: str = 'keys', zero_init: bool = False):
        super().__init__()
        check_multiple(2, 'the non-local attention halves them', num_feat=num_feat)
        self.softmax_over = softmax_over
        self.value = nn.Conv2d(num_feat, num_feat // 2, 1)
        self.project = nn.Conv2d(num_feat // 2, num_feat, 1)
        if zero_init:
            nn.init.zeros_(self.project.weight)
            nn.init.zeros_(self.project.bias)
        embedded = mode == 'embedded'
        self.query = nn.Conv2d(num_feat, num_feat // 2, 1) if embedded else nn.Identity()
        self.key = nn.Conv2d(num_feat, num_feat // 2, 1) if embedded else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.query(x), self.key(x)
        if self.softmax_over == 'queries':
            return self.project(attend(attention_over_queries, query, key, self.value(x))) + x
        if query.shape[1] == self.value.out_channels:
            return self.project(attend(attention_over_keys, query, key, self.value(x))) + x
        # torch's fused attention needs values as wide as keys; a weighted mean and a 1×1 conv commute
        return self.project(self.value(attend(attention_over_keys, query, key, x))) + x


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context in which operators keep the precision of their inputs; the meta device has no autocast."""
    return nullcontext() if x.device.type == 'meta' else torch.autocast(x.device.type, enabled=False)


def attend(attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention between all pixels of an image, N×C×H×W each; half precision is computed in float32.

    Except on a GPU over keys, where torch's kernels for half precision sum in float32.
    """
    sums_wide = query.is_cuda and attention is attention_over_keys
    with without_autocast(query):
        rows = [
            tensor.float() if tensor.element_size() == 2 and not sums_wide else tensor for tensor in (query, key, value)
        ]
        out = attention(*(tensor.flatten(2).transpose(1, 2) for tensor in rows))
    # contiguous: for a conv of one transposed image torch.compile assumes wrong strides, and reads out of bounds
    return out.transpose(1, 2).contiguous().unflatten(2, query.shape[2:]).to(query.dtype)


def attention_over_keys(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax over keys of query·key, times value: N×L×C each → N×L×C. The dot products are not scaled."""
    query, key, value = (tensor.contiguous()[:, None] for tensor in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]


# Products of keys and queries computed at once: few enough for a processor's cache, enough to keep a GPU busy.
CHUNK = {'cpu': 2**20, 'other': 2**26}


def attention_over_queries(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same with the softmax over the queries of each key, N×L×C each → N×L×C, in chunks of keys."""
    number, length, _ = query.shape
    if not isinstance(length, int) and not torch.jit.is_tracing():  # an export would fix the number of chunks
        return weighted_by_queries(query, key, value)
    chunk = max(1, CHUNK['cpu' if query.device.type == 'cpu' else 'other'] // (number * length))
    out = torch.zeros_like(value)
    for start in range(0, length, chunk):
        keys, values = key[:, start : start + chunk], value[:, start : start + chunk]
        if torch.is_grad_enabled() and (query.requires_grad or keys.requires_grad or values.requires_grad):
            # the weights are computed again in the backward pass
            out = out + checkpoint(
                weighted_by_queries, query, keys, values, use_reentrant=False, preserve_rng_state=False
            )
        else:
            out += weighted_by_queries(query, keys, values)
    return out


def weighted_by_queries(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = (key @ query.transpose(1, 2)).softmax(2)  # N×keys×queries
    return weights.transpose(1, 2) @ value


def attend_windows(query: Tensor, key: Tensor, value: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """The maths of local attention: weights = softmax over the window of q·(k + position), result = weights·v.

    It loops over the k·k shifts of the window, which are views of key and value: no tensor of size k²·C·H·W exists.

    Returns:
        The result, N×C×H×W, and the weights, N×k²×H×W; see ``local_attention``.
    """
    weights = F.conv2d(query, position.flatten(1).t()[:, :, None, None])  # q·position
    shifts = window_shifts(position.shape[1], *query.shape[2:])
    products = torch.stack([(query * key[..., rows, cols]).sum(1) for rows, cols in shifts], 1)
    weights = (weights + products).softmax(1)
    out = torch.zeros_like(query)
    for n, (rows, cols) in enumerate(shifts):
        out.addcmul_(weights[:, n : n + 1], value[..., rows, cols])
    return out, weights


class LocalAttentionFunction(torch.autograd.Function):
    """``attend_windows`` with gradients accumulated in place; autograd would create one of full size for each shift."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, position: Tensor) -> Tensor:
        out, weights = attend_windows(query, key, value, position)
        ctx.save_for_backward(query, key, value, position, weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        query, key, value, position, weights = ctx.saved_tensors
        shifts = window_shifts(position.shape[1], *query.shape[2:])
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        grad_weights = torch.empty_like(weights)
        for n, (rows, cols) in enumerate(shifts):
            grad_weights[:, n] = (grad * value[..., rows, cols]).sum(1)
            grad_value[..., rows, cols].addcmul_(weights[:, n : n + 1], grad)
        grad_logits = weights * (grad_weights - (weights * grad_weights).sum(1, keepdim=True))
        grad_query = F.conv2d(grad_logits, position.flatten(1)[:, :, None, None])
        for n, (rows, cols) in enumerate(shifts):
            grad_logit = grad_logits[:, n : n + 1]
            grad_query.addcmul_(grad_logit, key[..., rows, cols])
            grad_key[..., rows, cols].addcmul_(grad_logit, query)
        grad_position = torch.einsum('nkhw,nchw->ck', grad_logits, query).view_as(position)
        return grad_query, grad_key, grad_value, grad_position


def window_shifts(size: int, height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the padded keys for each offset of the window, row by row."""
    return [(slice(i, i + height), slice(j, j + width)) for i in range(size) for j in range(size)]


def local_attention(query: Tensor, key: Tensor, value: Tensor, position: Tensor) -> Tensor:
    """Attention of every pixel to the k×k window around it, with one softmax over the window for all channels.

    Half precision is computed in float32: at EARN's range of 255 the logits are in the thousands.

    Args:
        query: N×C×H×W.
        key, value: N×C×(H+k−1)×(W+k−1), including the border.
        position: C×k×k, added to the keys of the window.

    Returns:
        N×C×H×W.
    """
    inputs = [query, key, value, position]
    if query.dtype in (torch.float16, torch.bfloat16):
        inputs = [tensor.float() for tensor in inputs]
    with without_autocast(query):
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            out = LocalAttentionFunction.apply(*inputs)
        else:
            out = attend_windows(*inputs)[0]
    return out.to(query.dtype)


class LocalAttention(nn.Module):
    """Stand-alone self-attention over a k×k window with row and column embeddings.

    Keys and values are computed on the zero-padded input, so those of the border are the convs' biases. The first
    half of the channels has the embedding of the row (vertical offset), the second half that of the column. The
    logits are not scaled.

    Source: Ramachandran et al., "Stand-Alone Self-Attention in Vision Models" (NeurIPS 2019), section 3; EARN,
    equation 5.
    """

    # Inference processes the image in bands of rows, with about this many values a tensor: few enough for a
    # processor's cache, enough to keep a GPU busy.
    band_values = {'cpu': 2**19, 'other': 2**25}

    def __init__(self, num_feat: int, window_size: int = 3):
        super().__init__()
        self.window_size = window_size
        self.query = nn.Conv2d(num_feat, num_feat, 1)
        self.key = nn.Conv2d(num_feat, num_feat, 1)
        self.value = nn.Conv2d(num_feat, num_feat, 1)
        self.rel_h = nn.Parameter(torch.randn(num_feat // 2, window_size))
        self.rel_w = nn.Parameter(torch.randn(num_feat // 2, window_size))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        # with gradients all is kept, so bands save no memory; a trace or an export would fix their number
        if torch.is_grad_enabled() or is_traced() or not isinstance(h, int):
            return self._band(x, 0, h)
        values = self.band_values['cpu' if x.device.type == 'cpu' else 'other']
        rows = max(8, values // (n * c * w) // 8 * 8)  # softmax takes 8 values at a time, and rounds a rest differently
        return torch.cat([self._band(x, top, min(top + rows, h)) for top in range(0, h, rows)], dim=2)

    def _band(self, x: Tensor, top: int, bottom: int) -> Tensor:
        """Rows top to bottom of the result."""
        size, height = self.window_size, x.shape[2]
        pad = size // 2
        above, below = max(0, pad - top), max(0, bottom + pad - height)
        around = x[:, :, top - pad + above : bottom + pad - below]
        around = F.pad(around, (pad, pad, above, below))
        position = torch.cat(
            [self.rel_h[:, :, None].expand(-1, size, size), self.rel_w[:, None, :].expand(-1, size, size)]
        )
        return local_attention(self.query(x[:, :, top:bottom]), self.key(around), self.value(around), position)

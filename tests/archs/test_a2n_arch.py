import pytest
import torch
from torch import nn
from torch.nn import functional as F

from earn_plugin.archs.a2n_arch import A2N, AttentionInAttentionBlock


def small(**arguments) -> A2N:
    torch.manual_seed(0)
    return A2N(**{'num_feat': 8, 'num_upfeat': 4, 'num_block': 3, **arguments}).double()


@pytest.mark.parametrize(
    ('variant', 'upscale', 'count'),
    [
        ('A2N', 2, 1_036_443),
        ('A2N', 3, 1_036_443),
        ('A2N', 4, 1_047_459),
        ('A2N-M', 2, 831_643),
        ('A2N-M', 3, 831_643),
        ('A2N-M', 4, 842_659),
    ],
)
def test_has_the_papers_parameter_count(variant, upscale, count):
    assert sum(p.numel() for p in A2N(upscale=upscale, variant=variant).parameters()) == count


def lrelu(x):
    return torch.where(x > 0, x, 0.2 * x)


def plain_weights(block: AttentionInAttentionBlock, entered: torch.Tensor) -> torch.Tensor:
    squeeze, excite = (layer.weight for layer in block.dynamic_attention if isinstance(layer, nn.Linear))
    logits = (entered.mean((2, 3)) @ squeeze.T).clamp(min=0) @ excite.T / 30
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def plain_block(block: AttentionInAttentionBlock, x: torch.Tensor, weights=None) -> torch.Tensor:
    """Sections 3.2 and 3.3 from convs; ``weights`` replaces the block's own."""
    branch, pad = block.attention, block.non_attention.kernel_size[0] // 2
    entered = lrelu(F.conv2d(x, block.conv_first.weight))
    mask = lrelu(F.conv2d(entered, branch.conv_mask1.weight, padding=1))
    mask = 1 / (1 + (-F.conv2d(mask, branch.conv_mask2.weight, branch.conv_mask2.bias)).exp())
    attention = F.conv2d(F.conv2d(entered, branch.conv.weight, padding=1) * mask, branch.conv_last.weight, padding=1)
    non_attention = F.conv2d(entered, block.non_attention.weight, padding=pad)
    first, second = (plain_weights(block, entered) if weights is None else weights).T[:, :, None, None, None]
    return F.conv2d(lrelu(first * attention + second * non_attention), block.conv_last.weight) + x


@pytest.mark.parametrize(('variant', 'kernel_size'), [('A2N', 3), ('A2N-M', 1)])
def test_block_equals_the_papers_formula(variant, kernel_size):
    block = small(variant=variant).body[0]
    assert block.non_attention.kernel_size == (kernel_size, kernel_size)
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    assert torch.allclose(block(x), plain_block(block, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ('branch_weights', 'values'), [('attention', (1, 0)), ('non_attention', (0, 1)), ('equal', (0.5, 0.5))]
)
def test_fixed_weights_replace_the_dynamic_ones(branch_weights, values):
    network = small(branch_weights=branch_weights)
    x = torch.randn(3, 8, 4, 5, dtype=torch.float64)
    weights = torch.tensor([values] * 3, dtype=torch.float64)
    block = network.body[1]
    assert torch.allclose(block(x), plain_block(block, x, weights), rtol=0, atol=1e-12)
    assert network.weights_per_block(torch.rand(3, 3, 4, 5, dtype=torch.float64)).tolist() == [[list(values)] * 3] * 3
    # the state dict is a subset of the dynamic variant's
    assert set(network.state_dict()) == {name for name in small().state_dict() if '.dynamic_attention.' not in name}


def test_weights_per_block_are_those_that_the_blocks_use():
    network = small()
    for block in network.body:
        block.dynamic_attention[2].weight.data *= 100  # far from one half for any image
    images = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    features, expected = network.conv_first(images * 255), []
    for block in network.body:
        expected.append(plain_weights(block, lrelu(block.conv_first(features))))
        features = plain_block(block, features)
    weights = network.weights_per_block(images)
    assert weights.shape == (2, 3, 2)
    assert torch.allclose(weights, torch.stack(expected, 1), rtol=0, atol=1e-12)
    assert torch.allclose(weights.sum(2), torch.ones(2, 3, dtype=torch.float64))
    assert (weights[0] - weights[1]).abs().max() > 1e-6  # each image has its own weights

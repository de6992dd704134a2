import pytest
import torch

from earn_plugin.losses import TVLoss


@pytest.mark.parametrize('p', [1, 2])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_is_the_sum_of_the_neighbours_differences(p, reduction):
    x = torch.rand(2, 3, 4, 6, dtype=torch.float64)
    planes = x.reshape(6, 4, 6)
    down = [abs(y[i + 1, j] - y[i, j]) ** p for y in planes for i in range(3) for j in range(6)]
    right = [abs(y[i, j + 1] - y[i, j]) ** p for y in planes for i in range(4) for j in range(5)]
    reduce = torch.mean if reduction == 'mean' else torch.sum
    expected = 3 * (reduce(torch.stack(down)) + reduce(torch.stack(right)))
    assert torch.isclose(TVLoss(loss_weight=3.0, reduction=reduction, p=p)(x, None), expected)


def test_a_single_pixel_has_no_variation():
    assert TVLoss()(torch.rand(1, 3, 1, 1), None) == 0
    assert torch.isfinite(TVLoss()(torch.rand(1, 3, 1, 5), None))


@pytest.mark.parametrize('wrong', [{'p': 3}, {'reduction': 'none'}, {'reduction': 'all'}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match='got'):
        TVLoss(**wrong)

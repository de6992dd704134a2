import pytest
import torch

from earn_plugin import benchmark
from earn_plugin.errors import UsageError


def test_peak_memory_is_what_lives_at_one_time():
    def run():
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1  # 4,000 more
        del a
        c = b * 2
        return c.view(10, 100)  # a view is nothing new

    assert benchmark.peak_memory(run) == 8000


def test_medians_by_turns():
    order = []
    forms = {'a': lambda: order.append('a'), 'b': lambda: order.append('b')}
    seconds = benchmark.medians(forms, 3)
    assert ''.join(order) == 'ab' * 4
    assert all(value >= 0 for value in seconds.values())


def test_attention(capsys):
    benchmark.benchmark_attention((1, 4, 8, 8), 1)
    printed = capsys.readouterr().out
    assert printed.startswith('local attention 3×3 on 1×4×8×8, CPU')
    assert printed.count('ratio') == 2


@pytest.mark.parametrize(('size', 'repeats'), [((1, 3, 8, 8), 1), ((0, 4, 8, 8), 1), ((1, 4, 8, 8), 0)])
def test_wrong_sizes(size, repeats):
    with pytest.raises(UsageError, match='must be'):
        benchmark.benchmark_attention(size, repeats)

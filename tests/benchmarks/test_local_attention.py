import pytest

from earn_plugin.errors import UsageError
from tests.benchmarks.local_attention import benchmark_attention


def test_attention(capsys):
    benchmark_attention((1, 4, 8, 8), 1)
    printed = capsys.readouterr().out
    assert printed.startswith('local attention 3×3 on 1×4×8×8, CPU')
    assert printed.count('ratio') == 2


@pytest.mark.parametrize(('size', 'repeats'), [((1, 3, 8, 8), 1), ((0, 4, 8, 8), 1), ((1, 4, 8, 8), 0)])
def test_wrong_sizes(size, repeats):
    with pytest.raises(UsageError, match='must be'):
        benchmark_attention(size, repeats)

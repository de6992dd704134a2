from tests.benchmarks.local_attention import benchmark_attention


def test_both_forms_are_compared(capsys):
    benchmark_attention((1, 4, 8, 8), 1)
    printed = capsys.readouterr().out
    assert printed.startswith('local attention 3×3 on 1×4×8×8, CPU')
    assert printed.count('ratio') == 2

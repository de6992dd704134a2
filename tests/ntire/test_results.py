import json

import pytest

from earn_plugin.errors import UserError
from earn_plugin.ntire import results

COUNTS = {'activations': 332.392832, 'num_conv': 122, 'flops': 9.036601472, 'num_parameters': 0.118243}


def entry(*splits, ssim=()):
    merged = {}
    for number, split in enumerate(splits):
        merged |= results.split_entry(split, [30.0 + number, 10.0], [28.0, 27.0 + number], list(ssim), 1234.567)
    return merged | COUNTS


def test_keys_of_an_entry():
    assert list(entry('valid')) == [
        'valid_runtime', 'valid_psnr', 'valid_memory', 'valid_ave_runtime', 'valid_ave_psnr', *COUNTS,
    ]  # fmt: skip
    with_ssim = entry('valid', 'test', ssim=[0.5, 0.7])
    assert with_ssim['valid_ave_ssim'] == 0.6
    assert with_ssim['test_ave_runtime'] == 20.5
    assert with_ssim['test_ssim'] == [0.5, 0.7]


def test_the_table_without_the_test_set():
    assert results.official_table({'18_LGVAN': entry('valid')}) == (
        'Model               \tVal PSNR  \tVal Time [ms] \tParams [M]\tFLOPs [G] \tActs [M]\tMem [M] \tConv    \n'
        '18_LGVAN            \t27.50     \t20.00         \t0.118     \t9.04      \t332.39  \t1234.57 \t 122    \n'
    )


def test_the_table_with_the_test_set():
    assert results.official_table({'18_LGVAN': entry('valid', 'test')}) == (
        'Model               \tVal PSNR  \tTest PSNR \tVal Time [ms] \tTest Time [ms]\tAve Time [ms] \tParams [M]\t'
        'FLOPs [G] \tActs [M]\tMem [M] \tConv    \n'
        '18_LGVAN            \t27.50     \t28.00     \t20.00         \t20.50         \t20.25         \t0.118     \t'
        '9.04      \t332.39  \t1234.57 \t 122    \n'
    )


def test_runs_are_added_and_a_name_is_replaced(tmp_path):
    path = tmp_path / 'results.json'
    for name, number in (('a', 1), ('b', 2), ('a', 3)):
        so_far = results.read_results(path, name, ('valid',))
        results.write_results(tmp_path, {**so_far, name: entry('valid') | {'num_conv': number}})
    written = json.loads(path.read_text())
    assert {name: e['num_conv'] for name, e in written.items()} == {'a': 3, 'b': 2}
    assert [line.split('\t')[0].strip() for line in (tmp_path / 'results.txt').read_text().splitlines()] == [
        'Model', 'a', 'b',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('before', 'now'), [(['valid'], ('valid', 'test')), (['valid', 'test'], ('valid',)), (['hybrid_test'], ('valid',))]
)
def test_runs_on_different_sets_do_not_mix(tmp_path, before, now):
    results.write_results(tmp_path, {'a': entry(*before)})
    with pytest.raises(UserError, match=r'has a on .*--include-test'):
        results.read_results(tmp_path / 'results.json', 'b', now)
    assert results.read_results(tmp_path / 'results.json', 'a', now)  # it alone is there, and will be replaced


@pytest.mark.parametrize('content', ['{', '[]', '{"a": 3}'])
def test_an_invalid_results_json(tmp_path, content):
    (tmp_path / 'results.json').write_text(content)
    with pytest.raises(UserError, match=r'is not a results\.json of NTIRE'):
        results.read_results(tmp_path / 'results.json', 'b', ('valid',))


def test_an_incomplete_entry(tmp_path):
    broken = entry('valid')
    del broken['num_conv']
    with pytest.raises(UserError, match=r'a has no valid .*num_conv'):
        results.write_results(tmp_path, {'a': broken})
    assert not list(tmp_path.iterdir())

import os
from pathlib import Path

import pytest
from basicsr.utils.options import dict2str

from earn_plugin.errors import UserError
from earn_plugin.options.options_file import parse_value
from earn_plugin.report.recorded_run import RecordedRun, as_override, options_of_log
from earn_plugin.training.model import flatten
from tests.helpers.options import TINY, completed


@pytest.mark.parametrize(
    ('ages', 'expected'),  # seconds ago
    [
        ({'net_g_9.pth': 30, 'net_g_10.pth': 20, 'net_d_12.pth': 1}, 'net_g_10.pth'),
        ({'net_g_9.pth': 30, 'net_g_10.pth': 20, 'net_g_latest.pth': 10}, 'net_g_latest.pth'),
        ({'net_g_10.pth': 30, 'net_g_latest.pth': 20, 'net_g_15.pth': 10}, 'net_g_15.pth'),  # it was continued
        ({'net_g_latest.pth': 20, 'net_g_best.pth': 10}, 'net_g_latest.pth'),
    ],
)
def test_the_latest_network(tmp_path, ages, expected):
    (tmp_path / 'models').mkdir()
    for name, age in ages.items():
        path = tmp_path / 'models' / name
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert RecordedRun(tmp_path).network_file().name == expected


def test_no_network_is_an_error_with_the_folder(tmp_path):
    with pytest.raises(UserError, match=r'models has no network file'):
        RecordedRun(tmp_path).network_file()


@pytest.mark.parametrize('before', ['options:', '2026-11-26 05:46:32,430 INFO: '])  # ours, BasicSR's
def test_options_of_a_log(tmp_path, before):
    options = completed(tmp_path, TINY | {'name': "it's [a]: name"})
    text = f'{before}{dict2str(options)}\n2026-11-26 05:46:32,430 INFO: Dataset [x]: built.\n  total_iter: 9\n'
    assert flatten(options_of_log(text)) == flatten(options)
    assert options_of_log('2026-11-26 05:46:32,430 INFO: nothing\n') == {}


@pytest.mark.parametrize('value', [3, 1e-5, True, None, 'lmdb', '3', 'null', '~', '', [1, 'a'], {'a': 1}, 'a: b', ' x'])
def test_a_value_survives_force_yml(value):
    assert parse_value(as_override(value).strip()) == value


def test_data_are_found_from_where_the_run_was_started(tmp_path):
    (tmp_path / 'data').mkdir()
    roots = {'dataroot_gt': 'data', 'dataroot_lq': 'gone', 'name': 'data', 'phase': 'val'}
    datasets = {'train': {'phase': 'train'}, 'val': roots, 'val_2': None}
    run = RecordedRun(tmp_path / 'experiments/run', {'datasets': datasets})
    assert run.validation_sets() == [roots | {'dataroot_gt': str(tmp_path.resolve() / 'data')}]
    assert Path(roots['dataroot_gt']) == Path('data')

from pathlib import Path

import pytest
import torch

from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import read_options
from tests.helpers.options import completed, write_options


def test_derived_values(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny['path']['pretrain_network_g'] = '~/net.pth'
    tiny['datasets']['val_2'] = {**tiny['datasets']['val'], 'dataroot_gt': '~/HR'}
    opt = completed(tmp_path, tiny)
    assert (opt['is_train'], opt['dist'], opt['rank'], opt['world_size']) == (True, False, 0, 1)
    assert [d['phase'] for d in opt['datasets'].values()] == ['train', 'val', 'val']
    assert all(d['scale'] == 2 for d in opt['datasets'].values())
    assert opt['datasets']['val_2']['dataroot_gt'] == str(Path.home() / 'HR')
    assert opt['path']['pretrain_network_g'] == str(Path.home() / 'net.pth')
    assert opt['path']['models'] == str(tmp_path / 'experiments/tiny/models')


def test_validation_sets_of_one_name_get_distinct_names(tmp_path, tiny):
    val = tiny['datasets']['val']
    for phase, name in {'val': 'v', 'val_2': 'V', 'val_3': 'v_2', 'test': 'v', 'val_5': 'w'}.items():
        tiny['datasets'][phase] = {**val, 'name': name}
    tiny['datasets']['train']['name'] = 'v'
    warnings = check_options(read_options(write_options(tmp_path, tiny)), True)
    assert [warning.partition(': ')[2] for warning in warnings] == [
        'datasets.val_2.name: is also the name of datasets.val; its results are stored as V_3',
        'datasets.test.name: is also the name of datasets.val; its results are stored as v_4',
    ]
    names = [dataset['name'] for dataset in completed(tmp_path, tiny)['datasets'].values()]
    assert names == ['v', 'v', 'V_3', 'v_2', 'v_4', 'w']


def test_validation_images_must_be_large_enough_for_the_metrics(tmp_path, tiny):
    assert completed(tmp_path, tiny)['datasets']['val']['smallest'] == 2 * 2 + 11
    assert 'smallest' not in completed(tmp_path, tiny)['datasets']['train']
    tiny['val']['metrics'] = {'psnr': {'type': 'calculate_psnr', 'crop_border': 3}}
    assert completed(tmp_path, tiny)['datasets']['val']['smallest'] == 7


def test_without_cuda_everything_runs_on_the_cpu(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for count in (0, 1):  # where the driver is too old, devices are counted that cannot be used
        monkeypatch.setattr(torch.cuda, 'device_count', lambda count=count: count)
        for asked in (1, 'auto', 0):
            assert completed(tmp_path, {**tiny, 'num_gpu': asked})['num_gpu'] == 0


@pytest.mark.parametrize('logger', [None, {'print_freq': None, 'keep_states': None}])
def test_default_values_of_what_is_missing_or_nothing(tmp_path, tiny, logger):
    for key in ('path', 'num_gpu', 'manual_seed'):
        del tiny[key]
    tiny['logger'] = logger
    tiny['train']['ema_decay'] = tiny['val']['val_freq'] = None
    del tiny['val']['save_img']
    tiny['datasets']['train'].update(dict.fromkeys(('dataset_enlarge_ratio', 'filename_tmpl')), dataroot_flow=None)
    opt = completed(tmp_path, tiny)
    assert opt['logger'] == {'print_freq': 100, 'save_checkpoint_freq': 5000, 'use_tb_logger': False, 'keep_states': 3}
    assert 'ema_decay' not in opt['train']
    assert not {'dataset_enlarge_ratio', 'filename_tmpl'} & opt['datasets']['train'].keys()
    assert 'dataroot_flow' in opt['datasets']['train']  # which BasicSR's REDSDataset needs, although it may be ~
    assert (opt['val']['val_freq'], opt['val']['save_img'], opt['val']['suffix']) == (5000, False, None)


def test_debug_is_as_in_basicsr(tmp_path, tiny):
    opt = completed(tmp_path, tiny, debug=True)
    assert opt['name'] == 'debug_tiny'
    assert (opt['logger']['print_freq'], opt['logger']['save_checkpoint_freq'], opt['val']['val_freq']) == (1, 8, 8)


def test_a_test_writes_to_results(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opt = completed(tmp_path, tiny, is_train=False)
    assert opt['path']['results_root'] == str(tmp_path / 'results/tiny')
    assert 'models' not in opt['path']

import copy
import json
import re

import pytest
import torch
from basicsr.models.sr_model import SRModel
from basicsr.models.srgan_model import SRGANModel

from earn_plugin.errors import UsageError, UserError
from earn_plugin.models import EARNGANModel, EARNModel
from earn_plugin.training import step_speed
from earn_plugin.training.step_speed import FASTEST, ROWS, StepBenchmark, TrainingStep, row_options
from tests.helpers.runs import same

SMALL = ('network_g:num_feat=16', 'network_g:num_block=1')


def test_each_row_is_what_its_name_says(opt):
    opt['train'] |= {'precision': 'fp16', 'compile': True, 'memory_format': 'auto', 'accum_iter': 4}
    opt['path']['pretrain_network_g'] = 'missing.pth'
    given = copy.deepcopy(opt)
    rows = [*ROWS['cpu'], FASTEST]
    options = {name: row_options(opt, name.split('+')) for name in rows}
    assert opt == given
    assert [options[name]['model_type'] for name in rows] == ['SRModel'] + 6 * ['EARNModel']
    settings = ('memory_format', 'precision', 'compile', 'cuda_graph', 'accum_iter')
    last = 'channels_last'
    assert [tuple(options[name]['train'][key] for key in settings) for name in rows] == [
        ('contiguous', 'fp32', False, False, 1),
        ('contiguous', 'fp32', False, False, 1),
        (last, 'fp32', False, False, 1),
        (last, 'bf16', False, False, 1),
        (last, 'bf16', True, False, 1),
        (last, 'bf16', False, False, 1),
        (last, 'bf16', True, True, 1),
    ]
    for name in rows:
        assert 'pretrain_network_g' not in options[name]['path']
        assert options[name]['train'].get('pixel_opt') == (None if 'losses' in name else {'type': 'L1Loss'})
        assert (options[name]['train']['losses'] == given['train']['losses']) == ('losses' in name)


@pytest.mark.parametrize(
    ('train', 'expected'),
    [
        ({'pixel_opt': {'type': 'MSELoss'}, 'losses': {'pix': {'type': 'L1Loss'}}}, 'MSELoss'),
        ({'losses': {'fft': {'type': 'FrequencyLoss'}, 'x': {'type': 'CharbonnierLoss'}}}, 'CharbonnierLoss'),
        ({'pixel_opt': None, 'losses': {'fft': {'type': 'FrequencyLoss'}}}, 'L1Loss'),
    ],
)
def test_the_pixel_loss_of_a_recipe(train, expected):
    assert step_speed.find_pixel_loss(train)['type'] == expected


def test_rows_train_alike_from_the_same_weights(opt):
    stock, plain, full = (TrainingStep(opt, name) for name in ('stock', 'plain', 'losses'))
    assert type(stock.model) is SRModel
    assert type(plain.model) is EARNModel
    assert [*plain.model.criteria] == ['pix']
    assert [*full.model.criteria] == ['pix', 'ssim']
    assert same(stock.model.net_g.state_dict(), full.model.net_g.state_dict())
    assert same(stock.batch, full.batch)
    assert (stock.batch['lq'].shape, stock.batch['gt'].shape) == ((2, 3, 16, 16), (2, 3, 32, 32))
    losses = []
    for step in (stock, plain, full):
        step()
        first = step.loss()
        step()
        losses.append((first, step.loss()))
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    assert losses[0][1] < losses[0][0]
    assert losses[2][0] == pytest.approx(losses[0][0], abs=1e-6)
    assert losses[2][1] != losses[0][1]


def test_a_gan_trains_both_networks_in_every_iteration(opt):
    opt['network_d'] = {'type': 'SRGANDiscriminator', 'num_in_ch': 3, 'num_feat': 4}
    gan = {'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 1e-3}, 'net_d_init_iters': 5}
    opt['train'] |= gan | {'optim_d': {'type': 'Adam', 'lr': 1e-3}, 'net_d_iters': 3}
    losses = []
    for name, kind in (('stock', SRGANModel), ('plain', EARNGANModel)):
        step = TrainingStep(opt, name)
        assert type(step.model) is kind
        before = copy.deepcopy([step.model.net_g.state_dict(), step.model.net_d.state_dict()])
        step()
        after = [step.model.net_g.state_dict(), step.model.net_d.state_dict()]
        assert not any(map(same, before, after))
        losses.append(step.loss())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_the_command_needs_no_data(tmp_path, run_here):
    flags = (
        '--batch',
        '4',
        '--gt-size',
        '32',
        '--repeats',
        '2',
        '--json',
        'x.json',
        '--rows',
        'stock',
        'channels_last',
    )
    search = torch.backends.cudnn.benchmark
    printed = run_here('benchmark', 'train', '-opt', 'demo_EARN_x4', *flags, '--force_yml', *SMALL, cwd=tmp_path)
    assert torch.backends.cudnn.benchmark == search
    assert [path.name for path in tmp_path.iterdir()] == ['x.json']
    assert 'demo_EARN_x4: EARN, batches of 4 patches of 32×32, L1Loss\n' in printed
    content = json.loads((tmp_path / 'x.json').read_text())
    assert (content['batch'], content['gt_size'], content['repeats']) == (4, 32, 2)
    rows = content['rows']
    assert [row['row'] for row in rows] == ['stock', 'channels_last']
    assert rows[0]['ratio'] == 1
    for row in rows:
        assert row['iterations_per_second'] == pytest.approx(1000 / row['median_ms'])
        assert row['ratio'] == pytest.approx(rows[0]['median_ms'] / row['median_ms'])
        assert row['first_seconds'] > 0
        assert re.search(rf'{row["iterations_per_second"]:.2f} +{row["median_ms"]:.1f} ', printed)
    assert rows[0]['loss'] == pytest.approx(rows[1]['loss'], abs=1e-5)


def test_memory_grows_with_the_batch(opt):
    peaks = []
    for batch in (2, 6):
        opt['datasets']['train']['batch_size_per_gpu'] = batch
        step = TrainingStep(opt, 'stock')
        step()
        peaks.append(step.peak_bytes())
    assert 2 < peaks[1] / peaks[0] < 3.1


def test_a_row_that_fails_is_reported_and_the_others_go_on(tmp_path, run_here):
    flags = ('--rows', 'plain', 'losses', '--batch', '1', '--gt-size', '48', '--repeats', '1')
    printed = run_here('benchmark', 'train', '-opt', 'train_EARN_x4', *flags, '--force_yml', *SMALL, cwd=tmp_path)
    assert re.search(r'^ours +\d', printed, re.MULTILINE)
    assert re.search(r'^all losses .*vgg19 are not at .*vgg19-dcbb9e9d.pth; download http', printed, re.MULTILINE)


def test_a_network_that_takes_no_such_batch(opt, monkeypatch):
    def fail(self, data):
        raise IndexError('a video, please')

    monkeypatch.setattr(SRModel, 'feed_data', fail)
    with pytest.raises(Exception, match='no row of tiny runs: IndexError: a video, please'):
        step_speed.measure_steps(opt, ['stock'], 1)


def test_a_model_that_cannot_choose_its_memory_format(opt, monkeypatch):
    def fail(self, data):
        raise IndexError('a video, please')

    monkeypatch.setattr(SRModel, 'feed_data', fail)
    with pytest.raises(UserError, match=r'auto cannot be measured .*: a video.*; set contiguous or channels_last'):
        step_speed.faster_memory_format(opt)


@pytest.mark.filterwarnings('ignore:torch.meshgrid:UserWarning')  # of BasicSR's SwinIR
def test_images_of_one_channel_for_a_network_of_another_library(opt):
    opt['datasets']['train']['color'] = 'y'
    opt['network_g'] = {'type': 'SwinIR', 'upscale': 2, 'in_chans': 1, 'depths': [1], 'num_heads': [2]}
    opt['network_g'] |= {'embed_dim': 8, 'window_size': 4, 'img_size': 16, 'upsampler': 'pixelshuffle'}
    step_speed.TrainingStep(opt, 'plain')()


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'batch': 0}, 'must be at least 1'),
        ({'gt_size': 0}, 'must be at least 1'),
        ({'repeats': 0}, 'must be at least 1'),
        ({'rows': ['fast']}, "no row 'fast'; possible: stock, plain, channels_last"),
        ({'rows': ['stock+bf16']}, 'stock and plain stand alone'),
        ({'rows': ['bf16+fp16']}, 'bf16 excludes fp16'),
    ],
)
def test_wrong_arguments(given, message):
    with pytest.raises(UsageError, match=message):
        StepBenchmark(**given)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (('--batch', '1', '--force_yml', 'network_g:num_feat=30'), 'no row of demo_A2N_x4 runs: .*num_feat must be'),
        (('--gt-size', '63'), 'a gt_size of 63 is not a multiple of the scale 4'),
        (('--force_yml', 'network_g:num_fea=3'), r'num_fea: is not a known option; did you mean num_feat\?'),
    ],
)
def test_mistakes_in_the_recipe(flags, message, tmp_path, run_here):
    assert re.search(message, run_here('benchmark', 'train', '-opt', 'demo_A2N_x4', *flags, cwd=tmp_path, expect=2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_a_gpu(tmp_path, run_here):
    printed = run_here('benchmark', 'train', '-opt', 'demo_EARN_x4', '--repeats', '2', '--device', 'cuda', cwd=tmp_path)
    assert torch.cuda.get_device_name() in printed

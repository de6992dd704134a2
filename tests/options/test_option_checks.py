import contextlib
import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earn_plugin.errors import UsageError
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import Options, override, read_options
from tests.helpers.options import TINY, write_options


def problems(tmp_path, options, is_train=True, force=()) -> list[str]:
    loaded = read_options(write_options(tmp_path, options))
    override(loaded, list(force))
    try:
        check_options(loaded, is_train)
    except UsageError as error:
        lines = str(error).splitlines()
        assert lines[0].startswith(str(tmp_path / 'options.yml'))
        return [line.strip() for line in lines[1:]]
    return []


def test_valid_options_have_no_problem(tmp_path, tiny):
    assert problems(tmp_path, tiny) == []


def test_prefetch_queue_without_a_limit(tmp_path, tiny):
    assert problems(tmp_path, tiny, force=['datasets:train:num_prefetch_queue=0']) == []


def test_a_fused_form_is_not_trained(tmp_path, tiny):
    tiny['network_g'] = {'type': 'LGVAN', 'upscale': 2, 'fused': True}
    (problem,) = problems(tmp_path, tiny)
    assert 'network_g.fused: ' in problem
    assert 'basicsr convert --fused' in problem
    assert 'network_g.fused' not in str(problems(tmp_path, tiny, is_train=False))


WRONG = {  # override → place, and what the message says of it
    'network_g:num_fea=32': ('network_g.num_fea', 'did you mean num_feat?'),
    'network_g:type=EARM': ('network_g.type', "'EARM'", 'did you mean EARN?'),
    'network_g={}': ('network_g', 'type'),
    'network_g:num_feat=abc': ('network_g.num_feat', "a whole number, got 'abc'"),
    'network_g:num_feat=1.5': ('network_g.num_feat', 'a whole number, got 1.5'),
    'network_g:use_asca=1': ('network_g.use_asca', 'true or false, got 1'),
    'network_g:upscale=4': ('network_g.upscale', '4', 'scale is 2'),
    'scale=0': ('scale', 'positive', 'got 0'),
    'train:ema_decayy=0.9': ('train.ema_decayy', 'did you mean ema_decay?'),
    'train:total_iter=-3': ('train.total_iter', 'positive', 'got -3'),
    'train:total_iter=.inf': ('train.total_iter', 'finite', 'got inf'),
    'train:ema_decay=1.5': ('train.ema_decay', 'from 0', 'to 1', 'got 1.5'),
    'manual_seed=-1': ('manual_seed', 'from 0', 'got -1'),
    'datasets:train:num_worker_per_gpu=-1': ('datasets.train.num_worker_per_gpu', 'from 0', 'got -1'),
    'train:scheduler={type: CosineAnnealingRestartLR, periods: [2, 2]}': ('train.scheduler.periods', '4', '6'),
    'train:optim_g:type=Adan': ('train.optim_g.type', "'Adan'", 'did you mean Adam?'),
    'train:optim_g:lr="1e-4"': ('train.optim_g.lr', "a number, got '1e-4'", '!!float 1e-4'),
    'train:optim_g:beta=[0.9, 0.99]': ('train.optim_g.beta', 'did you mean betas?'),
    'train:scheduler:milestone=[1]': ('train.scheduler.milestone', 'did you mean milestones?'),
    'train:scheduler:type=StepLR': ('train.scheduler.type', "'StepLR'", 'did you mean MultiStepLR?'),
    'train:losses:ssim:type=SIMLoss': ('train.losses.ssim.type', "'SIMLoss'", 'did you mean SSIMLoss?'),
    'train:losses:ssim=3': ('train.losses.ssim', 'a mapping, got 3'),
    'train:pixel_opt=[1]': ('train.pixel_opt', 'a mapping, got [1]'),
    'datasets:train:gtsize=48': ('datasets.train.gtsize', 'did you mean gt_size?'),
    'datasets:train:type=PairImageDataset': ('datasets.train.type', 'did you mean PairedImageDataset?'),
    'datasets:train:batch_size_per_gpu=0': ('datasets.train.batch_size_per_gpu', 'positive', 'got 0'),
    'datasets:train:use_hflip=yep': ('datasets.train.use_hflip', "true or false, got 'yep'"),
    'datasets:train:dataroot_gt=nowhere/HR': ('datasets.train.dataroot_gt', 'nowhere/HR does not exist'),
    'datasets:train:dataroot_gt=3': ('datasets.train.dataroot_gt', 'text, got 3'),
    'datasets:train:io_backend:type=lmbd': ('datasets.train.io_backend.type', "'lmbd'", 'did you mean lmdb?'),
    'datasets:vall=1': ('datasets.vall', 'train, val or test'),
    'val:val_frequency=3': ('val.val_frequency', 'did you mean val_freq?'),
    'val:metrics:psnr:test_y_chanel=true': ('val.metrics.psnr.test_y_chanel', 'did you mean test_y_channel?'),
    'val:metrics:psnr:type=calculate_pnsr': ('val.metrics.psnr.type', 'did you mean calculate_psnr?'),
    'logger:print_frequ=3': ('logger.print_frequ', 'did you mean print_freq?'),
    'path:pretrain_network_g=no.pth': ('path.pretrain_network_g', 'no.pth does not exist'),
    'path:pretrained_network_g=no.pth': ('path.pretrained_network_g', 'did you mean pretrain_network_g?'),
    'model_type=EARMModel': ('model_type', "'EARMModel'", 'did you mean EARNModel?'),
    'manual_sed=3': ('manual_sed', 'did you mean manual_seed?'),
    'name=3': ('name', 'text, got 3'),
    'train=~': ('train', 'missing'),
}


@pytest.mark.parametrize('entry', WRONG)
def test_each_mistake_is_reported_with_its_place_and_the_nearest_name(tmp_path, tiny, entry):
    place, *parts = WRONG[entry]
    found = [line for line in problems(tmp_path, tiny, force=[entry]) if f'--force_yml {entry}: {place}: ' in line]
    assert any(all(part in line for part in parts) for line in found), found


def test_all_mistakes_are_reported_at_once_by_their_lines(tmp_path, tiny):
    tiny['network_g']['num_fea'] = 3
    tiny['train']['losses']['pix']['loss_wieght'] = 1.0
    tiny['val']['metrics']['psnr']['crop'] = 4
    del tiny['datasets']['train']['gt_size']
    del tiny['val']['metrics']['ssim']['crop_border']
    text = write_options(tmp_path, tiny).read_text().splitlines()

    def line(content):
        return 1 + next(n for n, row in enumerate(text) if content in row)

    expected = (
        (7, 'datasets.train', 'gt_size'),
        (line('num_fea:'), 'network_g.num_fea', 'num_feat'),
        (line('loss_wieght'), 'train.losses.pix.loss_wieght', 'loss_weight'),
        (line('crop:'), 'val.metrics.psnr.crop', 'crop_border'),
        (line('calculate_ssim') - 1, 'val.metrics.ssim', 'crop_border'),
    )
    for problem, (number, place, name) in zip(problems(tmp_path, tiny), expected, strict=True):
        assert problem.startswith(f'line {number}: {place}: ')
        assert name in problem


def test_a_mistake_is_reported_once(tmp_path, tiny):
    for place in ('val', 'train', 'datasets', 'path'):
        (problem,) = problems(tmp_path, tiny, force=[f'{place}=3'])
        assert problem.endswith(f'{place}: must be a mapping, got 3')


def test_missing_sections_and_arguments(tmp_path, tiny):
    (problem,) = problems(tmp_path, tiny, force=['datasets:train=~'])
    assert problem.startswith('line 6: datasets: ')
    (problem,) = problems(tmp_path, tiny, force=['datasets:train:dataroot_lq=~'])
    assert problem.endswith('datasets.train: PairedImageDataset needs dataroot_lq')
    found = problems(tmp_path, {'name': 'x', 'network_g': {'type': 'EDSR'}, 'model_type': 'SRModel'})
    assert {'line 1: datasets: is missing', 'line 1: train: is missing'} < {*found}
    assert 'line 2: network_g: EDSR needs num_in_ch' in found


def test_a_gan_needs_all_of_its_parts(tmp_path, tiny):
    tiny['model_type'] = 'EARNGANModel'
    assert [line.partition(': ')[2] for line in problems(tmp_path, tiny)] == [
        'network_d: is missing',
        'train: needs gan_opt',
        'train: needs optim_d',
    ]
    tiny['network_d'] = {'type': 'SRGANDiscriminator'}
    tiny['train'].update(gan_opt={'type': 'GANLoss', 'gan_type': 'vanilla'}, optim_d={'type': 'AdamW', 'lr': 1e-3})
    tiny['train'].update(grad_clip_g=0.01, grad_clip_d=0.01, net_d_iters=2, net_d_init_iters=100)
    assert check_options(read_options(write_options(tmp_path, tiny)), True) == []
    (found,) = problems(tmp_path, tiny, force=['train:grad_clip_dd=0.01'])
    assert 'train.grad_clip_dd: ' in found
    assert 'grad_clip_d?' in found


def test_adamw_is_for_our_models(tmp_path, tiny):
    assert problems(tmp_path, tiny, force=['train:optim_g:type=AdamW']) == []
    tiny['model_type'] = 'SRModel'
    tiny['train']['pixel_opt'] = tiny['train'].pop('losses')['pix']
    assert any("'AdamW'" in p for p in problems(tmp_path, tiny, force=['train:optim_g:type=AdamW']))


def test_keys_that_only_other_types_read_are_warnings(tmp_path, tiny):
    tiny['datasets']['train'].update(use_shuffle=True, interval_list=[1])
    tiny['train'].update(net_d_iters=1, grad_clip_d=0.01)
    warnings = check_options(read_options(write_options(tmp_path, tiny)), True)
    assert [warning.split(': ')[1].split()[0] for warning in warnings] == [
        'train.net_d_iters',
        'train.grad_clip_d',
        'datasets.train.use_shuffle',
        'datasets.train.interval_list',
    ]


def test_missing_data_names_the_readme(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny['datasets']['train']['dataroot_gt'] = 'datasets/DIV2K/DIV2K_train_HR_sub.lmdb'
    found, hint = problems(tmp_path, tiny)
    assert 'datasets/DIV2K/DIV2K_train_HR_sub.lmdb does not exist' in found
    assert 'DIV2K_train_HR_sub.lmdb' in Path(hint.split()[0]).read_text()
    assert 'demo_EARN_x4' in hint


def test_data_of_the_demo_may_be_missing(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = 'datasets/demo/train'
    tiny['datasets']['train'].update(dataroot_gt=f'{root}/HR_sub.lmdb', dataroot_lq=f'{root}/LR_bicubic_X2_sub.lmdb')
    assert problems(tmp_path, tiny) == []
    (problem, _) = problems(tmp_path, tiny, force=['datasets:train:dataroot_gt=datasets/demo/train/HR_subs.lmdb'])
    assert 'datasets/demo/train/HR_subs.lmdb does not exist' in problem
    assert not (tmp_path / 'datasets').exists()


def test_an_incomplete_lmdb_is_reported_with_its_missing_file(tmp_path, tiny, pairs):
    (pairs / 'HR.lmdb/meta_info.txt').unlink()
    assert any('HR.lmdb/meta_info.txt does not exist' in p for p in problems(tmp_path, tiny))


def test_missing_vgg_weights_say_where_to_get_them(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny['train']['losses']['percep'] = {'type': 'VGGPerceptualLoss'}
    (found,) = problems(tmp_path, tiny)
    assert 'experiments/pretrained_models/vgg19-dcbb9e9d.pth' in found
    assert 'https://' in found
    tiny['train']['losses']['percep']['weights'] = 'random'
    assert problems(tmp_path, tiny) == []


def test_nothing_is_built(tmp_path, tiny, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError('built')

    monkeypatch.setattr(torch.nn.Module, '__init__', refuse)
    assert problems(tmp_path, tiny) == []


def test_a_test_needs_no_training_section(tmp_path, tiny):
    options = copy.deepcopy(tiny)
    del options['train'], options['logger']
    options['datasets'] = {'test_1': options['datasets']['val'], 'test_2': None}
    assert problems(tmp_path, options, is_train=False) == []


def places(value, above=()):
    yield above
    if isinstance(value, dict):
        for key, below in value.items():
            yield from places(below, (*above, key))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(['', 'EARN', 'x', '1e-4', 'lmdb']),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(['type', 'x', 'lr']), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize('is_train', [True, False])
def test_any_value_anywhere_is_reported_and_never_crashes(data, is_train):
    options = copy.deepcopy(TINY)
    place = data.draw(st.sampled_from([p for p in places(TINY) if p]))
    section = options
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = data.draw(ANYTHING)
    with contextlib.suppress(UsageError):
        check_options(Options(Path('o.yml'), options), is_train)

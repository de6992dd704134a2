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
    'train:ema_decay=1.5': ('train.ema_decay', 'at least 0', 'below 1', 'got 1.5'),
    'manual_seed=-1': ('manual_seed', 'at least 0', 'got -1'),
    'datasets:train:num_worker_per_gpu=-1': ('datasets.train.num_worker_per_gpu', 'at least 0', 'got -1'),
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
    'path:pretrain_network_g=A2N-S_x5': ('path.pretrain_network_g', 'included networks, by name: '),
    'path:resume_state=A2N-S_x4': ('path.resume_state', 'A2N-S_x4 does not exist'),
    'path:pretrained_network_g=no.pth': ('path.pretrained_network_g', 'did you mean pretrain_network_g?'),
    'model_type=EARMModel': ('model_type', "'EARMModel'", 'did you mean EARNModel?'),
    'manual_sed=3': ('manual_sed', 'did you mean manual_seed?'),
    'name=3': ('name', 'text, got 3'),
    'train=~': ('train', 'missing'),
    'name=../../precious': ('name', "'/'", "'../../precious'"),
    'name=/absolute': ('name', "'/'"),
    'name=a\\b': ('name', "'\\\\'"),
    'name=.': ('name', 'dot'),
    'name=.hidden': ('name', 'dot'),
    'name=""': ('name', 'empty'),
    'name="a\\eb"': ('name', "'\\x1b'"),
    f'name={"é" * 120}': ('name', 'bytes', 'got 240'),
    'name="\\ud800"': ('name', 'characters'),
    'datasets:val:name=a/b': ('datasets.val.name', "'/'"),
    'val:suffix=../x': ('val.suffix', "'/'"),
    'val:metrics={a/b: {type: calculate_psnr, crop_border: 0}}': ('val.metrics.a/b', "'/'"),
    'train:losses={3: {type: L1Loss}}': ('train.losses.3', 'text, got 3'),
    'logger:wandb={project: x, resume_id: ../x}': ('logger.wandb.resume_id', "'/'"),
    'logger:wandb={1: 2}': ('logger.wandb.1', 'not a known option'),
    'logger:wandb={project: x}': ('logger.wandb', 'not installed'),
    'scale=2.5': ('scale', 'whole', '2.5'),
    'manual_seed=4294967296': ('manual_seed', '4294967295', 'got 4294967296'),
    f'manual_seed=0x{"f" * 100}': ('manual_seed', '64 bits'),
    'num_gpu=foo': ('num_gpu', 'auto', "'foo'"),
    'train:total_iter=0.4': ('train.total_iter', 'whole', '0.4'),
    'train:total_iter=1e30': ('train.total_iter', 'at most', '1e+30'),
    'train:warmup_iter=-5': ('train.warmup_iter', 'at least -1', '-5'),
    'train:optim_g:lr=-1': ('train.optim_g.lr', 'positive', 'got -1'),
    'train:optim_g:lr=1e300': ('train.optim_g.lr', 'at most'),
    'train:optim_g:betas=[2, 3]': ('train.optim_g.betas', 'below 1', '[2, 3]'),
    'train:optim_g={type: Adam, lr: 0.1, fused: true, foreach: true}': ('train.optim_g.foreach', 'together with fused'),
    'train:freeze=[3]': ('train.freeze', 'a list of texts', '[3]'),
    'train:optim_g:betas=[0.9]': ('train.optim_g.betas', 'two', '[0.9]'),
    'train:optim_g:betas=[0.9, .nan]': ('train.optim_g.betas.1', 'finite', 'nan'),
    'train:optim_g:eps=-1': ('train.optim_g.eps', 'at least 0', '-1'),
    'train:optim_g:weight_decay=-1': ('train.optim_g.weight_decay', 'at least 0', '-1'),
    'train:optim_g:maximize=true': ('train.optim_g.maximize', 'not a known option'),
    'train:scheduler:gamma=-1': ('train.scheduler.gamma', 'positive', '-1'),
    'train:scheduler:milestones=abc': ('train.scheduler.milestones', 'a list of numbers', "'abc'"),
    'train:scheduler:milestones=[2.5]': ('train.scheduler.milestones', 'whole', '[2.5]'),
    'train:scheduler:milestones=[-5]': ('train.scheduler.milestones', 'at least 0', '[-5]'),
    'train:scheduler:restarts=[0, 2]': ('train.scheduler.restarts', 'restart_weights', '[0, 2] and [1]'),
    'train:scheduler={type: CosineAnnealingRestartLR, periods: [3, 3], restart_weights: [1]}': (
        'train.scheduler.restart_weights',
        'periods',
        '[3, 3] and [1]',
    ),
    'train:scheduler={type: CosineAnnealingRestartLR, periods: [0, 6]}': ('train.scheduler.periods', 'positive'),
    'train:losses:pix:loss_weight=-1': ('train.losses.pix.loss_weight', 'at least 0', '-1'),
    'train:losses:pix:reduction=all': ('train.losses.pix.reduction', 'mean or sum', "'all'"),
    'network_g:num_feat=0': ('network_g.num_feat', 'positive', 'got 0'),
    'network_g:num_block=99999999': ('network_g.num_block', 'at most', 'got 99999999'),
    'network_g:num_in_ch=1': ('network_g.num_in_ch', '1', 'datasets.train have 3'),
    'datasets:train:num_worker_per_gpu=100000': ('datasets.train.num_worker_per_gpu', 'at most 256'),
    'datasets:train:prefetch_mode=foo': ('datasets.train.prefetch_mode', 'cpu or cuda', "'foo'"),
    'datasets:train:mean=[0.5]': ('datasets.train.mean', '3 channels', '[0.5]'),
    'datasets:train:std=[0, 0, 0]': ('datasets.train.std', 'positive'),
    'datasets:train:filename_tmpl=x4': ('datasets.train.filename_tmpl', "'{}x4'", "'x4'"),
    'datasets:train:dataroot_gt=""': ('datasets.train.dataroot_gt', 'empty'),
    'datasets:train:dataroot_gt="a\\0b"': ('datasets.train.dataroot_gt', 'characters'),
    f'datasets:train:dataroot_gt={"x" * 300}': ('datasets.train.dataroot_gt', 'does not exist'),
    'datasets:train:io_backend={type: memcached, sys_path: x}': (
        'datasets.train.io_backend.type',
        'run code',
        'disk, lmdb',
    ),
    'datasets:train:io_backend:map_size=1': ('datasets.train.io_backend.map_size', 'not a known option'),
    'val:val_freq=0.3': ('val.val_freq', '0.3'),
    'val:metrics:psnr:crop_border=2.5': ('val.metrics.psnr.crop_border', 'a whole number', '2.5'),
    'val:metrics:psnr:better=most': ('val.metrics.psnr.better', 'higher or lower', "'most'"),
    'path:pretrain_network_g=.': ('path.pretrain_network_g', 'not a file'),
    'path:strict_load_g=maybe': ('path.strict_load_g', 'true or false'),
}


@pytest.mark.parametrize('entry', WRONG)
def test_each_mistake_is_reported_with_its_place_and_the_nearest_name(tmp_path, tiny, entry):
    place, *parts = WRONG[entry]
    found = [line for line in problems(tmp_path, tiny, force=[entry]) if f'--force_yml {entry:.200}: {place}: ' in line]
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
    tiny['train'].update(grad_clip_g=0.01, grad_clip_d=0.01, net_d_iters=2, net_d_init_iters=3)
    assert check_options(read_options(write_options(tmp_path, tiny)), True) == []
    (found,) = problems(tmp_path, tiny, force=['train:net_d_init_iters=6'])
    assert 'train.net_d_init_iters: is 6' in found
    assert 'total_iter: 6' in found
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


def test_forms_of_the_network_are_options_of_tests(tmp_path, tiny):
    tiny['val'].update(fused=True, self_ensemble=False)
    options = write_options(tmp_path, tiny)
    assert check_options(read_options(options), False) == []
    assert [warning.split(': ')[1] for warning in check_options(read_options(options), True)] == [
        'val.fused has no effect',
        'val.self_ensemble has no effect',
    ]
    tiny['val'] = {'fussed': True, 'self_ensemble': 8}
    with pytest.raises(UsageError) as raised:
        check_options(read_options(write_options(tmp_path, tiny)), False)
    assert 'val.fussed: is not a known option; did you mean fused?' in str(raised.value)
    assert 'val.self_ensemble: must be true or false, got 8' in str(raised.value)


def test_hats_print_network_has_no_effect(tmp_path, tiny):
    (warning,) = check_options(read_options(write_options(tmp_path, {**tiny, 'print_network': True})), True)
    assert 'print_network has no effect' in warning


def test_channels_of_the_network_and_of_the_images(tmp_path, tiny):
    for dataset in tiny['datasets'].values():
        dataset['color'] = 'y'
    assert len(problems(tmp_path, tiny)) == 4  # both ways, of both data sets
    tiny['network_g'] = {'type': 'A2N', 'upscale': 2, 'num_in_ch': 1, 'num_out_ch': 1}
    assert problems(tmp_path, tiny) == []


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'\xef\xbb\xbfim00.png (48,56,3)\n', 'line 1 begins with a byte order mark'),
        (b'im00.png (48,56,3)\n\nim01.png (48,56,3)\n', 'line 2 is blank'),
        (b'im00.png (48,56,3)\n \n', 'line 2 is blank'),
        (b'', 'is empty'),
        (b'\xff', 'cannot be read'),
        (b'im00.png (48,56,3)\nim01.png (48,56,3)', ''),
    ],
)
def test_a_list_of_images_is_checked(tmp_path, tiny, pairs, content, message):
    (tmp_path / 'list.txt').write_bytes(content)
    roots = {'dataroot_gt': str(pairs / 'HR'), 'dataroot_lq': str(pairs / 'LR'), 'io_backend': {'type': 'disk'}}
    tiny['datasets']['train'].update(**roots, meta_info_file=str(tmp_path / 'list.txt'))
    found = problems(tmp_path, tiny)
    assert [f'{tmp_path / "list.txt"}' in problem and message in problem for problem in found] == [True][
        : bool(message)
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

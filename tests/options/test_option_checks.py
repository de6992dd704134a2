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


def test_sound_options_have_no_problem(tmp_path, tiny):
    assert problems(tmp_path, tiny) == []


def test_an_inference_form_is_tested_not_trained(tmp_path, tiny):
    tiny['network_g'] = {'type': 'LGVAN', 'upscale': 2, 'fused': True}
    told = 'network_g.fused: is for a network that is trained already: basicsr convert --fused'
    assert [line.partition(': ')[2] for line in problems(tmp_path, tiny)] == [told]
    assert told not in str(problems(tmp_path, tiny, is_train=False))


WRONG = {
    'network_g:num_fea=32': 'network_g.num_fea: is not known here; did you mean num_feat?',
    'network_g:type=EARM': "network_g.type: no network 'EARM' is registered; did you mean EARN?",
    'network_g:num_feat=abc': "network_g.num_feat: must be a whole number, got 'abc'",
    'network_g:num_feat=1.5': 'network_g.num_feat: must be a whole number, got 1.5',
    'network_g:use_asca=1': 'network_g.use_asca: must be true or false, got 1',
    'train:ema_decayy=0.9': 'train.ema_decayy: is not known here; did you mean ema_decay?',
    'train:total_iter=-3': 'train.total_iter: must be above 0 and finite, got -3',
    'train:total_iter=.inf': 'train.total_iter: must be above 0 and finite, got inf',
    'train:ema_decay=1.5': 'train.ema_decay: must be 0 (no average) to 1, got 1.5',
    'train:scheduler={type: CosineAnnealingRestartLR, periods: [2, 2]}': (
        'train.scheduler.periods: end at iteration 4, before total_iter: 6'
    ),
    'train:grad_clip_g=0': 'train.grad_clip_g: must be above 0 and finite, got 0',
    'train:net_d_iters=0': 'train.net_d_iters: must be above 0 and finite, got 0',
    'network_g:upscale=4': 'network_g.upscale: is 4, but scale is 2',
    'train:optim_g:type=Adan': "train.optim_g.type: no optimizer 'Adan'; did you mean Adam?",
    'train:optim_g:lr="1e-4"': (
        "train.optim_g.lr: must be a number or Tensor, got '1e-4'; YAML takes 1e-4 as text, write !!float 1e-4"
    ),
    'train:optim_g:beta=[0.9, 0.99]': 'train.optim_g.beta: is not known here; did you mean betas?',
    'train:scheduler:milestone=[1]': 'train.scheduler.milestone: is not known here; did you mean milestones?',
    'train:scheduler:type=StepLR': "train.scheduler.type: no scheduler 'StepLR'; did you mean MultiStepLR?",
    'train:losses:ssim:windowsize=7': 'train.losses.ssim.windowsize: is not known here; did you mean window_size?',
    'train:losses:ssim:type=SIMLoss': "train.losses.ssim.type: no loss 'SIMLoss' is registered; did you mean SSIMLoss?",
    'train:losses:ssim=3': 'train.losses.ssim: must be a mapping, got 3',
    'train:pixel_opt=[1]': 'train.pixel_opt: must be a mapping, got [1]',
    'datasets:train:gtsize=48': 'datasets.train.gtsize: is not known here; did you mean gt_size?',
    'datasets:train:type=PairImageDataset': (
        "datasets.train.type: no data set 'PairImageDataset' is registered; did you mean PairedImageDataset?"
    ),
    'datasets:train:batch_size_per_gpu=0': 'datasets.train.batch_size_per_gpu: must be above 0 and finite, got 0',
    'datasets:train:use_hflip=yep': "datasets.train.use_hflip: must be true or false, got 'yep'",
    'datasets:train:dataroot_gt=nowhere/HR': 'datasets.train.dataroot_gt: nowhere/HR does not exist',
    'datasets:train:dataroot_gt=3': 'datasets.train.dataroot_gt: must be text, got 3',
    'datasets:train:io_backend:type=lmbd': "datasets.train.io_backend.type: no backend 'lmbd'; did you mean lmdb?",
    'datasets:vall=1': 'datasets.vall: a data set is named train, val or test, the last two also val_2 and the like',
    'val:val_frequency=3': 'val.val_frequency: is not known here; did you mean val_freq?',
    'val:metrics:psnr:test_y_chanel=true': (
        'val.metrics.psnr.test_y_chanel: is not known here; did you mean test_y_channel?'
    ),
    'val:metrics:psnr:type=calculate_pnsr': (
        "val.metrics.psnr.type: no metric 'calculate_pnsr' is registered; did you mean calculate_psnr?"
    ),
    'logger:print_frequ=3': 'logger.print_frequ: is not known here; did you mean print_freq?',
    'logger:print_freq=0': 'logger.print_freq: must be above 0 and finite, got 0',
    'path:pretrain_network_g=no.pth': 'path.pretrain_network_g: no.pth does not exist',
    'path:pretrained_network_g=no.pth': (
        'path.pretrained_network_g: is not known here; did you mean pretrain_network_g?'
    ),
    'model_type=EARMModel': "model_type: no model type 'EARMModel' is registered; did you mean EARNModel?",
    'manual_sed=3': 'manual_sed: is not known here; did you mean manual_seed?',
    'name=3': 'name: must be text, got 3',
    'train=~': 'train: is missing',
}


@pytest.mark.parametrize('entry', WRONG)
def test_each_mistake_is_told_with_its_place_and_the_nearest_name(tmp_path, tiny, entry):
    assert f'--force_yml {entry}: {WRONG[entry]}' in [
        p.replace('line 1: ', f'--force_yml {entry}: ') for p in problems(tmp_path, tiny, force=[entry])
    ]


def test_all_mistakes_are_told_at_once_by_their_lines(tmp_path, tiny):
    tiny['network_g']['num_fea'] = 3
    tiny['train']['losses']['pix']['loss_wieght'] = 1.0
    tiny['val']['metrics']['psnr']['crop'] = 4
    del tiny['datasets']['train']['gt_size']
    del tiny['val']['metrics']['ssim']['crop_border']
    text = write_options(tmp_path, tiny).read_text().splitlines()

    def line(content):
        return 1 + next(n for n, row in enumerate(text) if content in row)

    found = problems(tmp_path, tiny)
    assert f'line {line("num_fea:")}: network_g.num_fea: is not known here; did you mean num_feat?' in found
    assert (
        f'line {line("loss_wieght")}: train.losses.pix.loss_wieght: is not known here; did you mean loss_weight?'
        in found
    )
    assert f'line {line("crop:")}: val.metrics.psnr.crop: is not known here; did you mean crop_border?' in found
    assert 'line 7: datasets.train: PairedImageDataset needs gt_size' in found
    assert found[-1].endswith('val.metrics.ssim: calculate_ssim needs crop_border')
    numbers = [int(problem.split()[1].rstrip(':')) for problem in found]
    assert len(found) == 5
    assert numbers == sorted(numbers)


def test_training_needs_a_data_set(tmp_path, tiny):
    assert problems(tmp_path, tiny, force=['datasets:train=~']) == [
        'line 6: datasets: training needs a data set named train'
    ]


def test_missing_sections_and_arguments(tmp_path):
    found = problems(tmp_path, {'name': 'x', 'network_g': {'type': 'EDSR'}, 'model_type': 'SRModel'})
    assert 'line 1: datasets: is missing' in found
    assert 'line 1: train: is missing' in found
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
    assert problems(tmp_path, tiny) == []
    assert check_options(read_options(write_options(tmp_path, tiny)), True) == []
    (found,) = problems(tmp_path, tiny, force=['train:grad_clip_dd=0.01'])
    assert found.endswith('train.grad_clip_dd: is not known here; did you mean grad_clip_d?')


def test_what_is_needed_is_not_nothing(tmp_path, tiny):
    told = problems(tmp_path, tiny, force=['datasets:train:dataroot_lq=~'])
    assert [line.partition(': ')[2] for line in told] == ['datasets.train: PairedImageDataset needs dataroot_lq']


def test_adamw_is_for_our_models(tmp_path, tiny):
    assert problems(tmp_path, tiny, force=['train:optim_g:type=AdamW']) == []
    tiny['model_type'] = 'SRModel'
    tiny['train']['pixel_opt'] = tiny['train'].pop('losses')['pix']
    assert any("no optimizer 'AdamW'" in p for p in problems(tmp_path, tiny, force=['train:optim_g:type=AdamW']))


def test_keys_that_other_types_read_are_notes(tmp_path, tiny):
    tiny['datasets']['train'].update(use_shuffle=True, interval_list=[1])
    tiny['train'].update(net_d_iters=1, grad_clip_d=0.01)
    notes = check_options(read_options(write_options(tmp_path, tiny)), True)
    assert [note.split(': ')[1] for note in notes] == [
        'train.net_d_iters has no effect',
        'train.grad_clip_d has no effect',
        'datasets.train.use_shuffle has no effect',
        'datasets.train.interval_list has no effect',
    ]


def test_missing_data_says_where_to_read_on(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny['datasets']['train']['dataroot_gt'] = 'datasets/DIV2K/DIV2K_train_HR_sub.lmdb'
    found, hint = problems(tmp_path, tiny)
    assert 'datasets/DIV2K/DIV2K_train_HR_sub.lmdb does not exist' in found
    path, _, rest = hint.partition(' says what to put there')
    assert 'DIV2K_train_HR_sub.lmdb' in Path(path).read_text()
    assert 'demo_EARN_x4' in rest


def test_half_an_lmdb_is_missing_what_it_lacks(tmp_path, tiny, pairs):
    (pairs / 'HR.lmdb/meta_info.txt').unlink()
    assert any('HR.lmdb/meta_info.txt does not exist' in p for p in problems(tmp_path, tiny))


def test_missing_vgg_weights_say_what_to_fetch(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny['train']['losses']['percep'] = {'type': 'VGGPerceptualLoss'}
    (found,) = problems(tmp_path, tiny)
    assert 'the weights of vgg19 are not at experiments/pretrained_models/vgg19-dcbb9e9d.pth; fetch https://' in found
    tiny['train']['losses']['percep']['weights'] = 'random'
    assert problems(tmp_path, tiny) == []


def test_nothing_is_built(tmp_path, tiny, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError('built')

    monkeypatch.setattr(torch.nn.Module, '__init__', refuse)
    assert problems(tmp_path, tiny) == []


def test_the_test_form_needs_no_training_section(tmp_path, tiny):
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
def test_whatever_stands_anywhere_it_is_told_and_never_a_crash(data, is_train):
    options = copy.deepcopy(TINY)
    place = data.draw(st.sampled_from([p for p in places(TINY) if p]))
    section = options
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = data.draw(ANYTHING)
    with contextlib.suppress(UsageError):
        check_options(Options(Path('o.yml'), options), is_train)

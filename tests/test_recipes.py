"""Every recipe is valid, and everything in it is built, on data made by the commands of datasets/README.md."""

import re
import subprocess
from pathlib import Path

import cv2
import pytest
import torch
from basicsr.archs import build_network
from torchvision import models

from earn_plugin.cli import main
from earn_plugin.convert.weight_files import describe_network, read_weights
from earn_plugin.data.image_files import write_image
from earn_plugin.data.loaders import build_checked
from earn_plugin.errors import UserError
from earn_plugin.losses.vgg_loss import weights_file
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import read_options, recipes
from earn_plugin.prepare.demo import make_demo
from earn_plugin.prepare.subimages import subimages
from earn_plugin.training.model import build_checked_model
from earn_plugin.weights import included
from tests.helpers.command import command, command_here
from tests.helpers.places import ROOT
from tests.helpers.published import publish

# name → scale → parameters, where the paper or the authors' network says
PARAMETERS = {
    'EARN': {2: 2_033_731, 3: 2_218_371, 4: 2_181_443},
    'RNAN': {4: 9_254_979},
    'LGVAN': {4: 118_243},
    'A2N': {2: 1_036_443, 3: 1_036_443, 4: 1_047_459},
    'A2N-M': {2: 831_643, 3: 831_643, 4: 842_659},
    'HAN': {2: 15_924_033, 4: 16_071_745},
    'RK4RDN': {4: 827_783 - 16_640},  # the authors' file without its unused projections
    'RK4RDN_GAN': {4: 827_783 - 16_640},
}
INCLUDED = ('A2N-S_x2', 'A2N-S_x3', 'A2N-S_x4')
SCALES = {name: (2, 3, 4, 8) if name == 'HAN' else (2, 3, 4) for name in PARAMETERS}
PUBLISHED = [(name, scale) for name, scales in SCALES.items() for scale in scales]


def data_of(name: str) -> dict:
    return read_options(ROOT / f'options/{name}.yml').data


def test_each_network_has_its_recipes():
    names = {path.stem for path in recipes()}
    demos = {
        f'demo_{name}_x4' for name in ('EARN', 'RNAN', 'LGVAN', 'A2N', 'HAN', 'RK4RDN', 'DualAttentionRCAN', 'GAN')
    }
    pairs = {f'{part}_{name}_x{scale}' for part in ('train', 'test') for name, scale in PUBLISHED}
    assert names == demos | pairs | {f'{part}_{name}' for part in ('train', 'test') for name in INCLUDED}


GAN_LOSSES = {'MSELoss': 1.0, 'VGGPerceptualLoss': 0.006, 'TVLoss': 2e-8}
SETTINGS = {  # data, LR patch, batch, learning rate, β₂, iterations, halved after how many, losses and their weights
    'EARN': ('DIV2K', 48, 32, 1e-4, 0.999, 500, 200, {'L1Loss': 1.5, 'SSIMLoss': 0.6, 'VGGPerceptualLoss': 0.4}),
    'RNAN': ('DIV2K', 48, 16, 1e-4, 0.999, 1000, 200, {'L1Loss': 1.0}),
    'LGVAN': ('DF2K', 64, 128, 5e-4, 0.99, 1000, 200, {'L1Loss': 1.0, 'FrequencyLoss': 0.5}),
    'A2N': ('DIV2K', 64, 32, 5e-4, 0.999, 1000, 200, {'L1Loss': 1.0}),
    'A2N-M': ('DIV2K', 64, 32, 5e-4, 0.999, 1000, 200, {'L1Loss': 1.0}),
    'HAN': ('DIV2K', 48, 16, 1e-4, 0.999, 1000, 200, {'L1Loss': 1.0}),
    'RK4RDN': ('DIV2K', 48, 16, 1e-4, 0.999, 500, 200, {'L1Loss': 1.0}),
    'RK4RDN_GAN': ('VOC2012', 88, 32, 1e-3, 0.999, 52.2, None, GAN_LOSSES),
}


@pytest.mark.parametrize(('name', 'scale'), PUBLISHED)
def test_settings_are_the_papers(name, scale):
    opt = data_of(f'train_{name}_x{scale}')
    data, train = opt['datasets']['train'], opt['train']
    where, patch, batch, lr, beta, thousands, halved, losses = SETTINGS[name]
    crop = patch - patch % scale if where == 'VOC2012' else patch * scale  # an HR crop there
    assert (data['name'], data['gt_size'], data['batch_size_per_gpu']) == (where, crop, batch)
    assert (opt['scale'], opt['network_g']['upscale']) == (scale, scale)
    assert (train['optim_g']['lr'], train['optim_g']['betas'][1], train['total_iter']) == (lr, beta, thousands * 1000)
    assert {loss['type']: loss.get('loss_weight', 1.0) for loss in train['losses'].values()} == losses
    milestones = [1000 * n for n in range(halved, thousands, halved)] if halved else []
    assert (train['scheduler']['type'], train['scheduler']['milestones']) == ('MultiStepLR', milestones)
    assert train['scheduler'].get('gamma') == (0.5 if halved else None)
    assert {metric['crop_border'] for metric in opt['val']['metrics'].values()} == {scale}


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_the_gan_has_the_papers_settings(scale):
    opt = data_of(f'train_RK4RDN_GAN_x{scale}')['train']
    assert opt['optim_g'] == opt['optim_d'] == {'type': 'Adam', 'lr': 1e-3, 'betas': [0.9, 0.999]}
    assert (opt['grad_clip_g'], opt['grad_clip_d']) == (0.01, 0.01)
    assert opt['total_iter'] == 100 * -(-16_700 // 32)
    assert opt['gan_opt']['loss_weight'] == 0.001


@pytest.mark.parametrize(('name', 'scale'), PUBLISHED)
def test_the_tested_network_is_the_trained_one(name, scale):
    trained, tested = data_of(f'train_{name}_x{scale}'), data_of(f'test_{name}_x{scale}')
    assert tested['network_g'] == trained['network_g']
    assert tested['path']['pretrain_network_g'] == f'experiments/train_{name}_x{scale}/models/net_g_latest.pth'
    averages = 'ema_decay' in trained['train']
    assert tested['path'].get('param_key_g', 'params') == ('params_ema' if averages else 'params')


@pytest.mark.parametrize('name', INCLUDED)
def test_an_included_network_is_that_of_its_recipes(name):
    trained, tested = data_of(f'train_{name}'), data_of(f'test_{name}')
    assert tested['network_g'] == trained['network_g']
    assert tested['path']['pretrain_network_g'] == name
    assert trained['path'].get('pretrain_network_g') == (None if name == 'A2N-S_x4' else 'A2N-S_x4')
    if name in included():
        description = read_weights(included()[name])[1]
        assert description == describe_network('net_g', trained)


@pytest.mark.parametrize(('name', 'scale'), PUBLISHED)
def test_a_network_has_the_papers_parameters(name, scale):
    """Where the paper gives none: as many as for ×4, except in the upsampling."""

    def parameters(scale):
        with torch.device('meta'):
            return dict(build_network(data_of(f'train_{name}_x{scale}')['network_g']).named_parameters())

    def count(scale, skip='-'):
        return sum(p.numel() for key, p in parameters(scale).items() if not key.startswith(skip))

    known = PARAMETERS[name]
    if scale in known:
        assert count(scale) == known[scale]
    else:
        assert count(scale, skip='upsample.') == count(4, skip='upsample.')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Small data sets made by the commands of datasets/README.md, and VGGs with random weights."""
    from skimage import data

    root = tmp_path_factory.mktemp('tree')
    retina, cat = data.retina()[:1212, :1200, ::-1], data.chelsea()[:103, :101, ::-1]
    publish(
        root,
        train=dict(enumerate(subimages(retina, 480, 360), 1)) | {800: retina},
        valid={801: retina[:120, :240]},
        flickr={1: retina[:480, :600]},
        benchmark={name: {'cat': cat} for name in ('Set5', 'Set14', 'B100', 'Urban100')},
        voc={name: cat[:height] for name, height in (('2007_000027', 103), ('2007_000032', 71), ('2007_000033', 97))},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_demo()
        papers, open_data, of_a_scale = readme_commands()
        for line in papers:
            assert main([*line.split()[1:], '--allow-missing']) == 0
        for name, image in {
            'photos/a': retina[:744, :744],
            'held_out/b': retina[:200, :300],
            'kodak/c': retina[:300, :260],
        }.items():
            write_image(Path(f'datasets/open/{name}.png'), image)
        of_others = [re.sub(r'(LRbicx|--scale )4', rf'\g<1>{scale}', line) for scale in (2, 3) for line in of_a_scale]
        for line in [*open_data, *of_a_scale, *of_others]:
            if line.startswith('basicsr'):
                assert main(line.split()[1:]) == 0
            else:
                subprocess.run(['bash', '-c', line], check=True)
        for vgg in ('vgg16', 'vgg19'):
            features = getattr(models, vgg)(weights=None, num_classes=1, init_weights=False).features
            state = {f'features.{key}': value for key, value in features.state_dict().items()}
            weights_file(vgg, None).parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, weights_file(vgg, None))
    return root


def readme_commands() -> list[list[str]]:
    blocks = re.findall(r'```bash\n(.+?)```', (ROOT / 'datasets/README.md').read_text(), re.DOTALL)
    return [block.replace('~/Downloads', 'Downloads').splitlines() for block in blocks]


@pytest.fixture
def tree(made, tmp_path, monkeypatch):
    """A working directory with these data and weights, and no experiments."""
    (tmp_path / 'datasets').symlink_to(made / 'datasets')
    (tmp_path / 'experiments').mkdir()
    (tmp_path / 'experiments/pretrained_models').symlink_to(made / 'experiments/pretrained_models')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_data_are_as_in_the_readme(tree):
    def sizes(lmdb: str) -> dict[str, str]:
        lines = Path(f'datasets/{lmdb}.lmdb/meta_info.txt').read_text().splitlines()
        return {line.split()[0].removesuffix('.png'): line.split()[1] for line in lines}

    assert cv2.imread('datasets/Set5/LRbicx4/cat.png').shape == (24, 24, 3)
    assert cv2.imread('datasets/Set14/LRbicx8/cat.png').shape == (12, 12, 3)
    assert set(sizes('DIV2K/DIV2K_train_HRmod8_sub').values()) == {'(480,480,3)'}
    assert set(sizes('DIV2K/DIV2K_train_LRbicx8_sub').values()) == {'(60,60,3)'}
    assert {'0001_s001', '000001_s001', '000001_s002'} < sizes('DF2K/DF2K_train_LR_bicubic_X3_sub').keys()
    assert sizes('VOC2012/GTmod12') == {'2007_000027': '(96,96,3)', '2007_000033': '(96,96,3)'}
    assert sizes('VOC2012/LRbicx3') == {'2007_000027': '(32,32,3)', '2007_000033': '(32,32,3)'}


def write_networks(opt: dict, path: str) -> None:
    """A network file as training with these options writes it."""
    state = build_network(opt['network_g']).state_dict()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save({'params': state, 'params_ema': state, **describe_network('net_g', opt)}, path)


@pytest.mark.parametrize('path', recipes(), ids=lambda path: path.stem)
def test_everything_in_a_recipe_is_built(tree, path):
    """Checks options, reads data sets, builds networks, losses and optimisers, loads network files."""
    options = read_options(path)
    assert options.data['name'] == path.stem
    is_train = not path.stem.startswith('test_')
    pretrained = options.data['path'].get('pretrain_network_g')
    if pretrained and pretrained not in included():
        write_networks(data_of(Path(pretrained).parts[1]), pretrained)
    assert check_options(options, is_train) == []
    opt = fill_defaults(options, is_train)
    for dataset_opt in opt['datasets'].values():
        dataset, warnings = build_checked(dataset_opt)
        assert warnings == []
        sample = dataset[0]
        if dataset_opt['phase'] == 'train':
            assert sample['gt'].shape == (3, dataset_opt['gt_size'], dataset_opt['gt_size'])
        assert sample['gt'].shape[1] == sample['lq'].shape[1] * opt['scale']
    model = build_checked_model(opt)
    if is_train:
        optimizers = [key for key in opt['train'] if key.startswith('optim_')]
        assert len(model.optimizers) == len(model.schedulers) == len(optimizers)
        assert list(model.criteria) == list(read_options(path).data['train']['losses'])


@pytest.mark.parametrize('scale', [3, 4, 8])
def test_han_starts_from_its_network_for_x2(tree, scale):
    """All weights are loaded except those of the upsampling that are new or have another shape."""
    options = read_options(ROOT / f'options/train_HAN_x{scale}.yml')
    small = {'num_feat': 16, 'num_group': 2, 'num_block': 1}
    options.data['network_g'] |= small
    first = {'network_g': data_of('train_HAN_x2')['network_g'] | small}
    write_networks(first, options.data['path']['pretrain_network_g'])
    taken = torch.load(options.data['path']['pretrain_network_g'])['params']
    state = build_checked_model(fill_defaults(options, is_train=True)).net_g.state_dict()
    fresh = {key for key, value in state.items() if key not in taken or not torch.equal(value, taken[key])}
    names = {3: ['0.weight', '0.bias'], 4: ['2.weight', '2.bias'], 8: ['2.weight', '2.bias', '4.weight', '4.bias']}
    assert fresh == {f'upsample.{name}' for name in names[scale]}


def test_han_reports_the_missing_network_it_starts_from(tree):
    with pytest.raises(UserError, match=r'pretrain_network_g: experiments/train_HAN_x2/\S+ does not exist'):
        check_options(read_options(ROOT / 'options/train_HAN_x4.yml'), is_train=True)


@pytest.mark.slow
def test_the_papers_recipe_trains_and_its_network_is_tested(tree, capsys):
    """Only the batch and the number of iterations are smaller, for the time they take on a CPU."""
    small = ('datasets:train:batch_size_per_gpu=1', 'train:total_iter=2', 'logger:print_freq=1')
    printed = command_here('train', '-opt', 'train_EARN_x4.yml', '--force_yml', *small, capsys=capsys)
    assert re.search(r'iter: +2, .*l_pix: \S+ l_ssim: \S+ l_percep: \S+', printed)
    assert re.search(r'Set5 at iteration 2: psnr \S+ \(bicubic', printed)
    others = ('datasets:test_2=~', 'datasets:test_3=~', 'datasets:test_4=~')
    printed = command_here('test', '-opt', 'test_EARN_x4', '--force_yml', *others, capsys=capsys)
    assert re.search(r'^cat +\d', printed, re.MULTILINE)
    assert (tree / 'results/test_EARN_x4/visualization/Set5/cat_test_EARN_x4.png').is_file()


def test_missing_data_and_weights_of_a_recipe_are_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed = command_here('train', '-opt', 'train_EARN_x4', capsys=capsys, expect=2)
    assert 'datasets/DIV2K/DIV2K_train_HR_sub.lmdb does not exist' in printed
    assert 'datasets/README.md' in printed
    assert 'datasets/Set5/GTmod12 does not exist' in printed
    assert 'vgg19-dcbb9e9d.pth' in printed
    assert 'demo_EARN_x4' in printed


@pytest.mark.slow
def test_the_demo_recipe_beats_bicubic_on_held_out_photographs(tmp_path):
    """Even with a smaller network and a quarter of the samples. It makes its data first."""
    smaller = (
        'network_g:num_feat=16',
        'network_g:num_block=1',
        'datasets:train:batch_size_per_gpu=8',
        'datasets:train:gt_size=48',
        'train:optim_g:lr=2e-3',
        'train:total_iter=600',
        'train:scheduler:periods=[600]',
        'val:val_freq=600',
        'logger:use_tb_logger=false',
    )
    command('train', '-opt', 'demo_EARN_x4', '--force_yml', *smaller, cwd=tmp_path, timeout=600)
    (log,) = (tmp_path / 'experiments/demo_EARN_x4').glob('train_*.log')
    gains = re.findall(r'(psnr|ssim) \S+ \(bicubic \S+, ([+-]\S+)\)', log.read_text())
    assert [name for name, _ in gains] == ['psnr', 'ssim']
    assert all(float(gain) > 0 for _, gain in gains)

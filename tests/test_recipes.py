"""Every options file is sound, and the paper's recipe starts unedited on a tree made as datasets/README.md says."""

import re
from pathlib import Path

import cv2
import pytest
import torch
from basicsr.archs import build_network
from torchvision import models

from earn_plugin.data.prepare import subimages
from earn_plugin.options.checking import _Check
from earn_plugin.options.reading import read, recipes
from tests.conftest import ROOT, command


def test_there_are_the_recipes_of_the_paper_and_a_demo():
    names = {path.stem for path in recipes()}
    assert {'train_EARN_x2', 'train_EARN_x3', 'train_EARN_x4', 'test_EARN_x4', 'demo_EARN_x4'} <= names


@pytest.mark.parametrize('path', recipes(), ids=lambda path: path.stem)
def test_a_recipe_is_sound(path):
    """But for data and weights that are not there; the name is the file's, the network can be built."""
    options = read(path)
    assert options.data['name'] == path.stem
    checked = _Check(options, is_train=not path.stem.startswith('test_'))
    checked.run()
    assert [text for _, text in checked.problems if 'does not exist' not in text and 'weights of' not in text] == []
    assert checked.notes == []
    with torch.device('meta'):
        build_network(options.data['network_g'])


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_settings_are_the_papers(scale):
    opt = read(ROOT / f'options/train_EARN_x{scale}.yml').data
    train = opt['datasets']['train']
    assert (opt['scale'], opt['network_g']['upscale'], train['gt_size']) == (scale, scale, 48 * scale)
    assert train['batch_size_per_gpu'] == 32
    assert opt['train']['optim_g'] == {'type': 'Adam', 'lr': 1e-4, 'betas': [0.9, 0.999], 'eps': 1e-8}
    assert opt['train']['total_iter'] == 500 * 1000
    assert opt['train']['scheduler'] == {'type': 'MultiStepLR', 'milestones': [200 * 1000, 400 * 1000], 'gamma': 0.5}
    weights = {name: loss['loss_weight'] for name, loss in opt['train']['losses'].items()}
    assert weights == {'pix': 1.5, 'ssim': 0.6, 'percep': 0.4}
    assert {metric['crop_border'] for metric in opt['val']['metrics'].values()} == {scale}


def readme_code(number: int) -> str:
    return re.findall(r'```python\n(.+?)```', (ROOT / 'datasets/README.md').read_text(), re.DOTALL)[number]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A small DIV2K and Set5, made by the code in datasets/README.md."""
    from skimage import data

    from earn_plugin.data.prepare import make_lr

    monkeypatch.chdir(tmp_path)
    div2k = Path('datasets/DIV2K')
    (div2k / 'DIV2K_train_HR').mkdir(parents=True)
    retina = data.retina()[:1200, :1200, ::-1]
    for number, square in enumerate(subimages(retina, 480, 360), 1):
        cv2.imwrite(str(div2k / f'DIV2K_train_HR/{number:04d}.png'), square)
    cv2.imwrite(str(div2k / 'DIV2K_train_HR/0800.png'), retina)
    for scale in (2, 3, 4):
        make_lr(div2k / 'DIV2K_train_HR', div2k / f'DIV2K_train_LR_bicubic/X{scale}', scale, suffix=f'x{scale}')
    exec(compile(readme_code(0), 'datasets/README.md', 'exec'), {})
    Path('datasets/Set5/HR').mkdir(parents=True)
    cv2.imwrite('datasets/Set5/HR/cat.png', data.chelsea()[:103, :101, ::-1])
    exec(compile(readme_code(1), 'datasets/README.md', 'exec'), {})
    assert cv2.imread('datasets/Set5/LRbicx4/cat.png').shape == (24, 24, 3)
    torch.manual_seed(0)
    vgg = models.vgg19(weights=None, num_classes=1)
    del vgg.classifier
    Path('experiments/pretrained_models').mkdir(parents=True)
    torch.save(vgg.state_dict(), 'experiments/pretrained_models/vgg19-dcbb9e9d.pth')
    return tmp_path


@pytest.mark.slow
def test_the_papers_recipe_starts_unedited_and_its_network_is_tested(tree):
    """The batch is made small on the command line, for the time it takes on a CPU; the file stays as it is."""
    small = ('datasets:train:batch_size_per_gpu=1', 'train:total_iter=2', 'logger:print_freq=1')
    printed = command('train', '-opt', 'train_EARN_x4.yml', '--force_yml', *small, cwd=tree)
    assert re.search(r'iter: +2, .*l_pix: \S+ l_ssim: \S+ l_percep: \S+', printed)
    assert re.search(r'Set5 at iteration 2: psnr \S+ \(bicubic', printed)
    others = ('datasets:test_2=~', 'datasets:test_3=~', 'datasets:test_4=~')
    printed = command('test', '-opt', 'test_EARN_x4', '--force_yml', *others, cwd=tree)
    assert re.search(r'^cat +\d', printed, re.MULTILINE)
    assert (tree / 'results/test_EARN_x4/visualization/Set5/cat_test_EARN_x4.png').is_file()


def test_without_the_data_the_recipe_says_what_to_put_where(tmp_path):
    printed = command('train', '-opt', 'train_EARN_x4', cwd=tmp_path, expect=2)
    assert 'datasets/DIV2K/DIV2K_train_HR_sub.lmdb does not exist' in printed
    assert 'datasets/README.md says what to put there' in printed
    assert 'datasets/Set5/GTmod12 does not exist' in printed
    assert 'vgg19-dcbb9e9d.pth; fetch https://' in printed
    assert 'demo_EARN_x4' in printed


@pytest.mark.slow
def test_the_demo_recipe_beats_bicubic_on_photographs_it_has_not_seen(tmp_path):
    """Less than half of its samples are enough. It makes its data first."""
    shorter = (
        'train:total_iter=600',
        'train:scheduler:periods=[600]',
        'datasets:train:batch_size_per_gpu=8',
        'logger:use_tb_logger=false',
    )
    printed = command('train', '-opt', 'demo_EARN_x4', '--force_yml', *shorter, cwd=tmp_path, timeout=600)
    assert 'making the demo data set in datasets/demo' in printed
    last = re.findall(
        r'held_out at iteration 600: psnr (\S+) \(bicubic (\S+), \+\S+\), ssim (\S+) \(bicubic (\S+),', printed
    )
    psnr, bicubic_psnr, ssim, bicubic_ssim = map(float, last[-1])
    assert psnr > bicubic_psnr
    assert ssim > bicubic_ssim

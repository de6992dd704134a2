"""Training on a folder of photographs in one line, and from a network of another scale, as a user runs them."""

import re

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from tests.helpers.options import write_options
from tests.helpers.runs import losses, same, state_of


@pytest.fixture
def photos(tmp_path):
    """Four photographs as phones, cameras and scanners write them."""
    folder = tmp_path / 'meine Fötos'
    folder.mkdir()
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(data.astronaut()[:300, :200]).save(folder / 'phöne.jpg', exif=rotated)
    Image.fromarray(data.camera()).save(folder / 'scan.v2.png')
    Image.fromarray(data.coffee()).convert('CMYK').save(folder / 'print.jpg')
    cv2.imwrite(str(folder / 'raw.tif'), data.chelsea().astype(np.uint16) * 257)
    (folder / 'notes.txt').write_text('in May')
    return folder


def test_photographs_in_one_line(tiny, tmp_path, photos, run_here):
    """Fewer than a batch; resumed with the same command after one was added."""
    tiny['datasets']['train']['batch_size_per_gpu'] = 5
    tiny['val']['val_freq'] = 2
    options = write_options(tmp_path, tiny)
    line = ('train', '-opt', options, '--hr', f'{photos}/', '--auto_resume', '--force_yml')
    printed = run_here(*line, 'train:total_iter=2', 'datasets:val:center_crop=100', cwd=tmp_path)
    name = 'tiny_meine Fötos'
    assert f'{name}: 2 iterations of 5 samples, 3 training images' in printed
    held_out = re.search(r'3 images to train on; held out for validation: (\S+)', printed)[1]
    assert f'left out of {photos}: notes.txt is not an image' in printed
    assert re.search(r'held_out at iteration 2: psnr \d+\.\d+ \(bicubic', printed)
    dataset = state_of(tmp_path, 2, name)['options']['datasets']['val']
    assert (dataset['part'], dataset['dataroot_gt'], dataset['center_crop']) == ('val', str(photos), 100)

    Image.fromarray(data.rocket()).save(photos / 'later.jpg')
    printed = run_here(*line, 'train:total_iter=3', 'datasets:val:center_crop=100', cwd=tmp_path)
    assert re.search(r'resuming from \S+ \S+/2\.state', printed)
    again = re.search(r'4 images to train on; held out for validation: (\S+)', printed)[1]
    assert again in (held_out, 'later.jpg')
    assert 'resumed with a different' not in printed
    assert len(losses(tmp_path, name)) == 3


def test_training_starts_from_another_scale(tiny, tmp_path, photos, run_here):
    options = write_options(tmp_path, tiny)
    small = ('train:total_iter=2', 'val=~')
    run_here('train', '-opt', options, '--hr', photos, '--force_yml', *small, 'name=x2', cwd=tmp_path)
    first = torch.load(tmp_path / 'experiments/x2/models/net_g_latest.pth', weights_only=True)
    start = ('path:pretrain_network_g=experiments/x2/models/net_g_latest.pth', 'scale=4', 'network_g:upscale=4')
    still = ('train:optim_g:lr=1e-30', 'train:ema_decay=0.999999999999', 'name=x4', 'train:total_iter=1', 'val=~')
    printed = run_here('train', '-opt', options, '--hr', photos, '--force_yml', *start, *still, cwd=tmp_path)
    found = re.findall(r'(\d+) of the (\d+) weights of EARN fit and are loaded: (.*); unused: none', printed)
    assert len(found) == 2  # and the moving average
    assert int(found[0][1]) - int(found[0][0]) == 2
    assert re.search(r'conv_last 2, .*upsample 2 of 4|upsample 2 of 4, .*conv_last 2', found[0][2])
    assert 'initial values: upsample 2 of 4' in found[0][2]
    second = torch.load(tmp_path / 'experiments/x4/models/net_g_latest.pth', weights_only=True)
    for key in ('params', 'params_ema'):
        assert same({name: second[key][name] for name in first[key]}, first[key]), key
    assert second['arguments']['upscale'] == 4
    assert same(second['params']['upsample.2.weight'], second['params_ema']['upsample.2.weight'])

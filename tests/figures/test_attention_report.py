"""basicsr attention, as a user runs it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network

from tests.helpers.command import command_here
from tests.helpers.images import photograph

pytest.importorskip('matplotlib')

SMALL = {
    'EARN': ['num_feat=16', 'num_block=2'],
    'A2N': ['num_feat=8', 'num_block=2'],
    'HAN': ['num_feat=16', 'num_group=2', 'num_block=1'],
    'RK4RDN': ['num_feat=8', 'num_block=1'],
    'LGVAN': ['num_feat=8', 'num_block=2'],
}
FIGURES = {
    'EARN': [
        *('channel_attention', 'local_attention', 'local_attention_mean', 'mask', 'mask_frequencies'),
        *('pixel_attention', 'pixel_attention_frequencies'),
    ],
    'A2N': [
        *('branch_weights', 'enhanced_and_suppressed', 'pixel_attention', 'pixel_attention_frequencies'),
        'upsampling_attention',
    ],
    'HAN': ['channel_attention', 'channel_spatial_attention', 'layer_attention'],
    'RK4RDN': ['channel_attention', 'coefficients', 'non_local_attention'],
}


@pytest.fixture(autouse=True)
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('pics/more').mkdir(parents=True)
    for seed, (name, size) in enumerate({'a': (12, 16), 'b': (9, 7), 'more/c': (1, 1)}.items()):
        cv2.imwrite(f'pics/{name}.png', photograph(*size, seed))


def attention(arch, *arguments, capsys, expect=0, sets=()):
    return command_here('attention', arch, *arguments, '--set', *SMALL[arch], *sets, capsys=capsys, expect=expect)


@pytest.mark.parametrize('arch', FIGURES)
def test_each_kind_has_a_figure(arch, capsys):
    printed = attention(arch, 'pics/a.png', '--columns', '1', capsys=capsys)
    assert f'{arch} has its initial weights' in printed
    assert sorted(path.name for path in Path('attention').iterdir()) == [f'a_{kind}.png' for kind in FIGURES[arch]]
    for path in Path('attention').iterdir():
        image = cv2.imread(str(path))
        assert 1 < image.shape[1] / 300 < 3.7, path  # inches
        assert image.std() > 5, f'{path} is empty'


def test_several_pictures_give_means_and_deviations(capsys):
    attention('A2N', 'pics/b.png', 'pics/more', '-o', 'out', '--format', 'svg', '--json', 'out.json', capsys=capsys)
    own = ('enhanced_and_suppressed', 'pixel_attention', 'upsampling_attention')
    names = {f'{stem}_{kind}.svg' for stem in 'bc' for kind in own}
    names |= {'branch_weights.svg', 'pixel_attention_frequencies.svg'}
    assert {str(path.relative_to('out')) for path in Path('out').rglob('*.svg')} == names
    images = json.loads(Path('out.json').read_text())['images']
    assert [image['size'] for image in images] == [[7, 9], [1, 1]]
    assert np.shape(images[0]['attention']['pixel_attention'][0]['values']) == (9, 7)
    weights = [[block['values'] for block in image['attention']['branch_weights']] for image in images]
    np.testing.assert_allclose(np.sum(weights, 2), 1, atol=1e-4)
    assert images[1]['frequencies']['pixel_attention'] == {'high': [None] * 2, 'low': [None] * 2}


def test_pixel_is_column_and_row(capsys):
    for pixel in (['0', '8'], ['6', '0']):
        arguments = 'pics/b.png', '--pixel', *pixel, '--json', f'{pixel[0]}.json', '-o', 'x.svg'
        attention('RK4RDN', *arguments, capsys=capsys, sets=['order=1', 'attention=spatial'])
    read = [json.loads(Path(f'{name}.json').read_text())['images'][0] for name in ('0', '6')]
    assert [image['pixel'] for image in read] == [[0, 8], [6, 0]]
    first, second = (np.array(image['attention']['non_local_attention'][0]['values']) for image in read)
    assert first.sum() == pytest.approx(1, abs=1e-3)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['RK4RDN', 'pics/b.png', '--pixel', '7', '0'], 'pics/b.png has 7×9 pixels; X can be 0 to 6'),
        (['RK4RDN', 'pics/b.png', '--pixel', '0', '-1'], 'Y 0 to 8'),
        (['LGVAN', 'pics/none.png'], 'pics/none.png does not exist'),
        (['LGVAN', 'pics/a.png', '-o', 'a.jpg'], r'a.jpg: a figure ends in .png, .svg, .pdf'),
        (['LGVAN', 'pics/a.png', '-o', 'pics/a.png'], 'pics/a.png would replace an input'),
        (['LGVAN', 'pics/a.png', '-o', 'x.png', '--json', 'pics/a.png'], 'pics/a.png would replace an input'),
        (['LGVAN', 'pics/a.png', 'pics/a.png'], '2 pictures are named a'),
        (['LGVAN', 'pics/a.png', '--set', 'fused=true'], 'training form'),
        (
            ['SRVGGNetCompact', 'pics/a.png', '--set', 'num_in_ch=3', 'num_out_ch=3'],
            'A2N, DualAttentionRCAN, EARN, HAN',
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_written(arguments, message, capsys):
    before = {path: path.read_bytes() for path in Path().rglob('*.png')}
    printed = command_here('attention', *arguments, capsys=capsys, expect=2)
    assert message in printed
    assert {path: path.read_bytes() for path in Path().rglob('*') if path.is_file()} == before


def test_a_damaged_picture_and_a_colour_picture_for_a_grey_network(capsys):
    Path('bad.png').write_bytes(b'no')
    assert 'bad.png: is damaged' in attention('LGVAN', 'bad.png', capsys=capsys, expect=1)
    grey = ['num_in_ch=1', 'num_out_ch=1']
    assert 'pics/a.png is in colour' in attention('LGVAN', 'pics/a.png', capsys=capsys, expect=1, sets=grey)
    cv2.imwrite('grey.png', photograph(9, 9)[..., 0])
    attention('LGVAN', 'grey.png', capsys=capsys, sets=grey)


def test_a_checkpoint_has_no_initial_weights(capsys):
    network = build_network({'type': 'LGVAN', 'num_feat': 8, 'num_block': 2})
    torch.save({'params': network.state_dict()}, 'net.pth')
    printed = command_here('attention', 'net.pth', 'pics/a.png', '-o', 'gate.pdf', capsys=capsys)
    assert 'initial weights' not in printed
    assert Path('gate.pdf').read_bytes().startswith(b'%PDF')

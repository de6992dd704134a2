"""The command on real files: its numbers against BasicSR's metrics, regions, names, and mistakes."""

import json
import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils import img2tensor, tensor2img

pytest.importorskip('matplotlib')

import earn_plugin
from earn_plugin.archs.lgvan_arch import LGVAN
from earn_plugin.cli.figure_commands import split_label
from earn_plugin.convert.weight_files import describe_network, write_weights
from earn_plugin.data.bicubic import imresize
from earn_plugin.errors import UserError
from earn_plugin.figures.compared_methods import NetworkMethod, StoredMethod, name_of_results, read_compared_image
from earn_plugin.figures.comparison import compare_methods
from tests.helpers.command import command_here
from tests.helpers.images import photograph
from tests.helpers.pictures import Double


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """HR/a.png of 41×50 pixels, results of it and of another image, and tiny.safetensors, a small LGVAN ×2."""
    monkeypatch.chdir(tmp_path)
    write('HR/a.png', photograph(41, 50))
    write('HR/a_2.png', photograph(44, 40, 1))
    write('results/net/visualization/Set5/ax2_net.png', photograph(40, 50, 2))
    write('results/net/visualization/Set5/a_2_net.png', photograph(44, 40, 3))
    torch.manual_seed(0)
    options = {'network_g': {'type': 'LGVAN', 'num_feat': 16, 'num_block': 1, 'upscale': 2}, 'scale': 2}
    description = describe_network('net_g', options)
    write_weights(Path('tiny.safetensors'), LGVAN(**description['arguments']).state_dict(), description)


RESULTS = 'results/net/visualization/Set5'


def write(path: str, image: np.ndarray) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(path, image)


def measured(result: np.ndarray, target: np.ndarray) -> dict[str, float]:
    settings = {'crop_border': 2, 'test_y_channel': True}
    return {'psnr': calculate_psnr(result, target, **settings), 'ssim': calculate_ssim(result, target, **settings)}


def assert_same(metrics: dict[str, dict[str, float]], expected: dict[str, np.ndarray], target: np.ndarray) -> None:
    assert list(metrics) == list(expected)
    for label, result in expected.items():
        assert metrics[label] == pytest.approx(measured(result, target), rel=1e-9), label


def test_the_command(capsys):
    sources = ['tiny.safetensors', f'ours={RESULTS}']
    outputs = '-o', 'new/s.pdf', '--json', 'n.json'
    printed = command_here('compare', 'HR/a.png', '--with', *sources, *outputs, capsys=capsys)
    assert 'new/s.pdf written' in printed
    assert Path('new/s.pdf').read_bytes().startswith(b'%PDF')
    numbers = json.loads(Path('n.json').read_text())
    target = photograph(41, 50)[:40]
    lr = imresize(target, Fraction(1, 2))
    network = LGVAN(num_feat=16, num_block=1, upscale=2).eval()
    from safetensors.torch import load_file

    network.load_state_dict(load_file('tiny.safetensors'))
    with torch.inference_mode():
        output = tensor2img(network(img2tensor(lr / np.float32(255))[None]))
    results = {'Bicubic': imresize(lr, 2), 'LGVAN': output, 'ours': photograph(40, 50, 2)}
    (entry,) = numbers['images']
    assert_same(entry['methods'], results, target)
    for label, metrics in entry['methods'].items():
        assert f'{label:<7}  {metrics["psnr"]:.4f}  {metrics["ssim"]:.4f}' in printed
    assert numbers['scale'] == 2
    assert entry['region']['width'] == entry['region']['height'] == 20


@pytest.mark.parametrize('kind', ['grey', 'deep', 'alpha'])
def test_kinds_of_images(kind, capsys):
    image = photograph(40, 44)
    stored = {'grey': image[..., 0], 'deep': image.astype(np.uint16) * 257, 'alpha': np.dstack([image, image[..., 0]])}
    write('b.png', stored[kind])
    numbers = compare_methods(['b.png'], [NetworkMethod('doubled', 'Double', Double())], output='b.svg')
    target = cv2.imread('b.png')
    lr = imresize(target, Fraction(1, 2))
    doubled = tensor2img(Double()(img2tensor(lr / np.float32(255))[None]))
    assert_same(numbers['images'][0]['methods'], {'Bicubic': imresize(lr, 2), 'doubled': doubled}, target)
    assert 'read as 8-bit RGB' in capsys.readouterr().out


def test_networks_for_grey_images_take_these_only():
    grey = np.repeat(photograph(40, 44)[..., :1], 3, 2)
    write('grey.png', grey)
    metrics = compare_methods(['grey.png'], [NetworkMethod('n', 'Double', Double(1))])['images'][0]['methods']
    lr = imresize(grey, Fraction(1, 2))
    result = tensor2img(Double(1)(img2tensor(lr / np.float32(255))[None, :1]))
    assert_same(metrics, {'Bicubic': imresize(lr, 2), 'n': np.repeat(result[..., None], 3, 2)}, grey)
    with pytest.raises(UserError, match=r'n enlarges grey images only, and HR/a\.png is in colour'):
        compare_methods(['HR/a.png'], [NetworkMethod('n', 'Double', Double(1))])


def test_a_given_lr_image_gives_the_scale_and_what_is_enlarged(capsys):
    lr = photograph(20, 25, 7)
    write('lr/a_mine.png', lr)
    for given in ('lr', 'lr/a_mine.png'):
        scale = ['--scale', '2'] if given == 'lr' else []
        command_here('compare', 'HR/a.png', '--with', RESULTS, '--lr', given, *scale, '--json', 'n.json', capsys=capsys)
        metrics = json.loads(Path('n.json').read_text())['images'][0]['methods']
        assert_same(metrics, {'Bicubic': imresize(lr, 2), 'net': photograph(40, 50, 2)}, photograph(41, 50)[:40])


def test_several_images_are_rows_and_a_given_region_is_that_of_all(capsys):
    arguments = ['HR/a.png', 'HR/a_2.png', '--with', RESULTS, '--scale', '2', '--json', 'n.json']
    command_here('compare', *arguments, '--region', '3', '4', '20', '10', capsys=capsys)
    assert Path('sheet.png').exists()
    entries = json.loads(Path('n.json').read_text())['images']
    assert [entry['image'] for entry in entries] == ['HR/a.png', 'HR/a_2.png']
    assert {tuple(entry['region'].values()) for entry in entries} == {(3, 4, 20, 10)}


def test_the_region_is_where_two_methods_differ_not_where_bicubic_does():
    target = photograph(41, 50)
    target[4:12, 4:12] = 255 * (np.indices((8, 8)).sum(0) % 2)[..., None]  # which bicubic cannot have
    write('HR/a.png', target)
    write('one/a.png', target)
    target[20:25, 30:35] //= 2
    write('other/a.png', target)
    methods = [StoredMethod(name, name) for name in ('one', 'other')]
    (both,) = compare_methods(['HR/a.png'], methods, scale=2, region=(5, 5))['images']
    assert both['region'] == {'x': 30, 'y': 20, 'width': 5, 'height': 5}
    (one,) = compare_methods(['HR/a.png'], methods[:1], scale=2, region=(8, 8))['images']
    assert one['region'] == {'x': 4, 'y': 4, 'width': 8, 'height': 8}
    assert one['methods']['one'] == {'psnr': None, 'ssim': 1}


MISTAKES = {
    'HR/none.png --with tiny.safetensors': (2, 'HR/none.png does not exist'),
    'HR --with tiny.safetensors': (2, 'HR is a folder'),
    'HR/a.png --with none.pth': (1, 'none.pth'),
    'HR/a.png --with none': (2, 'none does not exist; included networks, by name: '),
    'HR/a.png --with results': (2, '--scale S'),
    'HR/a.png --with none --scale 2': (2, 'none does not exist'),
    'HR/a.png --with tiny.safetensors --scale 4': (2, 'LGVAN ×2, --scale ×4'),
    'HR/a.png --with tiny.safetensors --scale 0': (2, 'at least 1, got 0 by --scale'),
    'HR/a.png --with tiny.safetensors tiny.safetensors': (2, 'LGVAN'),
    'HR/a.png --with HR=tiny.safetensors': (2, 'HR'),
    'HR/a.png --with =tiny.safetensors': (2, 'NAME=SOURCE'),
    'HR/a.png --with tiny.safetensors -o sheet.gif': (2, 'sheet.gif'),
    'HR/a.png --with tiny.safetensors -o HR/../HR/a.png': (2, 'would be replaced'),
    'HR/a.png --with results/net/visualization/Set5 --scale 2 -o results/net/visualization/Set5/ax2_net.png': (
        2,
        'would be',
    ),
    'HR/a.png --with tiny.safetensors --json tiny.safetensors': (2, 'would be replaced'),
    'HR/a.png --with tiny.safetensors --region 40 0 11 4': (
        2,
        '--region 40 0 11 4 is not within HR/a.png, which has 50×40',
    ),
    'HR/a.png --with tiny.safetensors --region 1 2 3': (2, '--region 1 2 3'),
    'HR/a.png --with tiny.safetensors --region 0 0 0 9': (2, '--region 0 0 0 9'),
    'HR/a.png --with results/net/visualization/Set5/a_2_net.png --scale 2': (1, 'must have 50×40 pixels'),
    'HR/a.png HR/a_2.png --with results/net/visualization/Set5/a_2_net.png --scale 2': (2, 'is one file for 2 images'),
    'HR/a.png --with tiny.safetensors --lr HR/a_2.png': (1, 'HR/a_2.png must have 25×20 pixels'),
    'HR/a.png --with HR/a.png --scale 16': (1, 'at least 43 pixels'),
    'HR/a.png --with results --scale 2': (1, 'results has no image for a.png'),
}


@pytest.mark.parametrize('arguments', MISTAKES)
def test_mistakes(arguments, capsys):
    code, message = MISTAKES[arguments]
    assert message in command_here('compare', *arguments.split(), capsys=capsys, expect=code)
    assert not Path('sheet.png').exists()


def test_networks_run_in_tiles_that_equal_the_whole_image(capsys):
    method = NetworkMethod('n', 'tiny.safetensors', earn_plugin.load('tiny.safetensors'))
    image = read_compared_image(Path('HR/a.png'), 2)
    whole = method.result(image)
    assert not capsys.readouterr().out
    method.tiled.tile = 8
    np.testing.assert_array_equal(method.result(image), whole)
    assert capsys.readouterr().out == 'n, a.png: exact (overlap 12)\n'


def test_an_included_network_is_labelled_by_its_name(capsys):
    printed = command_here('compare', 'HR/a.png', '--with', 'A2N-S_x4', '--json', 'n.json', capsys=capsys)
    assert 'A2N-S_x4 ' in printed
    lr = imresize(photograph(40, 48), Fraction(1, 4))
    with torch.no_grad():
        result = tensor2img(earn_plugin.load('A2N-S_x4')(img2tensor(lr.astype(np.float32) / 255)[None]))
    metrics = json.loads(Path('n.json').read_text())['images'][0]['methods']
    settings = {'crop_border': 4, 'test_y_channel': True}
    target = cv2.imread('HR/a.png')[:40, :48]
    assert metrics['A2N-S_x4']['psnr'] == pytest.approx(calculate_psnr(result, target, **settings), abs=1e-3)


def test_a_network_that_fails_is_named():
    class Broken(Double):
        def forward(self, x):
            return super().forward(x) * (float('nan') if x.shape[2] == 20 else 1)

    with pytest.raises(UserError, match=r'ours fails on HR/a\.png: .*NaN'):
        compare_methods(['HR/a.png'], [NetworkMethod('ours', 'Broken', Broken())])


def test_labels(tmp_path):
    assert [name_of_results(Path(path)) for path in (RESULTS, 'results/net', 'HR/a.png')] == ['net', 'net', 'a']
    Path('EDSR_v1.2').mkdir()
    assert name_of_results(Path('EDSR_v1.2')) == 'EDSR_v1.2'
    assert name_of_results(Path()) == tmp_path.name
    assert split_label('Ours (2)=results/a=b', '--with') == ('Ours (2)', Path('results/a=b'))
    Path('a=b').mkdir()
    assert split_label('a=b', '--with') == ('', Path('a=b'))


def test_names_that_are_not_text():
    name = os.fsdecode(b'\xff\n$x_.png')
    Path('HR/a.png').rename(name)
    compare_methods([name], [NetworkMethod('a\tb', 'Double', Double())], report='n.json')
    assert json.loads(Path('n.json').read_text())['images'][0]['image'] == name


def test_official_networks(shared_data, capsys):
    """A2N's file does not record its scale, which --scale gives."""
    image, network = shared_data / 'Set5/HR/butterfly.png', shared_data.parent / 'weights/a2n_x2_official.pt'
    assert '--upscale 2' in command_here('compare', image, '--with', network, capsys=capsys, expect=2)
    assert '35.53' in command_here('compare', image, '--with', network, '--scale', '2', capsys=capsys)

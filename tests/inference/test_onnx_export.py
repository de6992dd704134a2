"""The command as a user runs it, and exported networks against torch: any size and number of images, or a refusal."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from PIL import Image
from torch import nn

from earn_plugin.convert.weight_files import describe_network, write_weights
from earn_plugin.errors import UsageError, UserError
from tests.helpers.command import command, command_here

pytest.importorskip('onnxruntime', reason='the packages of the extra "export" are not installed')
pytest.importorskip('onnxscript', reason='the packages of the extra "export" are not installed')

import onnx

from earn_plugin.inference import onnx_export, onnx_network
from earn_plugin.inference.onnx_export import HALF_LIMIT, Photographs, change_by_half, export_onnx, exported
from earn_plugin.inference.onnx_network import load_onnx
from earn_plugin.inference.tiles import TiledNetwork

SIZES = ((1, 4, 4), (3, 29, 7), (1, 33, 40))


def checkpoint(path: Path, **arguments) -> nn.Module:
    """Write a small network with weights that matter; returns it."""
    torch.manual_seed(0)
    network = build_network(dict(arguments)).eval().requires_grad_(False)
    for weight in network.parameters():
        if not weight.any():  # at zero a branch would not show
            weight.normal_(0, 0.1)
    description = describe_network('net_g', {'network_g': arguments, 'scale': arguments['upscale']})
    write_weights(path, network.state_dict(), description, ('params',))
    return network


def assert_same(network: nn.Module, path: Path) -> None:
    written = load_onnx(path)
    for number, height, width in SIZES:
        x = torch.rand(number, 3, height, width)
        torch.testing.assert_close(written(x), network(x), atol=1e-5, rtol=0)


@pytest.fixture(scope='module')
def lgvan(tmp_path_factory) -> tuple[Path, nn.Module]:
    """A folder with in.pth and out.onnx, as the command writes it, and the network."""
    folder = tmp_path_factory.mktemp('lgvan')
    network = checkpoint(folder / 'in.pth', type='LGVAN', upscale=3, num_feat=8, num_block=1)
    printed = command('export', 'in.pth', 'out.onnx', cwd=folder)
    assert 'fused form' in printed and 'written to out.onnx' in printed
    return folder, network


def test_the_command_writes_the_fused_form_and_where_it_is_from(lgvan):
    folder, network = lgvan
    assert sorted(path.name for path in folder.iterdir()) == ['in.pth', 'out.onnx']
    assert_same(network, folder / 'out.onnx')
    written = load_onnx(folder / 'out.onnx')
    assert (written.scale, written.multiple, written.largest) == (3, 1, None)
    assert written.smallest <= 4  # the strip convs' borders
    assert (written.reach, written.alignment) == (network.reach, 1)
    image = torch.rand(1, 3, 70, 90)
    tiled = TiledNetwork(written, 3, tile=32)
    assert tiled.describe(image) == f'exact (overlap {network.reach})'
    torch.testing.assert_close(tiled(image), network(image), atol=1e-5, rtol=0)
    assert written.metadata['checkpoint_sha256'] == hashlib.sha256((folder / 'in.pth').read_bytes()).hexdigest()
    assert written.metadata['arch'] == 'LGVAN' and '"fused": true' in written.metadata['arguments']
    assert written.metadata['command'] == 'basicsr export in.pth out.onnx'


def test_upscale_enlarges_pictures_with_the_file(lgvan, tmp_path, capsys):
    folder, _ = lgvan
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    for name, picture in (('colours.png', pixels), ('grey.png', pixels[..., 0])):
        Image.fromarray(picture).save(tmp_path / name)
        for model in ('in.pth', 'out.onnx'):
            command_here('upscale', tmp_path / name, tmp_path / model, '--model', folder / model, capsys=capsys)
        results = [np.array(Image.open(tmp_path / model / name)).astype(int) for model in ('in.pth', 'out.onnx')]
        assert results[0].shape[:2] == (27, 42)
        assert np.abs(results[0] - results[1]).max() <= 1  # at most the rounding
    wrong = ('--model', folder / 'out.onnx', '--upscale', '3')
    assert 'ONNX' in command_here('upscale', tmp_path / 'grey.png', tmp_path / 'x', *wrong, capsys=capsys, expect=2)


@pytest.mark.parametrize(
    ('arguments', 'largest'),
    [
        ({'type': 'EARN', 'num_feat': 16, 'num_block': 1, 'squeeze_factor': 4}, None),
        ({'type': 'RNAN', 'num_feat': 8, 'num_block': 2}, 128**2),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_a_network_is_exported_for_any_size_and_number_of_images(tmp_path, arguments, largest):
    network = checkpoint(tmp_path / 'in.pth', **arguments, upscale=2)
    printed = export_onnx(tmp_path / 'in.pth', tmp_path / 'out.onnx')
    assert ('at most 16,384 pixels' in printed) == (largest is not None)
    assert_same(network, tmp_path / 'out.onnx')
    written = load_onnx(tmp_path / 'out.onnx')
    assert written.largest == largest
    assert not hasattr(written, 'reach')  # the means and the non-local attention see the entire image


def test_a_result_that_differs_is_refused_with_the_numbers(lgvan, tmp_path, monkeypatch):
    folder, _ = lgvan
    model = onnx.load(folder / 'out.onnx')
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == 'upsample.3.bias')
    bias.raw_data = torch.full((3,), 0.01).numpy().tobytes()
    monkeypatch.setattr(onnx_export, 'exported', lambda *_: model)
    with pytest.raises(UserError, match=r'differs by 0\.\d+'):
        export_onnx(folder / 'in.pth', tmp_path / 'out.onnx')
    assert list(tmp_path.iterdir()) == []


class FixedSize(nn.Module):
    def forward(self, x):
        return x + torch.zeros(x.shape[0], 3, int(x.shape[2]), 24)


def test_a_network_that_fixes_a_size_is_refused():
    with pytest.raises(UserError, match=r'FixedSize cannot be exported: .+'):
        exported(FixedSize(), torch.rand(2, 3, 20, 24), 'FixedSize')


def test_half_precision_is_refused_where_it_changes_results():
    conv = nn.Conv2d(3, 3, 3, 1, 1).requires_grad_(False)
    images = Photographs(conv, 3)
    assert 0 < change_by_half(copy.deepcopy(conv).half(), conv, images, HALF_LIMIT) < HALF_LIMIT
    wide = nn.Sequential(conv, nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)).requires_grad_(False)
    wide[1].weight.mul_(1e6)  # beyond the largest float16
    wide[2].weight.mul_(1e-6)
    with pytest.raises(UserError, match='--half is refused'):
        change_by_half(copy.deepcopy(wide).half(), wide, images, HALF_LIMIT)


def test_images_have_sizes_that_the_network_takes():
    network = build_network(
        {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'scale': 1}
    )
    images = Photographs(network.requires_grad_(False), 3)
    assert images.multiple == 4
    assert images.crop(37, 23).shape == (1, 3, 36, 20)
    assert images.crop(96, 128, number=2).shape == (2, 3, 96, 128)


def test_errors_name_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r'an \.onnx file'):
        export_onnx(tmp_path / 'in.pth', tmp_path / 'out.pth')
    monkeypatch.setattr(onnx_network, 'find_spec', lambda name: None if name == 'onnxscript' else name)
    with pytest.raises(UserError, match='pip install onnxscript'):
        export_onnx(tmp_path / 'in.pth', tmp_path / 'out.onnx')

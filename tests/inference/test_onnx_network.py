"""Networks of ONNX files: those of other programs, sizes that they do not take, damaged files."""

from pathlib import Path

import pytest
import torch

from earn_plugin.errors import UserError

pytest.importorskip('onnx', reason='the packages of the extra "export" are not installed')
pytest.importorskip('onnxruntime', reason='the packages of the extra "export" are not installed')

import onnx

from earn_plugin.inference.onnx_network import load_onnx
from earn_plugin.inference.tiles import TiledNetwork


def write(path: Path, element: int = onnx.TensorProto.FLOAT, channels: int | str = 3, **metadata: int) -> Path:
    """A file that repeats each pixel twice in both directions."""
    shape = ['n', channels, 'h', 'w']
    scales = onnx.helper.make_tensor('scales', onnx.TensorProto.FLOAT, [4], [1, 1, 2, 2])
    node = onnx.helper.make_node('Resize', ['x', '', 'scales'], ['y'], mode='nearest')
    values = [onnx.helper.make_tensor_value_info(name, element, shape) for name in 'xy']
    graph = onnx.helper.make_graph([node], 'twice', values[:1], values[1:], [scales])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=10)
    onnx.helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize('element', [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16])
def test_a_file_of_another_program_runs_like_a_module(tmp_path, element):
    network = load_onnx(write(tmp_path / 'x.onnx', element))
    assert (network.scale, network.largest) == (2, None)
    x = torch.rand(1, 3, 5, 7).half().float()
    expected = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for dtype in (torch.float32, torch.float64, torch.float16):
        result = network(x.to(dtype))
        assert result.dtype == dtype
        torch.testing.assert_close(result, expected.to(dtype), atol=0, rtol=0)
    tiled = TiledNetwork(network, network.scale, tile=4)
    assert tiled.describe(x) == 'exact (overlap 0)'  # measured
    torch.testing.assert_close(tiled(x), expected, atol=0, rtol=0)


def test_a_file_for_any_number_of_channels_runs_in_colour(tmp_path):
    network = load_onnx(write(tmp_path / 'x.onnx', channels='c'))
    assert (network.channels, network.scale) == (3, 2)


def test_metadata_say_what_images_it_takes(tmp_path):
    facts = {'scale': 2, 'reach': 84, 'alignment': 2, 'smallest': 4, 'pixel_bytes': 5000, 'multiple': 2, 'largest': 64}
    network = load_onnx(write(tmp_path / 'x.onnx', **facts))
    assert {name: getattr(network, name) for name in facts} == facts
    assert network(torch.rand(1, 3, 4, 16)).shape == (1, 3, 8, 32)
    for size, message in (((2, 16), 'at least 4'), ((4, 7), 'multiples of 2'), ((10, 8), 'at most 64 pixels')):
        with pytest.raises(UserError, match=message):
            network(torch.rand(1, 3, *size))


def test_files_that_cannot_be_loaded_are_named(tmp_path):
    with pytest.raises(UserError, match=r'none\.onnx does not exist'):
        load_onnx(tmp_path / 'none.onnx')
    path = write(tmp_path / 'x.onnx')
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r'x\.onnx cannot be loaded'):
        load_onnx(path)


def test_an_image_that_does_not_fit_is_an_error_of_the_user(tmp_path):
    network = load_onnx(write(tmp_path / 'x.onnx'))
    with pytest.raises(UserError, match=r'x\.onnx failed for an image of 4×4'):
        network(torch.rand(1, 1, 4, 4))

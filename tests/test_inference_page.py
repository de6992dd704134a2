"""docs/inference.md: its commands and its Python are run one after the other, in a folder of their own."""

import re
import shlex
import subprocess
import sys

import cv2
import numpy as np
import pytest
from basicsr.archs import build_network

from earn_plugin.cli import main
from earn_plugin.convert.networks import load
from earn_plugin.convert.weight_files import describe_network, write_weights
from earn_plugin.weights import included
from tests.helpers.places import ROOT

PAGE = (ROOT / 'docs/inference.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```(\w+)\n(.+?)```', PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    options = {'type': 'LGVAN', 'num_feat': 8, 'num_block': 1}
    weights, description = build_network(dict(options)).state_dict(), describe_network('net_g', {'network_g': options})
    write_weights(tmp_path / 'lgvan_x4.pth', weights, description)
    (tmp_path / 'photos').mkdir()
    for name in ('photo.jpg', 'photos/a.jpg', 'photos/b.jpg'):
        cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_of_included_networks_is_complete():
    rows = dict(re.findall(r'^\| `(\S+)` \| ([\d,]+) \| \[\1\.md\]', PAGE, re.MULTILINE))
    counts = {name: sum(parameter.numel() for parameter in load(name).parameters()) for name in included()}
    assert rows == {name: f'{count:,}' for name, count in counts.items()}


@pytest.mark.slow
def test_the_page_runs(folder):
    pytest.importorskip('onnxscript', reason='an extra')
    pytest.importorskip('spandrel', reason='an extra')
    for language, text in BLOCKS:
        if language == 'python':
            exec(compile(text, 'docs/inference.md', 'exec'), {})
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line)
            if program == 'basicsr':
                assert main(words) == 0, line
            else:
                subprocess.run([sys.executable, '-m', 'torch.distributed.run', *words], check=True)
    for name in (
        'photo_x4.jpg',
        'photo_x4.png',
        'enlarged/a.png',
        'photos/a_x4.jpg',
        'shared/b.jpg',
        'from_onnx/a.jpg',
    ):
        assert cv2.imread(str(folder / name)).shape == (48, 40, 3), name
    exact, again, ensembled = (
        cv2.imread(str(folder / name)) for name in ('enlarged/a.png', 'from_python/a.png', 'ensembled/a.jpg')
    )
    assert (exact == again).all()
    assert (exact != ensembled).any()

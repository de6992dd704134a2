"""docs/understanding.md: its commands and its Python are run one after the other, on small networks and short logs."""

import re
import shlex

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network

pytest.importorskip('matplotlib')

from earn_plugin.cli import parser
from earn_plugin.convert.weight_files import describe_network, write_weights
from tests.helpers.command import command_here
from tests.helpers.places import ROOT

PAGE = (ROOT / 'docs/understanding.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```(\w+)\n(.+?)```', PAGE.replace('\\\n', ''), re.DOTALL)
PICTURES = re.findall(r'!\[.+?\]\((.+?)\)', PAGE)
A2N = {'type': 'A2N', 'num_feat': 8, 'num_upfeat': 8, 'num_block': 4}
LINE = '2026-11-26 02:43:2{0},683 INFO: [run..][epoch:  0, iter:{0:8,d}, lr:(1.000e-04,)] [eta: 0:00:01] l_pix: {0} \n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    torch.manual_seed(0)
    networks = {
        'lgvan_x4.pth': {'type': 'LGVAN', 'num_feat': 8, 'num_block': 2, 'upscale': 4},
        'a2n_x2.pth': {**A2N, 'upscale': 2},
    }
    for name, options in networks.items():
        description = describe_network('net_g', {'network_g': dict(options)})
        write_weights(tmp_path / name, build_network(dict(options)).state_dict(), description, ('params',))
    noise = np.random.default_rng(0).integers(0, 256, (216, 384), np.uint8)
    cv2.imwrite(str(tmp_path / 'perched-osprey.jpg'), cv2.resize(noise, (3840, 2160), interpolation=cv2.INTER_CUBIC))
    for run in ('demo_EARN_x4', 'demo_A2N_x4'):
        log = tmp_path / f'experiments/{run}/train_{run}.log'
        log.parent.mkdir(parents=True)
        log.write_text(''.join(LINE.format(iteration) for iteration in (1, 2)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_makes_its_pictures(folder, capsys):
    for language, text in BLOCKS:
        if language == 'python':
            exec(compile(text, 'docs/understanding.md', 'exec'), {})
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line)
            assert program == 'basicsr'
            if words[0] == 'ablate':  # which takes minutes
                parser().parse_args(words)
            else:
                command_here(*words, capsys=capsys)
    assert PICTURES
    for picture in PICTURES:
        assert (folder / picture).is_file() and (ROOT / 'docs' / picture).is_file(), picture
    assert sorted(PICTURES) == sorted(f'figures/{path.name}' for path in (ROOT / 'docs/figures').iterdir())

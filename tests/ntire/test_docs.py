"""Every command of docs/ntire.md, run in order."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import cv2
import pytest
import torch

from earn_plugin import cli
from earn_plugin.convert.networks import NetworkChoice, find_network
from tests.helpers.images import photograph
from tests.helpers.ntire_scripts import make_data, make_repo
from tests.helpers.places import ROOT

PAGE = (ROOT / 'docs/ntire.md').read_text(encoding='utf-8')
LINES = [line for block in re.findall(r'```bash\n(.+?)```', PAGE, re.DOTALL) for line in block.splitlines()]
CHECKPOINT = 'experiments/LGVAN_x4/models/net_g_latest.pth'


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder as the page assumes it: a small checkpoint, the year's data, the organisers' checkout."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / CHECKPOINT
    path.parent.mkdir(parents=True)
    found = find_network(NetworkChoice('LGVAN', {'num_feat': 4, 'num_block': 1}))
    weights = {'params': found.network.state_dict(), 'params_ema': found.network.state_dict()}
    torch.save({**weights, 'arch': 'LGVAN', 'arguments': found.arguments, 'scale': 4}, path)
    data = make_data(tmp_path / 'datasets/NTIRE2026', 2026)
    (data / 'DIV2K_LSDIR_test_LR').mkdir()
    cv2.imwrite(str(data / 'DIV2K_LSDIR_test_LR/0901x4.png'), photograph(20, 24))
    make_repo(tmp_path / 'NTIRE2026_ESR', 2026)
    return tmp_path


@pytest.mark.slow
def test_every_command(home):
    before = {path.name for path in (home / 'NTIRE2026_ESR').rglob('*')}
    env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    assert len(LINES) == 8
    for line in LINES:
        if line.startswith('basicsr '):
            assert cli.main(shlex.split(line)[1:]) == 0, line
        else:
            subprocess.run(
                line.replace('python ', f'{shlex.quote(sys.executable)} -B '), shell=True, check=True, env=env
            )
    new = {path.name for path in (home / 'NTIRE2026_ESR').rglob('*')} - before
    assert new == {'team60_LGVAN.py', 'team60_LGVAN.pth', 'results.json'}
    assert (home / 'quality/models/team18_LGVAN/__init__.py').exists()
    assert len(list((home / 'results').rglob('*.png'))) == 2
    shutil.unpack_archive('submission.zip', 'unpacked')
    assert sorted(path.name for path in (home / 'unpacked').iterdir()) == ['0901.png', 'readme.txt']


def test_the_page_names_every_file_of_an_export():
    for name in ('select_model.txt', 'factsheet.tex', 'factsheet.txt', 'CHECKLIST.md', 'models/team18_LGVAN.py'):
        assert f'`{name}`' in PAGE

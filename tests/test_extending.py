"""docs/extending.md: its files are written and its commands run, one after the other, in a folder of their own."""

import re
import shlex
import subprocess
import sys

import pytest
import torch

from tests.helpers.places import ROOT

PAGE = (ROOT / 'docs/extending.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```(\w+)\n(.+?)```', PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    printed = ''
    for language, text in BLOCKS:
        if language == 'bash':
            for line in text.splitlines():
                words = shlex.split(line.replace('basicsr ', 'python -m earn_plugin ', 1))
                done = subprocess.run(
                    [sys.executable, *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, line + done.stdout + done.stderr
                printed += done.stdout
        else:
            name = re.match(r'# (\w+\.\w+)\n', text)[1]
            (tmp_path / name).write_text(text, encoding='utf-8')
    assert 'Tiny(), training form, input 1×3×64×64' in printed
    assert 'equal outputs: True' in printed
    assert (tmp_path / 'ntire2026_team18_Tiny/models/team18_Tiny.py').exists()
    assert 'entry.weight' in torch.load(tmp_path / 'authors.pth', weights_only=True)
    log = next((tmp_path / 'experiments/Tiny_x4').glob('train_*.log')).read_text()
    assert 'l_gradient' in log

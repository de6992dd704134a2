import importlib.metadata
import shutil
from collections import namedtuple

import basicsr  # noqa: F401  (before its patches are replaced)
import pytest
import torch

from earn_plugin import compat, doctor

Usage = namedtuple('Usage', 'total used free')


def verdicts(check) -> dict[str, str]:
    return {text: verdict for verdict, text in doctor.results_of(check)}


def test_versions():
    ((text, verdict),) = verdicts(doctor.packages).items()
    assert f'torch {importlib.metadata.version("torch")}' in text
    assert verdict == 'ok'


def test_two_packages_of_opencv(monkeypatch):
    Package = namedtuple('Package', 'name')
    found = [Package(name) for name in ('opencv-python', 'torch', None, 'opencv-python-headless')]
    monkeypatch.setattr(importlib.metadata, 'distributions', lambda: found)
    (warning,) = [text for text, verdict in verdicts(doctor.packages).items() if verdict == 'warning']
    assert warning.startswith('opencv-python, opencv-python-headless ')


def test_a_torchvision_for_another_torch_is_a_warning(monkeypatch):
    monkeypatch.setattr(compat, 'applied', [*compat.TORCHVISION])
    ((text, verdict),) = verdicts(doctor.patches).items()
    assert verdict == 'warning'
    assert 'torchvision' in text


def test_a_full_disk_and_a_folder_without_permission(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: Usage(2**40, 0, 2**29))

    def refuse(dir):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(doctor.tempfile, 'TemporaryFile', refuse)
    full, read_only = verdicts(doctor.disk).items()
    assert full[1] == read_only[1] == 'problem'
    assert '0.5 GiB' in full[0]
    assert f'{tmp_path} is not writable (Permission denied)' in read_only[0]


def test_a_driver_without_a_cuda_build(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(shutil, 'which', lambda name: '/usr/bin/nvidia-smi')
    monkeypatch.setattr(torch.version, 'cuda', None)
    assert any('install a CUDA build' in text for text in verdicts(doctor.devices))


def test_a_check_that_raises_is_a_problem():
    def broken():
        raise ImportError('no such library')
        yield

    ((text, verdict),) = verdicts(broken).items()
    assert text.startswith('broken: ImportError: no such library')
    assert verdict == 'problem'


@pytest.mark.parametrize(('verdict', 'code'), [('ok', 0), ('warning', 0), ('problem', 1)])
def test_exit_code(monkeypatch, capsys, verdict, code):
    for name in ('packages', 'patches', 'devices', 'disk'):
        monkeypatch.setattr(doctor, name, lambda: iter([(verdict, 'found')]))
    assert doctor.examine() == code
    assert capsys.readouterr().out.count('found') == 4

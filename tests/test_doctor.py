import importlib.metadata
import shutil
from collections import namedtuple

import pytest
import torch

from earn_plugin import doctor

Usage = namedtuple('Usage', 'total used free')


def verdicts(check) -> dict[str, str]:
    return {text: verdict for verdict, text in doctor.safely(check)}


def test_versions_are_told():
    found = verdicts(doctor.packages)
    assert found[f'torch {importlib.metadata.version("torch")}'] == 'ok'


def test_a_missing_package_has_its_remedy(monkeypatch):
    monkeypatch.setattr(doctor, 'TESTED', ('no-such-package',))
    assert verdicts(doctor.packages) == {'no-such-package is not installed: pip install no-such-package': 'bad'}


def test_torchvision_that_does_not_fit_is_noted(monkeypatch):
    from earn_plugin import compat

    monkeypatch.setattr(compat, 'active', [*compat.TORCHVISION])
    ((text, verdict),) = verdicts(doctor.patches).items()
    assert verdict == 'note'
    assert 'torchvision was built for another torch' in text


def test_full_disk_and_folder_without_permission(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: Usage(2**40, 0, 2**29))

    def refuse(dir):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(doctor.tempfile, 'TemporaryFile', refuse)
    found = verdicts(doctor.disk)
    assert list(found.values()).count('bad') == 2
    assert any('0.5 GiB free' in text and 'make room' in text for text in found)
    assert any('cannot be written to (Permission denied): work in another folder' in text for text in found)


def test_driver_without_a_cuda_build(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(shutil, 'which', lambda name: '/usr/bin/nvidia-smi')
    monkeypatch.setattr(torch.version, 'cuda', None)
    assert any('install a CUDA build' in text for text in verdicts(doctor.devices))


def test_a_check_that_fails_is_a_finding():
    def broken():
        raise ImportError('no such library')
        yield

    assert verdicts(broken) == {
        'broken: ImportError: no such library; reinstall: pip install --force-reinstall earn_plugin': 'bad'
    }


@pytest.mark.parametrize(('verdict', 'code'), [('ok', 0), ('note', 0), ('bad', 1)])
def test_exit_code(monkeypatch, capsys, verdict, code):
    for name in ('python', 'packages', 'basicsr', 'patches', 'devices', 'disk'):
        monkeypatch.setattr(doctor, name, lambda: iter([(verdict, 'found')]))
    assert doctor.examine() == code
    assert capsys.readouterr().out.count('found') == 6

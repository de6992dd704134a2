"""A user's own code: imported by every command that can use it, in every process."""

import re
import sys
import textwrap

import pytest
import yaml
from basicsr.utils.registry import ARCH_REGISTRY

from earn_plugin.errors import UsageError, UserError
from earn_plugin.own_code import import_arch_file, import_module
from tests.helpers.command import command, torchrun

PROJECT = {
    'project/__init__.py': '',
    'project/archs.py': """
        from basicsr.utils.registry import ARCH_REGISTRY
        from torch import nn

        @ARCH_REGISTRY.register()
        class HAN(nn.Sequential):  # a name of ours
            def __init__(self, upscale=2):
                super().__init__(nn.Conv2d(3, 3 * upscale**2, 3, 1, 1), nn.PixelShuffle(upscale))
    """,
    'project/data.py': """
        from basicsr.data.paired_image_dataset import PairedImageDataset
        from basicsr.utils.registry import DATASET_REGISTRY

        @DATASET_REGISTRY.register()
        class OwnPairs(PairedImageDataset):
            pass
    """,
}


@pytest.fixture
def project(tmp_path, tiny):
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    tiny['network_g'] = {'type': 'HAN'}
    tiny['datasets']['train'].update(type='OwnPairs', num_worker_per_gpu=1)
    tiny['train'].update(total_iter=2, pixel_opt={'type': 'L1Loss'})
    tiny['train'].pop('losses', None)
    (tmp_path / 'tiny.yml').write_text(yaml.safe_dump(tiny))
    return tmp_path


def test_a_project_with_a_network_of_our_name_and_a_data_set(project):
    own = ('--import', 'project.archs', 'project.data')
    output = command('train', '-opt', 'tiny.yml', cwd=project, expect=2)
    assert 'OwnPairs' in output and '--import MODULE or --arch-file FILE' in output
    output = command('train', '-opt', 'tiny.yml', *own, cwd=project)
    assert 'HAN has 336 parameters' in output
    assert 'HAN is that of project.archs; the one of earn_plugin is registered as HAN_basicsr' in output
    weights = 'experiments/tiny/models/net_g_latest.pth'
    output = command('convert', weights, 'own.safetensors', '--import', 'project.archs', cwd=project)
    assert f'{weights}: HAN checkpoint' in output and 'HAN(upscale=2)' in output
    listed = command('list', '--import', 'project.archs', cwd=project)
    assert re.search(r'^  HAN +336 parameters$', listed, re.M) and re.search(r'^  HAN_basicsr +16,', listed, re.M)


def test_torchrun_and_spawned_workers_import_it(project):
    data = project / 'project/data.py'
    data.write_text(
        f"import multiprocessing\nmultiprocessing.set_start_method('spawn', force=True)\n{data.read_text()}"
    )
    arguments = ('-opt', 'tiny.yml', '--arch-file', 'project/archs.py', '--import', 'project.data')
    assert torchrun(project, 'train', *arguments).count('end of training') == 1


def test_a_file_inside_a_package_is_imported_as_its_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'team_of_test').mkdir()
    for name, text in {
        '__init__': '',
        'parts': 'SIZE = 7\n',
        'net_arch': 'from basicsr.utils.registry import ARCH_REGISTRY\nfrom .parts import SIZE\n'
        '@ARCH_REGISTRY.register()\nclass TeamNetOfTest:\n    size = SIZE\n',
    }.items():
        (tmp_path / f'team_of_test/{name}.py').write_text(text)
    import_arch_file(tmp_path / 'team_of_test/net_arch.py')
    assert ARCH_REGISTRY._obj_map.pop('TeamNetOfTest').size == 7


def test_a_file_inside_an_old_basicsr(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    archs = tmp_path / 'basicsr' / 'archs'
    archs.mkdir(parents=True)
    for folder in (archs.parent, archs):
        (folder / '__init__.py').write_text('raise RuntimeError')
    (archs / 'from_old_arch.py').write_text('from basicsr.archs.arch_util import trunc_normal_')
    import_arch_file(archs / 'from_old_arch.py')
    assert sys.modules.pop('from_old_arch').trunc_normal_


def test_a_file_that_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'net_arch_of_test.py').write_text('import nothing_of_that_name\n')
    with pytest.raises(UserError, match=r'net_arch_of_test\.py cannot be imported: ModuleNotFoundError'):
        import_arch_file(tmp_path / 'net_arch_of_test.py')
    for name in ('types', 'sys'):
        (tmp_path / f'{name}.py').touch()
        with pytest.raises(UserError, match=rf'{name}\.py cannot be imported: .*rename the file'):
            import_arch_file(tmp_path / f'{name}.py')
    for name in ('none', 'x' * 5000, 'a\0b'):
        with pytest.raises(UsageError, match=r'\.py is not a Python file'):
            import_arch_file(tmp_path / f'{name}.py')


def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    for name, text in {'needs': 'import nothing_of_that_name', 'ends': 'raise SystemExit(3)', 'wrong': 'def'}.items():
        (tmp_path / f'{name}_of_test.py').write_text(text)
        with pytest.raises(UserError, match=rf'--import {name}_of_test cannot be imported: \w+'):
            import_module(f'{name}_of_test')
    (tmp_path / 'file_of_test.py').touch()
    for name, missing in {'none_of_test.archs': 'none_of_test', 'file_of_test.py': r'file_of_test\.py'}.items():
        with pytest.raises(UsageError, match=rf'there is no module {missing}, .*--arch-file FILE'):
            import_module(name)


def test_a_name_that_is_not_defined_has_its_line(tmp_path, monkeypatch):
    (tmp_path / 'undefined_arch.py').write_text('import torch\n\nx = nn.Module\n')
    monkeypatch.setattr(sys, 'path', sys.path[:])
    with pytest.raises(UserError, match=r"name 'nn' is not defined \(.*undefined_arch\.py, line 3: x = nn\.Module\)"):
        import_arch_file(tmp_path / 'undefined_arch.py')

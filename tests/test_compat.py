"""The patches; in separate processes where the order of imports matters, because here basicsr is patched already."""

import multiprocessing
import os
import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import data_util
from basicsr.metrics import calculate_niqe, calculate_psnr
from basicsr.utils import DiffJPEG, FileClient
from basicsr.utils.img_process_util import filter2D
from skimage.data import chelsea

from tests.helpers.places import ROOT


def run(code: str) -> None:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_import_is_cheap_and_enough_for_a_plain_basicsr_project():
    run("""
        import importlib.util, sys
        import earn_plugin
        assert importlib.util.find_spec('basicsr').name == 'basicsr'
        assert 'torch' not in sys.modules and 'basicsr' not in sys.modules
        from basicsr.archs import build_network
        from basicsr.losses import build_loss
        from basicsr.utils.registry import MODEL_REGISTRY
        network = build_network(dict(type='EARN', upscale=4))
        assert sum(p.numel() for p in network.parameters()) == 2_181_443
        assert build_loss(dict(type='SSIMLoss', loss_weight=0.5)).loss_weight == 0.5
        assert 'EARNModel' in MODEL_REGISTRY
    """)


def test_torchvision_may_be_imported_first_and_an_architecture_directly():
    run("""
        import earn_plugin, torchvision
        torchvision.models.vgg19
        from earn_plugin.archs.earn_arch import EARN
        EARN(num_feat=16, num_block=1)
    """)


def test_basicsr_may_be_imported_first_and_an_older_torchvision_keeps_its_module():
    run("""
        import importlib.util, sys, types
        from earn_plugin import compat
        compat._apply(*compat.TORCHVISION)
        import torchvision.transforms
        own = types.ModuleType('torchvision.transforms.functional_tensor')
        own.__spec__ = importlib.util.spec_from_loader(own.__name__, None)
        own.rgb_to_grayscale = 'own'
        sys.modules[own.__name__] = own
        compat._apply(*compat.BEFORE)  # as if stock basicsr could be imported here
        assert not any('functional_tensor' in patch.problem for patch in compat.applied)
        for name in [n for n in sys.modules if n.startswith('earn_plugin')]:
            del sys.modules[name]
        sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != '_Finder']
        import basicsr.data.degradations
        from basicsr.utils.registry import ARCH_REGISTRY
        assert basicsr.data.degradations.rgb_to_grayscale == 'own'
        assert 'EARN' not in ARCH_REGISTRY
        import earn_plugin
        assert 'EARN' in ARCH_REGISTRY
    """)


def test_the_registry_may_be_imported_alone_and_the_rest_later():
    run("""
        import sys
        import earn_plugin
        from earn_plugin import compat
        for _ in range(2):
            with compat.registry_alone():
                import earn_plugin.archs
            assert not [name for name in sys.modules if name.startswith('basicsr')]
        from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY
        assert ARCH_REGISTRY.get('EARN') is earn_plugin.archs.EARN
        assert 'RRDBNet' in ARCH_REGISTRY and {'SRModel', 'EARNModel'} <= set(MODEL_REGISTRY.keys())
        import basicsr.models
        assert basicsr.utils.registry.ARCH_REGISTRY is basicsr.archs.ARCH_REGISTRY is ARCH_REGISTRY
        with compat.registry_alone():  # without effect by now
            from basicsr.utils import registry
        assert registry is sys.modules['basicsr.utils.registry']
    """)


def test_an_older_basicsr_is_not_imported_in_part(tmp_path):
    (tmp_path / 'basicsr/utils').mkdir(parents=True)
    (tmp_path / 'basicsr/__init__.py').touch()
    (tmp_path / 'basicsr/utils/registry.py').touch()
    run(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from earn_plugin import compat
        with compat.registry_alone():
            assert 'basicsr.utils.registry' not in sys.modules
    """)


def test_one_lmdb_serves_two_readers_and_forked_workers(pairs):
    def client():
        return FileClient('lmdb', db_paths=[str(pairs / 'HR.lmdb')], client_keys=['gt'])

    first = client()
    content = bytes(first.get('im00', 'gt'))
    assert content[:4] == b'\x89PNG'
    assert bytes(client().get('im00', 'gt')) == content

    def read_as_a_worker():
        assert bytes(client().get('im00', 'gt')) == content

    worker = multiprocessing.get_context('fork').Process(target=read_as_a_worker)
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert bytes(first.get('im01', 'gt')) != content


def test_folders_are_paired_in_order(tmp_path):
    for folder in ('HR', 'LR'):
        (tmp_path / folder).mkdir()
        for name in ('b', 'd', 'a', 'c', 'e', 'aa'):
            (tmp_path / folder / f'{name}.png').touch()
    folders = [str(tmp_path / 'LR'), str(tmp_path / 'HR')]
    pairs = data_util.paired_paths_from_folder(folders, ['lq', 'gt'], '{}')
    wanted = ['a.png', 'aa.png', 'b.png', 'c.png', 'd.png', 'e.png']
    assert [pair['gt_path'] for pair in pairs] == [f'{folders[1]}/{name}' for name in wanted]
    assert [pair['lq_path'] for pair in pairs] == [f'{folders[0]}/{name}' for name in wanted]
    assert data_util.paths_from_folder(folders[0]) == [pair['lq_path'] for pair in pairs]
    with pytest.raises(AssertionError, match=r'^ax2\.png is not in lq_paths\.'):
        data_util.paired_paths_from_folder(folders, ['lq', 'gt'], '{}x2')
    cv2.imwrite(str(tmp_path / 'one.png'), np.zeros((4, 5, 3), np.uint8))
    assert data_util.read_img_seq([str(tmp_path / 'one.png')]).shape == (1, 3, 4, 5)


def test_folders_are_paired_in_linear_time(monkeypatch):
    compared = []

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str(self) == str(other)

    monkeypatch.setattr(data_util, 'scandir', lambda folder: [Name(f'{number}.png') for number in range(300)])
    assert len(data_util.paired_paths_from_folder(['lq', 'gt'], ['lq', 'gt'], '{}')) == 300
    assert len(compared) < 2000


@pytest.mark.filterwarnings('ignore')
def test_a_jpeg_can_be_blurred_on_a_cpu():
    x, kernels = torch.rand(2, 3, 24, 40), torch.rand(2, 7, 7)
    compressed = DiffJPEG(differentiable=False)(x, quality=x.new_tensor([50.0, 90.0]))
    assert filter2D(compressed, kernels).shape == x.shape  # as RealESRGAN models do


def test_metrics_run():
    image = chelsea()
    assert 0 < calculate_niqe(image, 0) < 20
    assert calculate_psnr(image, image, 0) == float('inf')

"""The patches, in separate processes, because basicsr is already patched in that of the tests."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests.helpers.places import ROOT


def run(code: str) -> str:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_cheap_and_enough_for_a_plain_basicsr_project():
    printed = run("""
        import sys
        import earn_plugin
        assert 'torch' not in sys.modules and 'basicsr' not in sys.modules
        from basicsr.archs import build_network
        from basicsr.losses import build_loss
        from basicsr.utils.registry import MODEL_REGISTRY
        network = build_network(dict(type='EARN', upscale=4))
        assert 'EARNModel' in MODEL_REGISTRY
        assert build_loss(dict(type='SSIMLoss', loss_weight=0.5)).loss_weight == 0.5
        print(sum(p.numel() for p in network.parameters()))
    """)
    assert printed == '2181443'


def test_basicsr_may_be_imported_first():
    run("""
        from earn_plugin import compat
        compat._apply(*compat.TORCHVISION, *compat.BEFORE)  # as if stock basicsr could be imported here
        import sys
        for name in [n for n in sys.modules if n.startswith('earn_plugin')]:
            del sys.modules[name]
        sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != '_Finder']
        import basicsr
        from basicsr.utils.registry import ARCH_REGISTRY
        assert 'EARN' not in ARCH_REGISTRY
        import earn_plugin
        assert 'EARN' in ARCH_REGISTRY
    """)


def test_torchvision_can_be_imported_first():
    run('import earn_plugin, torchvision, basicsr; torchvision.models.vgg19')


def test_an_architecture_can_be_imported_directly():
    run('from earn_plugin.archs.earn_arch import EARN; EARN(num_feat=16, num_block=1)')


def test_a_patch_is_not_applied_where_it_is_not_needed():
    """An older torchvision keeps its own module."""
    run("""
        import importlib.util, sys, types
        from earn_plugin import compat
        compat._apply(*compat.TORCHVISION)
        import torchvision.transforms
        own = types.ModuleType('torchvision.transforms.functional_tensor')
        own.__spec__ = importlib.util.spec_from_loader(own.__name__, None)
        own.rgb_to_grayscale = 'own'
        sys.modules[own.__name__] = own
        import basicsr.data.degradations as d
        assert d.rgb_to_grayscale == 'own'
        assert not any('functional_tensor' in patch.problem for patch in compat.applied)
        assert {*compat.applied} < {*compat.TORCHVISION, *compat.BEFORE, *compat.AFTER}
    """)


def test_finding_basicsr_without_importing_it_changes_nothing():
    run("""
        import importlib.util, sys
        import earn_plugin
        assert importlib.util.find_spec('basicsr').name == 'basicsr'
        assert 'torch' not in sys.modules
        import basicsr
        assert basicsr.__version__ == '1.4.2'
    """)


@pytest.mark.parametrize('where', ['same process', 'forked worker'])
def test_one_lmdb_serves_two_readers(pairs, where):
    run(f"""
        import os
        import earn_plugin
        from basicsr.utils import FileClient
        def client():
            return FileClient('lmdb', db_paths={[str(pairs / 'HR.lmdb')]!r}, client_keys=['gt'])
        first = client()
        content = bytes(first.get('im00', 'gt'))
        assert content[:4] == b'\\x89PNG'
        if {where!r} == 'same process':
            assert bytes(client().get('im00', 'gt')) == content
        else:
            child = os.fork()
            if not child:
                os._exit(0 if bytes(client().get('im00', 'gt')) == content else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert bytes(first.get('im01', 'gt')) != content
    """)


def test_folders_are_paired_in_order_and_in_linear_time(tmp_path):
    for folder in ('HR', 'LR'):
        (tmp_path / folder).mkdir()
        for name in ('b', 'd', 'a', 'c', 'e', 'aa'):
            (tmp_path / folder / f'{name}.png').touch()
    run(f"""
        import cv2
        import numpy as np
        import earn_plugin
        from basicsr.data import data_util
        folders = [{str(tmp_path / 'LR')!r}, {str(tmp_path / 'HR')!r}]
        pairs = data_util.paired_paths_from_folder(folders, ['lq', 'gt'], '{{}}')
        wanted = ['a.png', 'aa.png', 'b.png', 'c.png', 'd.png', 'e.png']
        assert [pair['gt_path'] for pair in pairs] == [folders[1] + '/' + name for name in wanted]
        assert [pair['lq_path'] for pair in pairs] == [folders[0] + '/' + name for name in wanted]
        cv2.imwrite({str(tmp_path / 'one.png')!r}, np.zeros((4, 5, 3), np.uint8))
        assert data_util.read_img_seq([{str(tmp_path / 'one.png')!r}]).shape == (1, 3, 4, 5)
        assert data_util.paths_from_folder(folders[0]) == [pair['lq_path'] for pair in pairs]
        try:
            data_util.paired_paths_from_folder(folders, ['lq', 'gt'], '{{}}x2')
        except AssertionError as error:
            assert str(error) == 'ax2.png is not in lq_paths.'
        else:
            raise SystemExit(1)

        compared = 0
        class Name(str):
            __hash__ = str.__hash__
            def __eq__(self, other):
                global compared
                compared += 1
                return str(self) == str(other)
        data_util.scandir = lambda folder: [Name(f'{{number}}.png') for number in range(300)]
        assert len(data_util.paired_paths_from_folder(['lq', 'gt'], ['lq', 'gt'], '{{}}')) == 300
        assert compared < 2000
    """)


def test_metrics_run():
    run("""
        import earn_plugin
        from basicsr.metrics import calculate_niqe, calculate_psnr
        from skimage.data import chelsea
        image = chelsea()
        assert 0 < calculate_niqe(image, 0) < 20
        assert calculate_psnr(image, image, 0) == float('inf')
    """)

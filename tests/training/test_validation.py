"""Validation during training: failures, data sets without targets, several data sets."""

import re

import pytest
import torch
from basicsr.utils.registry import METRIC_REGISTRY

from earn_plugin.training.train import Training
from tests.helpers.command import command
from tests.helpers.images import write_pairs
from tests.helpers.options import write_options
from tests.helpers.runs import same, state_of

pytestmark = pytest.mark.slow


@pytest.fixture
def metric(monkeypatch):
    """Registers a metric for the time of a test."""
    return lambda function: monkeypatch.setitem(METRIC_REGISTRY._obj_map, function.__name__, function)


def failing(img, img2):
    raise ValueError('no such value')


def leaving(img, img2):
    torch.set_grad_enabled(False)
    raise SystemExit(3)


def brightness(img, **unused):
    return img.mean()


def compile_nothing(graph, inputs):
    raise AssertionError('compiled for this size')


@torch.compile(backend=compile_nothing)
def double(x):
    return x * 2


def eager(img, img2):
    assert not torch.backends.cudnn.benchmark
    return float(double(torch.ones(img.shape[:2])).mean())


def test_images_of_many_sizes_are_neither_compiled_nor_searched_kernels_for(tiny, tmp_path, run_here, metric):
    metric(eager)
    before, seen = torch.backends.cudnn.benchmark, []
    tiny['val']['metrics'] = {'twice': {'type': 'eager'}}
    with pytest.MonkeyPatch.context() as patch:
        step = Training.step
        patch.setattr(Training, 'step', lambda *args: (seen.append(torch.backends.cudnn.benchmark), step(*args)))
        printed = run_here('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path)
    assert 'held_out at iteration 6: twice 2.0000' in printed
    assert seen == [True] * 6
    assert torch.backends.cudnn.benchmark == before


def test_a_failing_metric_ends_the_run_with_its_state_or_is_skipped(tiny, tmp_path, run_here, metric):
    metric(failing)
    tiny['logger']['save_checkpoint_freq'] = 100
    (tmp_path / 'plain').mkdir()
    run_here('train', '-opt', write_options(tmp_path, tiny | {'val': None}), cwd=tmp_path / 'plain')
    tiny['val']['metrics'] = {'wrong': {'type': 'failing'}}
    options = write_options(tmp_path, tiny)
    printed = run_here('train', '-opt', options, cwd=tmp_path, expect=1)
    assert 'validation on held_out failed: image im00, metric failing, no such value. ' in printed
    assert state_of(tmp_path, 3)['iter'] == 3
    assert (tmp_path / 'experiments/tiny/models/net_g_3.pth').exists()
    skip = ('--auto_resume', '--force_yml', 'val:on_error=skip')
    printed = run_here('train', '-opt', options, *skip, cwd=tmp_path)
    assert printed.count('image im00, metric failing, no such value; continuing') == 2
    assert same(state_of(tmp_path, 6)['networks'], state_of(tmp_path / 'plain', 6)['networks'])


def test_a_metric_that_exits_and_turns_gradients_off_does_not_end_training(tiny, tmp_path, run_here, metric):
    metric(leaving)
    tiny['val'].update(metrics={'left': {'type': 'leaving'}}, on_error='skip')
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path)
    assert printed.count('metric leaving, SystemExit: 3; continuing') == 2
    assert torch.is_grad_enabled()


def test_without_targets_only_metrics_that_need_none_are_computed(tiny, tmp_path, run_here, metric):
    metric(brightness)
    tiny['val'].update(metrics={**tiny['val']['metrics'], 'mean': {'type': 'brightness'}}, save_img=True)
    single = {**tiny['datasets']['val'], 'type': 'SingleImageDataset', 'name': 'alone'}
    tiny['datasets']['val_2'] = {key: value for key, value in single.items() if key != 'dataroot_gt'}
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path)
    assert 'alone has no ground truth: mean' in printed
    assert re.search(r'held_out at iteration 3: psnr .*ssim .*mean ', printed)
    assert re.search(r'alone at iteration 3: mean \d+\.\d{4}$', printed, re.MULTILINE)
    best = state_of(tmp_path, 6)['best_metric_results']
    assert set(best['held_out']) == {'psnr', 'ssim', 'mean'} and set(best['alone']) == {'mean'}


def test_data_sets_with_the_same_image_names_stay_apart(tiny, tmp_path, run_here):
    root = write_pairs(tmp_path / 'others', 2, size=(28, 24))
    tiny['datasets']['val_2'] = {
        **tiny['datasets']['val'],
        **{'name': 'others', 'dataroot_gt': str(root / 'HR'), 'dataroot_lq': str(root / 'LR')},
        'io_backend': {'type': 'disk'},
    }
    tiny['val'].update(save_img=True, val_freq=6)
    printed = run_here('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path)
    folder = tmp_path / 'experiments/tiny/visualization'
    pictures = [folder / name / 'im00/im00_6.png' for name in ('held_out', 'others')]
    assert pictures[0].read_bytes() != pictures[1].read_bytes()
    bicubic = re.findall(r' at iteration 6: psnr .*?\(bicubic (\d+\.\d+)', printed)
    assert len(set(bicubic)) == 2


def test_pictures_of_one_name_in_a_data_set_stay_apart(tiny, tmp_path, run_here):
    root = write_pairs(tmp_path / 'pairs', 2)
    for side in ('HR', 'LR'):
        (root / side / 'im01.png').rename(root / side / 'im00.bmp')  # decoders look at the content
    dataset = tiny['datasets']['val']
    dataset.update(dataroot_gt=str(root / 'HR'), dataroot_lq=str(root / 'LR'), io_backend={'type': 'disk'})
    tiny['val'].update(save_img=True, val_freq=6)
    run_here('train', '-opt', write_options(tmp_path, tiny), cwd=tmp_path)
    pictures = sorted((tmp_path / 'experiments/tiny/visualization/im00').iterdir())
    assert [path.name for path in pictures] == ['im00_6.png', 'im00_6_2.png']
    assert pictures[0].read_bytes() != pictures[1].read_bytes()


def test_a_picture_that_cannot_be_written_does_not_end_the_run(tiny, tmp_path, run_here):
    tiny['val']['save_img'] = True
    options = write_options(tmp_path, tiny)
    run_here('train', '-opt', options, '--force_yml', 'train:total_iter=2', 'val:save_img=false', cwd=tmp_path)
    folder = tmp_path / 'experiments/tiny/visualization'
    for name in ('im00', 'im01'):
        (folder / name).touch()  # where a folder would be
    printed = run_here('train', '-opt', options, '--auto_resume', cwd=tmp_path)
    assert len(re.findall(rf'cannot write {folder}/im00/im00_\d\.png, training continues: ', printed)) == 2
    assert 'im01_' not in printed
    assert (folder / 'im02/im02_6.png').exists()


DEADLY = """
import os, pathlib, signal
from basicsr.utils.registry import METRIC_REGISTRY

@METRIC_REGISTRY.register()
def deadly(img, img2, **unused):
    if not pathlib.Path('again').exists() and pathlib.Path('experiments/tiny/training_states/3.state').exists():
        pathlib.Path('again').touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(img.mean())
"""


def test_a_run_killed_in_a_validation_validates_when_it_resumes(tiny, tmp_path):
    (tmp_path / 'deadly.py').write_text(DEADLY)
    tiny['val']['metrics'] = {'mean': {'type': 'deadly', 'better': 'lower'}}
    arguments = ('train', '-opt', write_options(tmp_path, tiny), '--arch-file', 'deadly.py', '--auto_resume')
    killed = command(*arguments, cwd=tmp_path, expect=-9)
    assert 'at iteration 3' not in killed and state_of(tmp_path, 3)['validated_at'] == -1
    printed = command(*arguments, cwd=tmp_path)
    assert re.findall(r'held_out at iteration (\d)', printed) == ['3', '6']
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one/again').touch()
    command(*arguments[:-3], '--arch-file', '../deadly.py', cwd=tmp_path / 'one')
    for iteration in (3, 6):
        one, two = state_of(tmp_path / 'one', iteration), state_of(tmp_path, iteration)
        assert one['best_metric_results'] == two['best_metric_results']
        assert one['validated_at'] == two['validated_at'] == iteration
    assert torch.equal(one['rngs'][0]['torch'], two['rngs'][0]['torch'])

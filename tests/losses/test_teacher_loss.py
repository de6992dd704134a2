import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from torch.nn import functional as F

from earn_plugin.convert.weight_files import describe_network, write_weights
from earn_plugin.errors import UsageError, UserError
from earn_plugin.losses import SSIMLoss, TeacherLoss
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import read_options
from tests.helpers.options import completed, write_options
from tests.helpers.runs import batch, build, same, save_state, step

RRDBNET = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 2, 'num_feat': 4, 'num_block': 1, 'scale': 2}
NETWORK = {'type': 'LGVAN', 'num_feat': 8, 'num_block': 1, 'upscale': 2}


def write_teacher(path, **arguments):
    torch.manual_seed(4)
    options = arguments if 'type' in arguments else {**NETWORK, **arguments}
    teacher, description = build_network(options), describe_network('net_g', {'network_g': options})
    write_weights(Path(path), teacher.state_dict(), description, ('params',))
    return teacher.eval()


@pytest.fixture
def distilled(tiny, tmp_path, monkeypatch):
    """Options of training with a teacher, t.pth."""
    monkeypatch.chdir(tmp_path)
    write_teacher('t.pth')
    options = copy.deepcopy(tiny)
    options['train']['losses'] = {
        'pix': {'type': 'L1Loss'},
        'teacher': {'type': 'TeacherLoss', 'teacher': 't.pth', 'criterion': {'type': 'MSELoss'}, 'loss_weight': 3.0},
    }
    return options


@pytest.mark.parametrize(
    ('criterion', 'distance'),
    [
        ({'type': 'L1Loss'}, F.l1_loss),
        ({'type': 'MSELoss', 'loss_weight': 2.0}, lambda x, y: 2 * F.mse_loss(x, y)),
        ({'type': 'SSIMLoss', 'window_size': 7}, SSIMLoss(window_size=7)),
    ],
)
@pytest.mark.parametrize('ending', ['pth', 'safetensors'])
def test_it_is_the_distance_from_the_teachers_output(tmp_path, criterion, distance, ending):
    teacher = write_teacher(tmp_path / f't.{ending}')
    data = batch()
    pred = data['gt'].clone().requires_grad_()
    loss = TeacherLoss(f'{tmp_path}/t.{ending}', criterion, 0.5)
    assert getattr(loss, 'smallest', None) == getattr(distance, 'smallest', None)
    value = loss(pred, data['lq'])
    expected = 0.5 * distance(pred, teacher(data['lq']).detach())
    torch.testing.assert_close(value, expected)
    assert torch.equal(*(torch.autograd.grad(v, pred)[0] for v in (value, expected)))


def test_small_batches_have_the_sum_of_one_large_batch(distilled, tmp_path):
    distilled['train']['losses']['teacher']['criterion']['reduction'] = 'sum'
    opt = completed(tmp_path, distilled)
    data = batch(shape=(4, 3, 16, 16))
    models = [build(opt, accum_iter=count) for count in (1, 2)]
    for model in models:
        step(model, data=data)
    assert models[1].get_current_log() == pytest.approx(models[0].get_current_log(), rel=1e-5)


def test_the_teacher_stays_in_evaluation_mode_without_gradients(tmp_path):
    write_teacher(tmp_path / 't.pth')
    loss = TeacherLoss(str(tmp_path / 't.pth'), {'type': 'L1Loss'}).train()
    assert not any(module.training for module in loss.teacher.modules())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    dtypes = []
    loss.teacher.conv_first.register_forward_hook(lambda module, given, output: dtypes.append(output.dtype))
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast('cpu', dtype):
            value = loss(batch()['gt'].requires_grad_(), batch()['lq'])
        value.backward()
        assert value.dtype == torch.float32
    assert dtypes == [torch.bfloat16, torch.float32]


def test_a_step_of_training_reads_the_lr_images_and_saves_no_teacher(distilled, tmp_path):
    opt = completed(tmp_path, distilled)
    model = build(opt)
    before = model.net_g(batch()['lq']).detach()
    teacher = copy.deepcopy(model.criteria['teacher'].teacher)
    step(model)
    target = teacher(batch()['lq']).detach()
    torch.testing.assert_close(model.log_dict['l_teacher'], 3 * F.mse_loss(before, target))
    torch.testing.assert_close(model.log_dict['l_pix'], F.l1_loss(before, batch()['gt']))
    assert same(model.criteria['teacher'].teacher.state_dict(), teacher.state_dict())
    state = torch.load(save_state(model, opt), weights_only=True)
    assert state['networks'].keys() == {'net_g'}
    assert sum(len(group['params']) for group in state['optimizers'][0]['param_groups']) == len(
        list(model.net_g.parameters())
    )


def test_smaller_distances_after_training(distilled, tmp_path):
    distilled['train']['losses'].pop('pix')
    model = build(completed(tmp_path, distilled))
    values = []
    for iteration in range(1, 13):
        step(model, iteration)
        values.append(float(model.log_dict['l_teacher']))
    assert values[-1] < 0.7 * values[0]


PLACE = 'train.losses.teacher'
MISTAKES = {
    'missing': ({'teacher': 'x.pth'}, f'{PLACE}.teacher: x.pth does not exist'),
    'none': ({'teacher': None}, f'{PLACE}.teacher: must be text, got None'),
    'not a file': ({'teacher': '.'}, f'{PLACE}.teacher: . is not a file'),
    'included network': ({'teacher': 'A2N-S_x4'}, 'A2N-S_x4 enlarges 16×16 to 64×64, but scale is 2'),
    'misspelt': ({'teacher': 'A2N_x4'}, 'A2N_x4 does not exist; included networks, by name: '),
    'scale': ({'teacher': 'x4.pth'}, 'x4.pth enlarges 16×16 to 64×64, but scale is 2: give a teacher of this scale'),
    'input': ({'teacher': 'grey.pth'}, 'grey.pth cannot enlarge images of 3 channels and 16×16'),
    'output': ({'teacher': 'two.pth'}, 'two.pth returns images of 2 channels, those that are trained on have 3'),
    'damaged': ({'teacher': 'damaged.pth'}, 'damaged.pth cannot be loaded: it is damaged'),
    'criterion': ({'criterion': {'type': 'L1Los'}}, f'{PLACE}.criterion.type: unknown loss'),
    'argument': ({'criterion': {'type': 'L1Loss', 'wieght': 1}}, 'criterion.wieght: is not a known option'),
    'no criterion': ({'criterion': None}, f'{PLACE}.criterion: must be a mapping, got None'),
    'key': ({'teechar': 1}, f'{PLACE}.teechar: is not a known option; did you mean teacher?'),
}


@pytest.mark.parametrize('case', MISTAKES)
def test_mistakes_are_reported_with_their_line(distilled, tmp_path, case):
    write_teacher('x4.pth', upscale=4)
    write_teacher('grey.pth', num_in_ch=1, num_out_ch=1)
    write_teacher('two.pth', **RRDBNET)
    Path('damaged.pth').write_bytes(Path('t.pth').read_bytes()[:-100])
    changes, message = MISTAKES[case]
    distilled['train']['losses']['teacher'] |= changes
    options = read_options(write_options(tmp_path, distilled))
    with pytest.raises(UsageError) as error:
        check_options(options, is_train=True)
    problem = str(error.value).splitlines()[1]
    line = next(n for place, n in options.lines.items() if place == ('train', 'losses', 'teacher', *changes))
    assert problem.strip().startswith(f'line {line}: ' if case not in ('criterion', 'argument') else 'line ')
    assert message in problem


def test_networks_are_loaded_before_losses_are_registered(tmp_path):
    """Which the import of basicsr does, and loading imports basicsr."""
    write_teacher(tmp_path / 't.pth')
    code = 'import sys, earn_plugin; assert "basicsr" not in sys.modules; print(earn_plugin.load("t.pth").upscale)'
    assert subprocess.check_output([sys.executable, '-c', code], cwd=tmp_path, text=True) == '2\n'


def test_models_whose_losses_do_not_read_the_lr_image_are_refused(distilled, tmp_path):
    distilled['train']['pixel_opt'] = distilled['train'].pop('losses')['teacher']
    for model_type in ('EARNModel', 'SRModel'):
        options = read_options(write_options(tmp_path, distilled | {'model_type': model_type}))
        if model_type == 'EARNModel':
            assert check_options(options, is_train=True) == []
            continue
        with pytest.raises(UsageError, match=r'train\.pixel_opt\.type: TeacherLoss needs model_type: EARNModel'):
            check_options(options, is_train=True)


def test_a_criterion_that_does_not_compare_images_is_refused(tmp_path):
    write_teacher(tmp_path / 't.pth')
    inner = {'type': 'TeacherLoss', 'teacher': str(tmp_path / 't.pth'), 'criterion': {'type': 'L1Loss'}}
    for criterion in (inner, {'type': 'WeightedTVLoss'}, {'type': 'GANLoss', 'gan_type': 'vanilla'}):
        with pytest.raises(ValueError, match=f'must compare two images; {criterion["type"]} does not'):
            TeacherLoss(str(tmp_path / 't.pth'), copy.deepcopy(criterion))
    with pytest.raises(UserError, match=r'x\.pth does not exist'):
        TeacherLoss('x.pth', {'type': 'L1Loss'})

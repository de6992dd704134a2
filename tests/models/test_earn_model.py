import copy
import math

import pytest
import torch
from basicsr.models.sr_model import SRModel
from torch import nn

from earn_plugin.models.earn_model import EARNModel
from tests.helpers.runs import batch, build, step


def test_any_number_of_terms_each_logged(opt):
    losses = {
        'pix': {'type': 'L1Loss', 'loss_weight': 1.5},
        'ssim': {'type': 'SSIMLoss', 'loss_weight': 0.6},
        'fft': {'type': 'FrequencyLoss', 'loss_weight': 0.1},
        'tv': {'type': 'TVLoss', 'loss_weight': 1e-3},
        'tv_basicsr': {'type': 'WeightedTVLoss', 'loss_weight': 1e-3},
        'percep': {'type': 'VGGPerceptualLoss', 'layer_weights': {'conv1_2': 1.0}, 'weights': 'random'},
    }
    model = build(opt, losses=losses)
    step(model)
    log = model.get_current_log()
    assert list(log) == ['l_pix', 'l_ssim', 'l_fft', 'l_tv', 'l_tv_basicsr', 'l_percep']
    assert all(isinstance(value, float) for value in log.values())
    assert log['l_pix'] == pytest.approx(1.5 * (model.output - model.gt).abs().mean().item())
    assert log['l_tv'] == pytest.approx(log['l_tv_basicsr'])


def test_the_gradient_is_that_of_the_summed_loss(opt):
    model = build(opt, ema_decay=0)
    twin = copy.deepcopy(model.net_g)
    step(model)
    output = twin(model.lq)
    ssim = model.criteria['ssim'](output, model.gt)
    (nn.functional.l1_loss(output, model.gt) + ssim).backward()
    for ours, expected in zip(model.net_g.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours.grad, expected.grad, rtol=1e-4, atol=1e-8)


def test_basicsrs_own_options_still_work(opt):
    """The same seed and the same pixel loss give SRModel's weights bit for bit, and its averages up to rounding."""
    train = {'losses': None, 'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0}}
    ours = build(opt, **train)
    basicsrs = build({**opt, 'model_type': 'SRModel'}, **train)
    assert (type(ours), type(basicsrs)) == (EARNModel, SRModel)
    for iteration in (1, 2, 3):
        for model in (ours, basicsrs):
            step(model, iteration, batch(iteration))
    assert ours.get_current_log() == basicsrs.get_current_log()
    for name in ('net_g', 'net_g_ema'):
        for a, b in zip(getattr(ours, name).parameters(), getattr(basicsrs, name).parameters(), strict=True):
            assert torch.equal(a, b) if name == 'net_g' else torch.allclose(a, b, rtol=1e-6, atol=1e-7)


def test_pixel_opt_with_losses(opt):
    model = build(opt, pixel_opt={'type': 'MSELoss'}, losses={'ssim': {'type': 'SSIMLoss'}})
    step(model)
    assert list(model.get_current_log()) == ['l_pix', 'l_ssim']


def test_without_any_loss_is_a_value_error(opt):
    with pytest.raises(ValueError, match='losses'):
        build(opt, losses={})


class Buffered(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), value))
        self.register_buffer('running', torch.full((2,), 10 * value))
        self.register_buffer('count', torch.tensor(int(value)))


def test_average_includes_buffers(opt):
    model = build(opt)
    model.net_g, model.net_g_ema = Buffered(1.0), Buffered(0.0)
    model.model_ema(decay=0.75)
    assert torch.allclose(model.net_g_ema.weight, torch.full((2,), 0.25))
    assert torch.allclose(model.net_g_ema.running, torch.full((2,), 2.5))
    assert model.net_g_ema.count == 1
    model.model_ema(decay=0)
    assert torch.equal(model.net_g_ema.weight, model.net_g.weight)


def test_optimizers(opt):
    """Adam is that of all other tests."""
    model = build(opt, optim_g={'type': 'AdamW', 'lr': 1e-3, 'betas': [0.9, 0.99], 'weight_decay': 0.1})
    assert type(model.optimizer_g) is torch.optim.AdamW
    step(model)
    with pytest.raises(NotImplementedError, match='SGD'):
        build(opt, optim_g={'type': 'SGD', 'lr': 1e-3})


def test_the_first_term_that_is_not_finite_is_reported_later(opt):
    model = build(opt)
    bad = batch()
    bad['gt'][0, 0, 0, 0] = math.nan
    for iteration in range(1, 4):
        step(model, iteration, batch(iteration))
    assert model.first_non_finite() is None
    for iteration in range(4, 7):
        step(model, iteration, bad if iteration == 4 else batch(iteration))
    assert model.first_non_finite() == (4, 'l_pix')
    assert model.first_non_finite() is None


class SyncCounter(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the operators that wait for the device."""

    waits = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            SyncCounter.waits += 1
        return operator(*args, **(kwargs or {}))


def test_waits_for_the_device_only_to_log(opt):
    model = build(opt)
    step(model)
    SyncCounter.waits = 0
    model.feed_data(batch())
    with SyncCounter():
        # Adam's step count is on the CPU for weights on any device
        step_was = model.optimizer_g.step
        model.optimizer_g.step = lambda: None
        model.optimize_parameters(2)
        model.optimizer_g.step = step_was
        assert SyncCounter.waits == 0
        model.get_current_log()
        assert SyncCounter.waits == 2


def test_names_of_terms_are_free_but_unique(opt):
    """perceptual_opt is logged as percep; without it, the name is free."""
    percep = {'type': 'VGGPerceptualLoss', 'layer_weights': {'conv1_1': 1.0}, 'weights': 'random'}
    model = build(opt, losses={'percep': percep, 'l1': {'type': 'L1Loss'}})
    step(model)
    assert list(model.get_current_log()) == ['l_percep', 'l_l1']
    with pytest.raises(ValueError, match=r'train\.losses\.pix: pixel_opt is the term pix'):
        build(opt, losses={'pix': {'type': 'L1Loss'}}, pixel_opt={'type': 'MSELoss'})


@pytest.mark.parametrize(
    ('loss', 'smallest'),
    [
        ({'type': 'SSIMLoss', 'num_scale': 3}, 44),
        ({'type': 'VGGPerceptualLoss', 'vgg_type': 'vgg16', 'layer_weights': {'pool5': 1.0}, 'weights': 'random'}, 32),
    ],
)
def test_patches_too_small_for_a_loss_are_reported_before_training(opt, loss, smallest):
    opt['datasets']['train']['gt_size'] = smallest - 1
    with pytest.raises(ValueError, match=f'the loss big needs a gt_size of at least {smallest}, got {smallest - 1}'):
        build(opt, losses={'big': loss})
    opt['datasets']['train']['gt_size'] = smallest
    model = build(opt, losses={'big': loss})
    size = smallest // 2
    step(model, data=batch(shape=(1, 3, size, size)))
    assert math.isfinite(model.get_current_log()['l_big'])

import copy
import math

import pytest
import torch
from basicsr.models.sr_model import SRModel
from torch import nn

from earn_plugin.errors import UsageError, UserError
from earn_plugin.models.earn_model import EARNModel
from tests.helpers.runs import batch, build, same, step


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
    assert list(log) == ['l_pix', 'l_ssim', 'l_fft', 'l_tv', 'l_tv_basicsr', 'l_percep', 'grad_norm_g']
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
    ours = build(opt, **train, optim_g={'type': 'Adam', 'lr': 1e-3, 'fused': False})
    basicsrs = build({**opt, 'model_type': 'SRModel'}, **train)
    assert (type(ours), type(basicsrs)) == (EARNModel, SRModel)
    for iteration in (1, 2, 3):
        for model in (ours, basicsrs):
            step(model, iteration, batch(iteration))
    assert ours.get_current_log().items() >= basicsrs.get_current_log().items()
    for name in ('net_g', 'net_g_ema'):
        for a, b in zip(getattr(ours, name).parameters(), getattr(basicsrs, name).parameters(), strict=True):
            assert torch.equal(a, b) if name == 'net_g' else torch.allclose(a, b, rtol=1e-6, atol=1e-7)


def test_pixel_opt_with_losses(opt):
    model = build(opt, pixel_opt={'type': 'MSELoss'}, losses={'ssim': {'type': 'SSIMLoss'}})
    step(model)
    assert list(model.get_current_log()) == ['l_pix', 'l_ssim', 'grad_norm_g']


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
    found = model.first_non_finite()
    assert (found.iteration, found.name) == (4, 'l_pix')
    assert all(map(math.isnan, found.values.values()))
    assert list(found.values) == ['l_pix', 'l_ssim', 'grad_norm_g']
    assert model.first_non_finite() is None


class SyncCounter(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the operators that wait for the device."""

    waits = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            SyncCounter.waits += 1
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize('train', [{}, {'on_non_finite': 'skip', 'grad_clip_g': 0.01, 'accum_iter': 2}])
def test_waits_for_the_device_only_to_log(opt, train):
    model = build(opt, **train)
    step(model)
    SyncCounter.waits = 0
    model.feed_data(batch())
    with SyncCounter():
        model.optimize_parameters(2)
        assert SyncCounter.waits == 0
        model.get_current_log()
        assert SyncCounter.waits == 3


def test_names_of_terms_are_free_but_unique(opt):
    """perceptual_opt is logged as percep; without it, the name is free."""
    percep = {'type': 'VGGPerceptualLoss', 'layer_weights': {'conv1_1': 1.0}, 'weights': 'random'}
    model = build(opt, losses={'percep': percep, 'l1': {'type': 'L1Loss'}})
    step(model)
    assert list(model.get_current_log()) == ['l_percep', 'l_l1', 'grad_norm_g']
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


def gradients(model) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.net_g.parameters()]


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_small_batches_have_the_gradients_of_one_large_batch(opt, reduction):
    losses = {'pix': {'type': 'MSELoss', 'reduction': reduction}, 'ssim': {'type': 'SSIMLoss'}}
    data = {name: images.double() for name, images in batch(shape=(6, 3, 16, 16)).items()}
    whole, parts = (build(opt, losses=losses, ema_decay=0, accum_iter=count) for count in (1, 3))
    for model in (whole, parts):
        model.net_g.double()
        step(model, data=data)
    for a, b in zip(gradients(whole), gradients(parts), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12 * b.abs().max())
    assert parts.get_current_log() == pytest.approx(whole.get_current_log(), rel=1e-10)
    assert torch.equal(parts.output, whole.output)


def test_bf16_computes_in_half_precision_and_keeps_the_weights_in_full(opt):
    full, half = build(opt), build(opt, precision='bf16')
    seen = []
    last = list(half.net_g.modules())[-1]
    last.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    for iteration in range(1, 4):
        for model in (full, half):
            step(model, iteration, batch(iteration))
    assert seen == [torch.bfloat16] * 3
    assert half.output.dtype == torch.float32
    pairs = list(zip(full.net_g.parameters(), half.net_g.parameters(), strict=True))
    assert all(b.dtype == torch.float32 for _, b in pairs)
    assert 0 < max((a - b).abs().max() for a, b in pairs) < 6e-3  # three steps of 1e-3, whose signs may differ
    assert half.get_current_log()['l_pix'] == pytest.approx(full.get_current_log()['l_pix'], rel=0.02)


def test_fp16_is_refused_for_networks_whose_features_it_cannot_hold(opt):
    with pytest.raises(UsageError, match=r'fp16: this network works on values up to 255.*use bf16'):
        build(opt, precision='fp16')


def test_the_scale_of_fp16_is_part_of_the_state(opt):
    opt['network_g'] = {'type': 'LGVAN', 'num_feat': 8, 'num_block': 1, 'upscale': 2}
    model = build(opt, precision='fp16')
    model.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**40, growth_interval=2)
    weights = copy.deepcopy(model.net_g.state_dict())
    step(model)
    assert not math.isfinite(model.get_current_log()['grad_norm_g'])
    assert same(weights, model.net_g.state_dict())
    assert model.first_non_finite() is None  # the scaler answers
    assert model.extra_state()['skipped'] == 1
    twin = build(opt, precision='fp16')
    twin.load_extra_state(model.extra_state())
    assert twin.scaler.get_scale() == 2.0**39
    assert twin.skipped == 1
    twin = build(opt, precision='fp16')  # resumed from a run that had no scale
    twin.load_extra_state(build(opt, on_non_finite='skip').extra_state())
    assert twin.scaler.get_scale() == 2.0**16


def test_channels_last_changes_only_the_layout(opt):
    plain, last = build(opt), build(opt, memory_format='channels_last')
    for iteration in range(1, 4):
        for model in (plain, last):
            step(model, iteration, batch(iteration))
    weights = [p for p in last.net_g.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    for tensors in (weights, [p.grad for p in weights], [last.optimizer_g.state[p]['exp_avg'] for p in weights]):
        assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)
    for a, b in zip(plain.net_g_ema.parameters(), last.net_g_ema.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_dilated_depthwise_convs_train_in_bfloat16(opt):
    """torch's own kernels return random gradients for them."""
    opt['network_g'] = {'type': 'LGVAN', 'num_feat': 8, 'num_block': 1, 'upscale': 2}
    models = build(opt), build(opt, precision='bf16', memory_format='channels_last')
    for model in models:
        nn.init.ones_(model.net_g.body[0][0].scale)
        step(model, data=batch(shape=(2, 3, 48, 48)))
    expected, found = (model.net_g.body[0][0].gate.wide.weight.grad for model in models)
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_compiled_networks_have_the_names_and_values_of_others(opt, monkeypatch):
    """With a compiler that traces networks as any does, but takes less time than the default."""
    opt['network_g'] = {'type': 'MSRResNet', 'num_feat': 4, 'num_block': 1, 'upscale': 2}
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, 'compile', lambda net, **_: compile_(net, backend='aot_eager'))
    plain, compiled = build(opt), build(opt, compile=True)
    for model in (plain, compiled):
        step(model)
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] >= 1
    assert compiled.net_g.state_dict().keys() == plain.net_g.state_dict().keys()
    for a, b in zip(gradients(plain), gradients(compiled), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4 * b.abs().max())


def test_frozen_parameters_do_not_change(opt):
    model = build(opt, freeze=['conv_first', '*.bias'])
    before = copy.deepcopy(model.net_g.state_dict())
    step(model)
    changed = {name for name, value in model.net_g.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if name.startswith('conv_first.') or name.endswith('.bias')]
    with pytest.raises(ValueError, match=r'train\.freeze: no parameter of the network is named conv_frist; it has '):
        build(opt, freeze=['conv_frist'])
    with pytest.raises(ValueError, match='leave nothing to train'):
        build(opt, freeze=['*'])


def test_skipped_iterations_change_nothing(opt):
    model = build(opt, on_non_finite='skip', ema_decay=0)
    step(model, 1)
    before = copy.deepcopy((model.net_g.state_dict(), model.optimizer_g.state_dict()['state']))
    bad = batch()
    bad['gt'][0, 0, 0, 0] = math.nan
    for _ in range(2):
        step(model, 2, bad)
    assert same(before, (model.net_g.state_dict(), model.optimizer_g.state_dict()['state']))
    assert model.skipped == 2
    assert model.first_non_finite()[:2] == (2, 'l_pix')
    step(model, 3)
    assert model.skipped == 0
    assert not same(before[0], model.net_g.state_dict())


def test_a_compiler_that_fails_is_named(opt, monkeypatch):
    def fail(graph, inputs):
        raise AssertionError

    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, 'compile', lambda net, **_: compile_(net, backend=fail))
    opt['network_g'] = {'type': 'MSRResNet', 'num_feat': 4, 'num_block': 1, 'upscale': 2}
    model = build(opt, compile=True)
    with pytest.raises(UserError, match=r'train\.compile: torch\.compile fails \(.*fail.*\); train without it'):
        step(model)

import copy
import math

import pytest
import torch
from basicsr.models.srgan_model import SRGANModel
from torch import nn

from earn_plugin.models.earn_gan_model import EARNGANModel
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import read_options
from tests.helpers.options import write_options
from tests.helpers.runs import batch, build, same, step
from tests.models.test_earn_model import SyncCounter

OF_THE_GAN = ['l_g_gan', 'grad_norm_g', 'l_d_real', 'out_d_real', 'd_real', 'l_d_fake', 'out_d_fake', 'd_fake']
OF_THE_GAN += ['grad_norm_d']


@pytest.fixture
def tiny(tiny):
    """Options of a tiny GAN."""
    tiny['model_type'] = 'EARNGANModel'
    tiny['network_d'] = {'type': 'SRGANDiscriminator', 'num_feat': 4}
    tiny['train']['optim_d'] = {'type': 'Adam', 'lr': 1e-3}
    tiny['train']['gan_opt'] = {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1}
    return tiny


@pytest.mark.parametrize('limit', [None, 0.01])
def test_a_step_equals_a_gan_step_written_out(opt, limit):
    model = build(opt, ema_decay=0, grad_clip_g=limit, grad_clip_d=limit)
    net_g, net_d = copy.deepcopy(model.net_g), copy.deepcopy(model.net_d)
    step(model)

    bce, l1 = nn.functional.binary_cross_entropy_with_logits, nn.functional.l1_loss
    ones = torch.ones(2, 1)

    def clipped(parameters):
        if limit:
            assert nn.utils.clip_grad_norm_(parameters, limit) > limit

    output = net_g(model.lq)
    loss_g = l1(output, model.gt) + model.criteria['ssim'](output, model.gt) + 0.1 * bce(net_d(output), ones)
    loss_g.backward()
    clipped(list(net_g.parameters()))
    net_d.zero_grad()
    real, fake = net_d(model.gt), net_d(output.detach())
    (bce(real, ones) + bce(fake, 0 * ones)).backward()
    clipped(list(net_d.parameters()))

    for ours, expected in ((model.net_g, net_g), (model.net_d, net_d)):
        for a, b in zip(ours.parameters(), expected.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-7 * (limit or 1))
    for a, b in zip(model.net_d.buffers(), net_d.buffers(), strict=True):
        assert torch.allclose(a, b)
    log = model.get_current_log()
    assert log['l_g_gan'] + log['l_pix'] + log['l_ssim'] == pytest.approx(loss_g.item())
    for name, logits in (('real', real), ('fake', fake)):
        assert log[f'out_d_{name}'] == pytest.approx(logits.mean().item(), rel=1e-4)
        assert log[f'd_{name}'] == pytest.approx(logits.sigmoid().mean().item())


def test_each_optimiser_changes_only_its_network(opt):
    """The generator's loss does not change the discriminator."""
    for still, moving in (('optim_d', 'net_g'), ('optim_g', 'net_d')):
        model = build(opt, **{still: {'type': 'Adam', 'lr': 0.0}})
        before = {name: copy.deepcopy(list(getattr(model, name).parameters())) for name in ('net_g', 'net_d')}
        step(model)
        for name, parameters in before.items():
            moved = not all(map(torch.equal, parameters, getattr(model, name).parameters()))
            assert moved == (name == moving)


@pytest.mark.filterwarnings('ignore:Detected call of `lr_scheduler')  # of SRGANModel, before its generator's first step
@pytest.mark.parametrize('discriminator', ['SRGANDiscriminator', 'UNetDiscriminatorSN'])
@pytest.mark.parametrize('iters', [{}, {'net_d_iters': 2, 'net_d_init_iters': 2}])
def test_srgan_models_options_give_its_weights_bit_for_bit(opt, discriminator, iters):
    opt['network_d'] = {'type': discriminator, 'num_in_ch': 3, 'num_feat': 4}
    train = {'losses': None, 'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0}, **iters}
    optimizers = {name: opt['train'][name] | {'fused': False} for name in ('optim_g', 'optim_d')}
    ours, basicsrs = build(opt, **train | optimizers), build({**opt, 'model_type': 'SRGANModel'}, **train)
    assert (type(ours), type(basicsrs)) == (EARNGANModel, SRGANModel)
    names = ('l_g_gan', 'l_d_real', 'out_d_real', 'l_d_fake', 'out_d_fake')
    for iteration in range(1, 5):
        for model in (ours, basicsrs):
            step(model, iteration, batch(iteration))
        logs = ours.get_current_log(), basicsrs.get_current_log()
        assert [logs[0].get(name) for name in names] == [logs[1].get(name) for name in names]
        assert logs[0].get('l_pix') == logs[1].get('l_g_pix')
        assert ('l_pix' in logs[0]) == (not iters or iteration == 4)
    for name in ('net_g', 'net_d'):
        assert same(*(dict(getattr(model, name).state_dict()) for model in (ours, basicsrs)))
    for a, b in zip(ours.net_g_ema.parameters(), basicsrs.net_g_ema.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-7)


def test_the_adversarial_term_alone(opt):
    model = build(opt, losses=None)
    step(model)
    assert list(model.get_current_log()) == OF_THE_GAN


def test_a_term_cannot_have_the_name_of_a_gan_term(opt):
    with pytest.raises(ValueError, match=r'train\.losses\.d_fake: a term of the GAN has that name'):
        build(opt, losses={'d_fake': {'type': 'L1Loss'}})


def test_the_ode_papers_recipe(tiny, opt, tmp_path):
    """Adam 1e-3 for both, MSE + 0.006·VGG16 MSE + 0.001·adversarial + TV, gradient norms of at most 0.01."""
    recipe = {
        'optim_g': {'type': 'Adam', 'lr': 1e-3},
        'optim_d': {'type': 'Adam', 'lr': 1e-3},
        'grad_clip_g': 0.01,
        'grad_clip_d': 0.01,
        'losses': {
            'pix': {'type': 'MSELoss'},
            'percep': {
                'type': 'VGGPerceptualLoss',
                'vgg_type': 'vgg16',
                'layer_weights': {'pool5': 1.0},
                'weights': 'random',
                'loss_weight': 0.006,
            },
            'tv': {'type': 'TVLoss', 'p': 2, 'loss_weight': 4e-8},
        },
        'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.001},
    }
    tiny['train'].update(copy.deepcopy(recipe))
    assert check_options(read_options(write_options(tmp_path, tiny)), True) == []
    model = build(opt, **recipe)
    step(model)
    for network in (model.net_g, model.net_d):
        norm = nn.utils.get_total_norm([p.grad for p in network.parameters()])
        assert norm <= 0.01 * (1 + 1e-5)
    assert list(model.get_current_log()) == ['l_pix', 'l_percep', 'l_tv', *OF_THE_GAN]


def test_a_discriminator_with_a_fixed_input_size_needs_patches_of_that_size(opt):
    opt['network_d'] = {'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 4}
    with pytest.raises(ValueError, match='the discriminator needs a gt_size of 128, got 32'):
        build(opt)
    opt['datasets']['train']['gt_size'] = 128
    build(opt)


def test_the_first_term_that_is_not_finite_is_reported_later(opt):
    """Also if iterations have different terms."""
    bad = batch()
    bad['gt'][0, 0, 0, 0] = math.nan
    model = build(opt, net_d_iters=2)
    for iteration in range(1, 7):
        step(model, iteration, bad if iteration == 4 else batch(iteration))
    assert model.first_non_finite()[:2] == (4, 'l_pix')
    assert model.first_non_finite() is None

    model = build(opt, net_d_iters=2)
    for iteration in range(1, 7):
        step(model, iteration, bad if iteration == 3 else batch(iteration))
    assert model.first_non_finite()[:2] == (3, 'l_d_real')

    model = build(opt)
    model.net_d.net[0].bias.data[0] = math.nan
    step(model)
    assert model.first_non_finite()[:2] == (1, 'l_g_gan')


def test_only_losses_must_be_finite(opt):
    model = build(opt)
    step(model)
    model.log_dict['out_d_real'] = torch.tensor(math.inf)
    model._record_non_finite(2)
    assert model.first_non_finite() is None


def test_waits_for_the_device_only_to_log(opt):
    model = build(opt, grad_clip_g=0.01, grad_clip_d=0.01)
    step(model)
    SyncCounter.waits = 0
    model.feed_data(batch())
    with SyncCounter():
        model.optimize_parameters(2)
        assert SyncCounter.waits == 0
        model.get_current_log()
        assert SyncCounter.waits == 2 + len(OF_THE_GAN)


def test_small_batches_have_the_gradients_of_one_large_batch(opt):
    data = {name: images.double() for name, images in batch(shape=(4, 3, 16, 16)).items()}
    models = [build(opt, ema_decay=0, accum_iter=count) for count in (1, 2)]
    for model in models:
        model.net_g.double(), model.net_d.double().eval()  # without statistics of a batch
        step(model, data=data)
        step(model, data=data)
    for name in ('net_g', 'net_d'):
        for a, b in zip(*(getattr(model, name).parameters() for model in models), strict=True):
            assert torch.allclose(a.grad, b.grad, rtol=1e-6, atol=1e-12)
    assert models[1].get_current_log() == pytest.approx(models[0].get_current_log(), rel=1e-6)


def test_skipped_iterations_change_nothing(opt):
    """Nor the statistics of batch normalisation."""
    model = build(opt, on_non_finite='skip', ema_decay=0)
    step(model)
    before = copy.deepcopy((model.net_g.state_dict(), model.net_d.state_dict()))
    bad = batch()
    bad['lq'][0, 0, 0, 0] = math.nan
    step(model, 2, bad)
    assert same(before, (model.net_g.state_dict(), model.net_d.state_dict()))
    assert model.skipped == 1
    step(model, 3)
    assert not same(before[1], model.net_d.state_dict())


def test_statistics_are_restored_if_only_the_discriminator_is_trained(opt):
    model = build(opt, on_non_finite='skip', ema_decay=0, net_d_init_iters=5)
    model.net_g = nn.Sequential(nn.BatchNorm2d(3), nn.Upsample(scale_factor=2))
    bad = batch()
    bad['lq'][0, 0, 0, 0] = math.nan
    step(model, 1, bad)
    assert same(dict(model.net_g[0].state_dict()), dict(nn.BatchNorm2d(3).state_dict()))

from urllib.error import URLError

import pytest
import torch
from torchvision import models

from earn_plugin.losses import TextureLoss, VGGPerceptualLoss, vgg_loss


@pytest.fixture(scope='module')
def vgg19():
    """torchvision's own network, randomly initialised, without its classifier."""
    torch.manual_seed(0)
    network = models.vgg19(weights=None, num_classes=1)
    del network.classifier
    return network.eval()


@pytest.fixture
def weights(vgg19, tmp_path):
    path = tmp_path / 'vgg19.pth'
    torch.save({**vgg19.state_dict(), 'classifier.0.bias': torch.zeros(1)}, path)
    return str(path)


def features(vgg, x, depth):
    """Of the first modules of torchvision's network, with the normalisation that it was trained with."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return vgg.features[:depth]((x - mean) / std)


PRED, TARGET = torch.rand(2, 2, 3, 33, 40, generator=torch.Generator().manual_seed(1))


def test_default_is_conv5_4_before_its_relu(vgg19, weights):
    loss = VGGPerceptualLoss(weights=weights, loss_weight=0.4)
    expected = 0.4 * (features(vgg19, PRED, 35) - features(vgg19, TARGET, 35)).square().mean()
    assert torch.isclose(loss(PRED, TARGET), expected)


def test_several_layers_with_weights(vgg19, weights):
    loss = VGGPerceptualLoss({'conv2_2': 0.1, 'relu3_1': 2.0}, weights=weights)
    expected = 0.1 * (features(vgg19, PRED, 8) - features(vgg19, TARGET, 8)).square().mean()
    expected += 2.0 * (features(vgg19, PRED, 12) - features(vgg19, TARGET, 12)).square().mean()
    assert torch.isclose(loss(PRED, TARGET), expected)


def test_texture_is_the_difference_of_gram_matrices(vgg19, weights):
    loss = TextureLoss({'conv1_1': 1.0, 'conv2_1': 0.5}, weights=weights)

    def gram(x):
        _, c, h, w = x.shape
        return torch.einsum('nchw,ndhw->ncd', x, x) / (c * h * w)

    expected = sum(
        factor * (gram(features(vgg19, PRED, depth)) - gram(features(vgg19, TARGET, depth))).square().mean()
        for factor, depth in ((1.0, 1), (0.5, 6))
    )
    assert torch.isclose(loss(PRED, TARGET), expected)


def test_vgg16_pool5_is_the_last_layer():
    loss = VGGPerceptualLoss({'pool5': 1.0}, vgg_type='vgg16', weights='random')
    assert len(loss.vgg.features) == 31


def test_random_weights_are_constant_and_do_not_change_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = VGGPerceptualLoss({'conv2_2': 1.0}, weights='random')
    assert torch.rand(1) == expected
    assert first(PRED, TARGET) == VGGPerceptualLoss({'conv2_2': 1.0}, weights='random')(PRED, TARGET) > 0


def test_gradient_reaches_only_the_prediction():
    loss = VGGPerceptualLoss({'conv1_2': 1.0}, weights='random')
    pred, target = PRED.clone().requires_grad_(), TARGET.clone().requires_grad_()
    loss(pred, target).backward()
    assert pred.grad.abs().sum() > 0
    assert target.grad is None
    assert not any(p.requires_grad for p in loss.parameters())


def test_missing_weights_say_what_to_download_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'download https://\S+/vgg19-dcbb9e9d.pth to experiments/pretr'):
        VGGPerceptualLoss()


def test_an_unreachable_hub_says_what_to_download_where(monkeypatch):
    def fail(*arguments, **keywords):
        raise URLError('no network')

    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', fail)
    with pytest.raises(FileNotFoundError, match=r'cannot reach https://\S+vgg16\S+ .*no network.*download'):
        VGGPerceptualLoss({'conv1_1': 1.0}, vgg_type='vgg16', weights='hub')


def test_a_reachable_hub_is_used(monkeypatch, vgg19):
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', lambda url, weights_only: vgg19.state_dict())
    loss = VGGPerceptualLoss({'conv1_1': 1.0}, weights='hub')
    expected = (features(vgg19, PRED, 1) - features(vgg19, TARGET, 1)).square().mean()
    assert torch.isclose(loss(PRED, TARGET), expected)


@pytest.mark.parametrize('content', [b'', b'<html>not found</html>', b'PK\x03\x04'])
def test_damaged_weights_say_what_to_download_where(tmp_path, content):
    (tmp_path / 'vgg.pth').write_bytes(content)
    with pytest.raises(ValueError, match=r'vgg\.pth is damaged, or not a file of weights; download https://'):
        VGGPerceptualLoss(weights=str(tmp_path / 'vgg.pth'))


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({'conv.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'is not a vgg19: missing features\.0\.bias'):
        VGGPerceptualLoss(weights=str(tmp_path / 'other.pth'))


@pytest.mark.parametrize(
    'wrong', [{'vgg_type': 'vgg11'}, {'layer_weights': {'conv9_9': 1.0}}, {'reduction': 'none'}, {'reduction': 'max'}]
)
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match='got'):
        VGGPerceptualLoss(weights='random', **wrong)


def test_layer_names_fit_torchvisions_modules():
    for vgg_type, (layout, _) in vgg_loss.LAYOUTS.items():
        modules = vgg_loss.make_layers(layout)
        for name, module in zip(vgg_loss.NAMES[vgg_type], modules, strict=True):
            assert type(module).__name__.lower().startswith({'c': 'conv', 'r': 'relu', 'p': 'maxpool'}[name[0]])

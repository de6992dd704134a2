"""Distances between VGG features (perceptual) and between their correlations (texture)."""

import pickle
from collections import OrderedDict
from pathlib import Path

import torch
from basicsr.archs.vgg_arch import NAMES
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vgg import cfgs, make_layers

from earn_plugin.losses.weighted_loss import WeightedLoss

LAYOUTS = {  # and where torchvision's weights are
    'vgg16': (cfgs['D'], models.VGG16_Weights.IMAGENET1K_V1.url),
    'vgg19': (cfgs['E'], models.VGG19_Weights.IMAGENET1K_V1.url),
}
WEIGHTS_FOLDER = Path('experiments/pretrained_models')  # BasicSR's folder


def weights_file(vgg_type: str, weights: str | None) -> Path:
    return Path(weights) if weights else WEIGHTS_FOLDER / LAYOUTS[vgg_type][1].rpartition('/')[2]


def how_to_get(vgg_type: str, weights: str | None) -> str:
    place = weights_file(vgg_type, None if weights == 'hub' else weights)
    return (
        f'download {LAYOUTS[vgg_type][1]} to {place}; or set `weights: hub` to download it with torch.hub, '
        'or `weights: random` for constant random features'
    )


def load_weights(vgg_type: str, weights: str | None) -> dict[str, Tensor]:
    """The state dict of a torchvision VGG, from a file or from torch.hub.

    Raises:
        FileNotFoundError: no such file, or the hub cannot be reached; says what to download where.
        ValueError: the file is damaged.
    """
    if weights == 'hub':
        url = LAYOUTS[vgg_type][1]
        try:
            return torch.hub.load_state_dict_from_url(url, weights_only=True)
        except OSError as error:
            raise FileNotFoundError(f'cannot reach {url} ({error}); {how_to_get(vgg_type, weights)}') from error
    path = weights_file(vgg_type, weights)
    if not path.is_file():
        raise FileNotFoundError(f'the weights of {vgg_type} are not at {path}; {how_to_get(vgg_type, weights)}')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f'{path} is damaged, or not a file of weights; {how_to_get(vgg_type, weights)}') from error


class VGGFeatures(nn.Module):
    """Features of a frozen VGG: N×3×H×W RGB in [0, 1] → {layer: N×C×h×w}.

    Args:
        layers: BasicSR's names: conv5_4 is before its ReLU, relu5_4 after it, pool5 the last layer.
        vgg_type: 'vgg16' or 'vgg19'.
        weights: a file with torchvision's state dict; None for BasicSR's path,
            experiments/pretrained_models/vgg19-dcbb9e9d.pth; 'hub' to download it with torch.hub; 'random' for
            random weights, always the same.
        use_input_norm: whether to normalise by ImageNet's mean and standard deviation.

    Raises:
        ValueError: an unknown type or layer, or weights that do not fit.
        FileNotFoundError: no weights; says what to download where.
    """

    def __init__(self, layers, vgg_type: str = 'vgg19', weights: str | None = None, use_input_norm: bool = True):
        super().__init__()
        if vgg_type not in LAYOUTS:
            raise ValueError(f'vgg_type must be one of {", ".join(LAYOUTS)}, got {vgg_type!r}')
        names = NAMES[vgg_type]
        unknown = [layer for layer in layers if layer not in names]
        if unknown or not layers:
            raise ValueError(f'layer_weights must name layers of {vgg_type} ({", ".join(names)}), got {list(layers)}')
        self.layers = set(layers)
        depth = 1 + max(names.index(layer) for layer in layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            modules = make_layers(LAYOUTS[vgg_type][0])[:depth]
            for module in modules:
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        if weights != 'random':
            state = load_weights(vgg_type, weights)
            wanted = {f'features.{key}' for key in modules.state_dict()}
            if not wanted <= set(state):
                missing = sorted(wanted - set(state))
                raise ValueError(f'{weights_file(vgg_type, weights)} is not a {vgg_type}: missing {missing[0]}')
            modules.load_state_dict({key.removeprefix('features.'): state[key] for key in wanted})
        for module in modules:
            if isinstance(module, nn.ReLU):
                module.inplace = False  # it would overwrite the features of the conv before it
        self.features = nn.Sequential(OrderedDict(zip(names, modules, strict=False))).requires_grad_(False).eval()
        self.use_input_norm = use_input_norm
        self.register_buffer('mean', torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.use_input_norm:
            x = (x - self.mean) / self.std
        found = {}
        for name, module in self.features.named_children():
            x = module(x)
            if name in self.layers:
                found[name] = x
        return found


class VGGLoss(WeightedLoss):
    """Weighted squared differences of ``describe`` of the VGG features of both images."""

    default_layers: dict[str, float]

    def __init__(
        self,
        layer_weights: dict[str, float] | None = None,
        vgg_type: str = 'vgg19',
        weights: str | None = None,
        use_input_norm: bool = True,
        loss_weight: float = 1.0,
        reduction: str = 'mean',
    ):
        super().__init__(loss_weight, reduction)
        if reduction == 'none':
            raise ValueError('reduction must be mean or sum, because layers have different sizes, got none')
        self.layer_weights = dict(layer_weights or self.default_layers)
        self.vgg = VGGFeatures(self.layer_weights, vgg_type, weights, use_input_norm)
        self.smallest = 2 ** sum(isinstance(module, nn.MaxPool2d) for module in self.vgg.features)

    @staticmethod
    def describe(features: Tensor) -> Tensor:
        return features

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        found = self.vgg(pred)  # in half precision under autocast, unlike the comparison
        with torch.no_grad():
            wanted = self.vgg(target)
        compared = super().forward
        return sum(weight * compared(found[layer], wanted[layer]) for layer, weight in self.layer_weights.items())

    def compare(self, found: Tensor, wanted: Tensor) -> Tensor:
        return self.weighted((self.describe(found) - self.describe(wanted)) ** 2)


@LOSS_REGISTRY.register()
class VGGPerceptualLoss(VGGLoss):
    """Mean squared error of VGG features of ``pred`` and ``target``, both N×3×H×W RGB in [0, 1].

    Source: Ledig et al., SRGAN (CVPR 2017), equation 5. EARN uses vgg19 {conv5_4: 1.0}, the default; the ODE
    paper vgg16 {pool5: 1.0}.

    Args:
        layer_weights: factor of each layer, by BasicSR's names.
        vgg_type, weights, use_input_norm: see ``VGGFeatures``.
        loss_weight: factor on the loss.
        reduction: 'mean' or 'sum'.

    Raises:
        ValueError, FileNotFoundError: as ``VGGFeatures``.
    """

    default_layers = {'conv5_4': 1.0}


@LOSS_REGISTRY.register()
class TextureLoss(VGGLoss):
    """Mean squared error of the Gram matrices of VGG features of ``pred`` and ``target``, both N×3×H×W in [0, 1].

    Source: Gatys, Ecker, Bethge, "Texture Synthesis Using Convolutional Neural Networks" (NeurIPS 2015), equations 2
    and 3; the default is the first layer of each of its five stages. The Gram matrix, N×C×C, is divided by C·H·W.

    Args and raises: as ``VGGPerceptualLoss``.
    """

    default_layers = {f'conv{stage}_1': 1.0 for stage in range(1, 6)}

    @staticmethod
    def describe(features: Tensor) -> Tensor:
        flat = features.flatten(2)
        return flat @ flat.transpose(1, 2) / features[0].numel()

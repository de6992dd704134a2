"""Attribution maps against a re-implementation of the published formulas; completeness; networks that have none."""

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from torch import nn
from torch.nn import functional as F

import earn_plugin
from earn_plugin.errors import UsageError, UserError
from earn_plugin.figures.attribution import (
    AS_PUBLISHED,
    INCOMPLETE,
    MIDPOINT,
    Attribution,
    Rule,
    Window,
    attribute,
    blurred,
    contribution_area,
    find_window,
    gini,
)
from earn_plugin.inference.padding import for_any_size
from tests.helpers.golden import Golden
from tests.helpers.images import photograph
from tests.helpers.places import SHARED

NETWORKS = {
    'EARN': {'num_feat': 16, 'num_block': 1},
    'LGVAN': {'num_feat': 16, 'num_block': 2},
    'A2N': {'num_feat': 8, 'num_block': 2},
    'HAN': {'num_feat': 16, 'num_group': 2, 'num_block': 2},
    'RNAN': {'num_feat': 8, 'num_block': 3},
    'RK4RDN': {'num_feat': 16, 'num_block': 1, 'num_layer': 2, 'order': 2},
    'DualAttentionRCAN': {'num_feat': 16, 'num_group': 1, 'num_block': 1},
}


def image(height: int, width: int) -> np.ndarray:
    return photograph(height, width).astype(np.float32) / 255


def filled(network: nn.Module) -> nn.Module:
    """With weights as those of the golden cases: blocks add as much as they are given."""
    network.load_state_dict({name: Golden.fill(name, tensor.shape) for name, tensor in network.state_dict().items()})
    return network.eval()


def as_published(network, picture: np.ndarray, window: Window) -> tuple[np.ndarray, float, float]:
    """The map, the DI and the sum of the attributions, from the formulas: RGB, 50 steps, σ 1.2, a kernel of 9×9."""
    height, width, _ = picture.shape
    padded = np.pad(picture.astype(np.float64), ((4, 4), (4, 4), (0, 0)), mode='reflect')

    def kernel(step: int) -> np.ndarray:
        sigma = 1.2 * (50 - step) / 50
        values = [[np.exp(-(i * i + j * j) / (2 * (sigma + 1e-5) ** 2)) for j in range(-4, 5)] for i in range(-4, 5)]
        return np.array(values) / np.sum(values)

    def filtered(taps: np.ndarray) -> np.ndarray:
        return sum(taps[i, j] * padded[i : i + height, j : j + width] for i in range(9) for j in range(9))

    total = np.zeros(picture.shape)
    for step in range(50):
        x = torch.from_numpy(filtered(kernel(step + 1))).permute(2, 0, 1)[None].requires_grad_()
        y, detector = network(x)[0], 0
        for i in range(window.y, window.y + window.size):
            for j in range(window.x, window.x + window.size):
                down, right = y[:, i, j] - y[:, i + 1, j], y[:, i, j] - y[:, i, j + 1]
                detector = detector + (down**2 + right**2).sqrt().sum()
        detector.backward()
        total += x.grad[0].permute(1, 2, 0).numpy() * 50 * filtered(kernel(step + 1) - kernel(step)) / 50
    values = np.abs(total.sum(2))
    values /= values.max()
    flat = values.ravel() + 1e-7
    differences = np.abs(flat[:, None] - flat[None]).sum()  # the definition of Gini, without sorting
    return values, 100 * (1 - differences / (2 * len(flat) * flat.sum())), total.sum()


def test_as_published_equals_the_formulas():
    network = filled(build_network({'type': 'LGVAN', 'upscale': 2, 'num_feat': 16, 'num_block': 1}))
    picture, window = image(9, 13), Window(7, 5, 4)
    found = attribute(network, picture, 2, window, AS_PUBLISHED)
    map_, diffusion_index, total = as_published(network.double(), picture, window)
    assert np.abs(found.map - map_).max() < 1e-4
    assert found.diffusion_index == pytest.approx(diffusion_index, rel=1e-4)

    def edges(alpha: float) -> float:
        with torch.no_grad():
            y = network(torch.from_numpy(blurred(picture, alpha)).permute(2, 0, 1)[None])[0, :, 5:10, 7:12]
        return float(torch.hypot(y[:, 1:, :-1] - y[:, :-1, :-1], y[:, :-1, 1:] - y[:, :-1, :-1]).sum())

    assert found.missing == pytest.approx(1 - total / (edges(1) - edges(0)), abs=1e-4)


@pytest.mark.filterwarnings('ignore:torch.meshgrid')  # of BasicSR's SwinIR
@pytest.mark.parametrize('name', [*NETWORKS, 'RRDBNet', 'SwinIR'])
def test_attributions_are_complete_in_both_forms(name):
    others = {
        'RRDBNet': {'num_in_ch': 3, 'num_out_ch': 3, 'scale': 2, 'num_feat': 8, 'num_block': 1, 'num_grow_ch': 4},
        'SwinIR': {'upscale': 2, 'img_size': 16, 'window_size': 8, 'embed_dim': 12, 'depths': [2], 'num_heads': [2]},
    }
    swinir = {'mlp_ratio': 2, 'upsampler': 'pixelshuffledirect'} if name == 'SwinIR' else {}
    settings = others.get(name) or {'upscale': 2, **NETWORKS[name]}
    torch.manual_seed(0)
    network = for_any_size(build_network({'type': name, **settings, **swinir}).eval(), 3, 2)
    window, rule = find_window((36, 28), size=8), MIDPOINT._replace(steps=20)
    found = attribute(network, image(18, 14), 2, window, rule)
    assert abs(found.missing) < INCOMPLETE
    assert found.flat == 0 and found.terms == 20 * 8 * 8 * 3 and found.map.max() == 1
    if hasattr(network, 'fuse'):
        fused = attribute(network.fuse().eval(), image(18, 14), 2, window, rule)
        assert np.abs(fused.map - found.map).max() < 1e-3


def test_flat_terms_are_counted_and_have_gradient_0():
    network = nn.Upsample(scale_factor=4)
    picture = np.random.default_rng(0).random((12, 12, 3), np.float32)
    found = attribute(network, picture, 4, Window(16, 16), MIDPOINT._replace(steps=3))
    assert (found.flat, found.terms) == (3 * 3 * 16 * 9, 3 * 3 * 16 * 16)  # 9 of 16 pixels have alike neighbours
    used = found.map > 0
    assert used[4:9, 4:9].sum() == used.sum() > 16


def in_two_steps(picture: np.ndarray, network: nn.Module) -> Attribution:
    return attribute(network, picture, 1, Window(4, 4, 4), MIDPOINT._replace(steps=2))


class Detaching(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 3, 3, 1, 1), how

    def forward(self, x):
        return self.conv(self.how(x))


@pytest.mark.parametrize(
    'how',
    [
        lambda x: x.detach(),
        lambda x: x.data - 0.5,
        torch.no_grad()(lambda x: x * 255),
        lambda x: torch.from_numpy(x.detach().numpy()),
        lambda x: (x * 255).round(),
    ],
    ids=['detach', 'data', 'no_grad', 'numpy', 'round'],
)
def test_a_network_that_detaches_its_input_is_an_error(how):
    with pytest.raises(UserError, match='detaches'):
        in_two_steps(image(16, 16), Detaching(how))


def test_a_network_within_no_grad_is_an_error():
    network = nn.Conv2d(3, 3, 3, 1, 1)
    for mode in (torch.no_grad(), torch.inference_mode()):
        network.forward = mode(nn.Conv2d(3, 3, 3, 1, 1).forward)
        with pytest.raises(UserError, match='detaches'):
            in_two_steps(image(16, 16), network)


def test_a_part_that_is_detached_shows_in_the_missing_share():
    class Half(nn.Module):
        def forward(self, x):
            return x + 2 * F.avg_pool2d(x.detach(), 3, 1, 1)

    assert abs(in_two_steps(image(16, 16), Half()).missing) > INCOMPLETE


def test_a_network_without_a_backward_pass_is_an_error():
    class Overwriting(Detaching):
        def forward(self, x):
            y = self.conv(x).exp()
            return y.mul_(2) + y

    with pytest.raises(UserError, match='has no gradient: one of the variables'):
        in_two_steps(image(16, 16), Overwriting(None))


def test_networks_may_change_their_input_in_place():
    class InPlace(Detaching):
        def forward(self, x):
            return self.conv(x.mul_(255).sub_(100))

    with torch.no_grad():  # of the caller
        assert in_two_steps(image(16, 16), InPlace(None)).map.max() == 1


def test_what_has_no_attributions_is_an_error():
    network, mixed = nn.Conv2d(3, 3, 3, 1, 1), nn.Sequential(nn.Conv2d(3, 12, 3, 1, 1), nn.PixelShuffle(2))
    flat = image(24, 24)
    flat[:, :20] = 0.3
    for picture in (flat, np.full((16, 16, 3), 0.7, np.float32)):
        with pytest.raises(UserError, match='all alike'):
            attribute(mixed, picture, 2, Window(8, 8, 8), MIDPOINT._replace(steps=2))
        with pytest.raises(UserError, match='flat in the window'):
            in_two_steps(picture, network)
    network.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match='NaN or infinite'):
        in_two_steps(image(16, 16), network)


@pytest.mark.parametrize('given', [(-1, 0, 4), (0, 7, 4), (7, 0, 4), (0, 0, 0), (0, 0, 11)])
def test_windows_that_are_not_in_the_result(given):
    with pytest.raises(UsageError, match='--window'):
        find_window((11, 11), *given)


def test_windows():
    assert find_window((192, 180)) == (82, 88, 16)
    assert find_window((11, 11), 6, 6, 4) == (6, 6, 4)


def test_the_path_ends_at_the_image():
    for size in ((7, 9), (3, 1)):
        assert np.abs(blurred(image(*size), 1) - image(*size)).max() < 1e-12
        assert np.abs(blurred(image(*size), 0) - image(*size)).max() > 1e-3


def test_gini():
    assert gini(np.ones(50)) == pytest.approx(0)
    assert gini(np.eye(1, 50)) == pytest.approx(0.98, abs=1e-5)


def test_the_contribution_area_is_the_density_that_scipy_estimates():
    from scipy.stats import gaussian_kde

    weights = np.random.default_rng(0).random((9, 14)) ** 6
    places = np.stack(np.mgrid[:9, :14]).reshape(2, -1)
    expected = gaussian_kde(places, weights=weights.ravel())(places).reshape(9, 14)
    assert np.abs(contribution_area(weights) - expected / expected.max()).max() < 1e-4
    alone = np.zeros((5, 6))
    alone[2, 3] = 1  # of which scipy has no density
    assert np.array_equal(contribution_area(alone).round(6), alone)


def set14(name: str) -> np.ndarray:
    picture = cv2.imread(str(SHARED / f'data/Set14/LR_bicubic/X4/{name}x4.png'))
    return picture[..., ::-1].astype(np.float32) / 255


def test_the_official_lgvan_has_the_measured_values(shared_data):
    checkpoint = SHARED / 'weights/lgvan_x4_official.pth'
    if not checkpoint.is_file():
        pytest.skip('the official checkpoint is not on this machine')
    network, picture = earn_plugin.load(checkpoint, fused=True), set14('barbara')[48:96, 66:114]
    for rule, diffusion_index, missing in ((MIDPOINT, 4.13, 0.0018), (Rule('', 5, 1), 5.91, -0.136)):
        found = attribute(network, picture, 4, find_window((192, 192)), rule)
        assert found.diffusion_index == pytest.approx(diffusion_index, abs=0.006)
        assert found.missing == pytest.approx(missing, abs=0.0005)


@pytest.mark.parametrize('top, left', [(20, 15), (30, 8)])
def test_the_network_with_the_larger_reach_has_the_larger_diffusion_index(top, left, shared_data):
    networks = [nn.Sequential(nn.Conv2d(3, 12, 3, 1, 1), nn.PixelShuffle(2))]  # reach 1; LGVAN's 21; RK4RDN's infinite
    networks += [build_network({'type': name, 'upscale': 2, **NETWORKS[name]}) for name in ('LGVAN', 'RK4RDN')]
    picture, window = set14('comic')[top : top + 32, left : left + 32], find_window((64, 64))
    found = [attribute(filled(network), picture, 2, window, MIDPOINT._replace(steps=4)) for network in networks]
    indices = [attribution.diffusion_index for attribution in found]
    assert indices == sorted(indices)

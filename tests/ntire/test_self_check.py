"""Changes of a submission after its export are found, each with its own message."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from earn_plugin.convert.networks import FoundNetwork, NetworkChoice, find_network
from earn_plugin.convert.weight_files import write_weights
from earn_plugin.errors import UserError
from earn_plugin.ntire import export as exporting
from earn_plugin.ntire.export import export, write_network
from earn_plugin.ntire.organisers_script import Submission
from earn_plugin.ntire.self_check import (
    check_figures,
    check_outputs,
    check_submission,
    check_weights,
    describe_times,
)
from tests.helpers.ntire_scripts import make_repo

ARGUMENTS = {'num_feat': 8, 'num_block': 1}
SUBMISSION = Submission(2024, 18, 'Net', 'LGVAN', ARGUMENTS, 1.0)


@pytest.fixture(scope='module')
def network() -> nn.Module:
    torch.manual_seed(0)
    return find_network(NetworkChoice('LGVAN', ARGUMENTS)).network


@pytest.fixture
def exported(tmp_path, network) -> Path:
    found = FoundNetwork(network, 'LGVAN', ARGUMENTS)
    write_network(tmp_path, SUBMISSION, found)
    return tmp_path


def spoil(folder: Path, old: str, new: str) -> None:
    path = folder / SUBMISSION.code
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_unchanged_submission(exported, network):
    lines = check_submission(exported, SUBMISSION, network)
    assert any('outputs equal ours to' in line for line in lines)
    assert any('the first image of 64×64 takes' in line for line in lines)
    assert next(network.parameters()).dtype == torch.float32
    assert [path.name for path in exported.rglob('*') if 'cache' in path.name] == []


def test_a_package_that_is_found_by_pythonpath(exported, network, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp('packages')
    (folder / 'einops.py').write_text('')
    monkeypatch.setenv('PYTHONPATH', str(folder))
    spoil(exported, 'import torch\n', 'import einops\nimport torch\n')
    check_outputs(exported, SUBMISSION, network)


def test_another_function(exported, network):
    spoil(exported, 'out = self.conv_last(', 'out = 1.00001 * self.conv_last(')
    with pytest.raises(UserError, match='does not compute what the network computes: outputs differ by'):
        check_outputs(exported, SUBMISSION, network)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('import earn_plugin', 'imports earn_plugin'),
        ('from basicsr.archs import arch_util', 'imports basicsr.archs'),
        ('from itertools import pairwise', 'itertools.pairwise, which Python 3.9 and torch 1.13 do not have'),
        ('match = lambda x: x.itemsize', 'itemsize'),
    ],
)
def test_a_newer_name_or_another_import(exported, network, line, message):
    spoil(exported, 'import torch\n', f'import torch\n{line}\n')
    with pytest.raises(UserError, match=message):
        check_submission(exported, SUBMISSION, network)


def test_a_hidden_import(exported, network):
    """Only running finds it, without the packages."""
    spoil(exported, 'import torch\n', "import torch\nhidden = __import__('basicsr.' + 'archs')\n")
    with pytest.raises(UserError, match="does not run on its own: ModuleNotFoundError: No module named 'basicsr"):
        check_outputs(exported, SUBMISSION, network)


def test_a_name_that_is_missing_has_its_line(exported, network):
    spoil(exported, 'shallow = self.conv_first(x)', 'shallow = self.conv_first(missing)')
    with pytest.raises(UserError, match=r'team18_Net\.py, line \d+, does not run on its own: NameError: name .missing'):
        check_outputs(exported, SUBMISSION, network)


@pytest.mark.parametrize(('year', 'images'), [(2022, 100), (2023, 100), (2024, 200), (2025, 200), (2026, 200)])
def test_the_share_of_the_first_image(year, images):
    submission = replace(SUBMISSION, year=year)
    said = describe_times(submission, {'device': 'cpu', 'seconds': [0.3, 0.1, 0.1, 0.1]})
    assert said.endswith(f"the first is part of the organisers' mean of {images} images, +{200 / images:.2f} ms")
    assert said.startswith('the first image of 64×64 takes 300.0 ms on this cpu, later ones 100.0 ms')
    said = describe_times(submission, {'device': 'cpu', 'seconds': [0.1, 0.3, 0.3, 0.3]})
    assert said.endswith('images, +0.00 ms')
    quality = replace(submission, year=2025, track='quality')
    assert 'mean' not in describe_times(quality, {'device': 'cpu', 'seconds': [0.1, 0.1]})


def test_nested_weights(exported, network):
    torch.save({'params': network.state_dict()}, exported / SUBMISSION.weights)
    with pytest.raises(UserError, match=r'team18_Net\.pth is nested: it has params'):
        check_submission(exported, SUBMISSION, network)


def test_weights_of_another_network(exported, network):
    weights = network.state_dict()
    torch.save({'odd': weights.pop('conv_last.bias'), **weights}, exported / SUBMISSION.weights)
    with pytest.raises(UserError, match=r'does not fit the network: conv_last\.bias'):
        check_weights(exported / SUBMISSION.weights, SUBMISSION, network)


def test_other_figures(exported, network):
    spoil(exported, 'shallow = self.conv_first(x)', 'shallow = self.conv_first(x)\n        self.conv_first(x)')
    with pytest.raises(UserError, match=r'has other figures than the network: hooks [\d,]+ instead of'):
        check_figures(exported, SUBMISSION, network)


class TwoForms(nn.Module):
    """Two convs in the training form, one in the fused form."""

    def __init__(self, fused: bool = False):
        super().__init__()
        self.fused = fused
        self.conv = nn.Conv2d(3, 48, 1, bias=False)
        if not fused:
            self.first = nn.Conv2d(3, 3, 1, bias=False)
        self.shuffle = nn.PixelShuffle(4)

    def fuse(self):
        fused = TwoForms(fused=True)
        fused.conv.weight.data = (self.conv.weight[:, :, 0, 0] @ self.first.weight[:, :, 0, 0])[:, :, None, None]
        return fused

    def forward(self, x):
        return self.shuffle(self.conv(x if self.fused else self.first(x)))


@pytest.fixture
def two_forms():
    ARCH_REGISTRY.register(TwoForms)
    yield
    del ARCH_REGISTRY._obj_map['TwoForms']


def test_weights_of_the_other_form(two_forms, tmp_path):
    submission = replace(SUBMISSION, arch='TwoForms', arguments={'fused': True})
    torch.save(TwoForms().state_dict(), tmp_path / 'net.pth')
    with pytest.raises(UserError, match=r'has the weights of the training form.* the fused form.*--fused'):
        check_weights(tmp_path / 'net.pth', submission, TwoForms(fused=True))
    torch.save(TwoForms(fused=True).state_dict(), tmp_path / 'net.pth')
    with pytest.raises(UserError, match=r'has the weights of the fused form.* the training form'):
        check_weights(tmp_path / 'net.pth', replace(submission, arguments={}), TwoForms())


def test_the_fused_form_is_exported_on_request(two_forms, tmp_path):
    network = TwoForms()
    torch.save({'params': network.state_dict(), 'arch': 'TwoForms', 'arguments': {}, 'scale': 4}, tmp_path / 'net.pth')
    settings = {'year': 2024, 'team': 7, 'name': 'Net', 'size': (16, 16)}
    report = export(NetworkChoice(str(tmp_path / 'net.pth'), fused=True), out=tmp_path / 'fused', **settings)
    assert 'TwoForms, fused form' in report
    weights = torch.load(tmp_path / 'fused/model_zoo/team07_Net.pth', weights_only=True)
    assert list(weights) == ['conv.weight']
    assert 'TwoForms(fused=True)' in (tmp_path / 'fused/select_model.txt').read_text()
    report = export(NetworkChoice(str(tmp_path / 'net.pth')), out=tmp_path / 'trained', **settings)
    assert '--fused exports it' in report


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    """Neither in the folder of exports nor in the organisers' checkout."""
    repo = make_repo(tmp_path / 'repo', 2024)
    before = {path: path.read_bytes() for path in repo.rglob('*') if path.is_file()}
    other = nn.Conv2d(1, 1, 1).state_dict()
    monkeypatch.setattr(exporting, 'write_weights', lambda path, weights, _: write_weights(path, other, {}))
    with pytest.raises(UserError, match='does not fit the network'):
        choice = NetworkChoice('LGVAN', ARGUMENTS)
        export(choice, year=2024, team=18, name='Net', out=tmp_path / 'made', repo=repo)
    assert not (tmp_path / 'made').exists()
    assert [path.name for path in tmp_path.iterdir()] == ['repo']
    assert {path: path.read_bytes() for path in repo.rglob('*') if path.is_file()} == before

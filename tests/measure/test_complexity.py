import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from earn_plugin import cli
from earn_plugin.convert.networks import FoundNetwork, NetworkChoice, find_network
from earn_plugin.errors import UsageError, UserError
from earn_plugin.measure import complexity
from earn_plugin.measure.complexity import count_complexity, measure_complexity
from tests.helpers import ntire_baselines as baselines
from tests.helpers import ntire_formulas as formulas

CPU, META = torch.device('cpu'), torch.device('meta')
FULL = {
    'EARN': formulas.earn,
    'RNAN': formulas.rnan,
    'LGVAN': formulas.lgvan,
    'A2N': formulas.a2n,
    'HAN': formulas.han,
    'RK4RDN': formulas.rk4rdn,
    'DualAttentionRCAN': formulas.dual_attention_rcan,
}
SMALL = [
    ('EARN', {'num_feat': 16, 'num_block': 1, 'upscale': 3}, lambda h, w: formulas.earn(h, w, 16, 1, 3)),
    ('EARN', {'num_feat': 32, 'num_block': 2, 'upscale': 2, 'variant': 'released'},
     lambda h, w: formulas.earn(h, w, 32, 2, 2, released=True)),
    ('RNAN', {'num_feat': 8, 'num_block': 3, 'upscale': 2}, lambda h, w: formulas.rnan(h, w, 8, 3, 2)),
    ('LGVAN', {'num_feat': 8, 'num_block': 2, 'upscale': 3}, lambda h, w: formulas.lgvan(h, w, 8, 2, 3)),
    ('A2N', {'num_feat': 8, 'num_upfeat': 4, 'num_block': 2, 'upscale': 2},
     lambda h, w: formulas.a2n(h, w, 8, 4, 2, 2)),
    ('HAN', {'num_feat': 16, 'num_group': 2, 'num_block': 3, 'upscale': 8},
     lambda h, w: formulas.han(h, w, 16, 2, 3, 8)),
    ('RK4RDN', {'num_feat': 8, 'num_grow_ch': 4, 'num_block': 2, 'num_layer': 2, 'order': 2, 'upscale': 3},
     lambda h, w: formulas.rk4rdn(h, w, 8, 4, 2, 2, 2, 3)),
    ('DualAttentionRCAN', {'num_feat': 16, 'num_group': 1, 'num_block': 2, 'upscale': 2},
     lambda h, w: formulas.dual_attention_rcan(h, w, 16, 1, 2, 2)),
]  # fmt: skip


def found(network: nn.Module) -> FoundNetwork:
    return FoundNetwork(network.eval(), type(network).__name__, {})


def test_lgvan_has_the_official_figures():
    counted = measure_complexity(find_network(NetworkChoice('LGVAN')), device=CPU)
    assert counted.params == 118_243
    assert counted.hooks == 9_057_572_992
    assert counted.fvcore == 9_036_601_472
    assert counted.activations == 332_392_832
    assert counted.convs == 122


def test_imdn_has_the_official_figures():
    counted = measure_complexity(found(baselines.IMDN()), device=META)
    assert (counted.params, counted.hooks) == (893_936, 58_531_512_320)
    assert (counted.activations, counted.convs) == (154_140_672, 43)


def test_rfdn_has_the_official_figures():
    counted = measure_complexity(found(baselines.RFDN()), device=CPU)
    assert (counted.params, counted.hooks, counted.fvcore) == (433_448, 27_102_622_560, 27_046_231_296)
    assert (counted.activations, counted.convs) == (112_034_240, 64)


@pytest.mark.parametrize('name', FULL)
def test_full_size_networks_equal_the_formula(name):
    counted, by_hand = measure_complexity(find_network(NetworkChoice(name)), device=META), FULL[name](256, 256)
    assert (counted.hooks, counted.activations, counted.convs) == (
        by_hand.multiply_adds,
        by_hand.activations,
        by_hand.convs,
    )


@pytest.mark.parametrize(('name', 'arguments', 'formula'), SMALL, ids=[name for name, _, _ in SMALL])
def test_small_networks_equal_the_formula_on_the_cpu(name, arguments, formula):
    counted, by_hand = measure_complexity(find_network(NetworkChoice(name, arguments)), (13, 10), CPU), formula(13, 10)
    assert (counted.hooks, counted.activations, counted.convs) == (
        by_hand.multiply_adds,
        by_hand.activations,
        by_hand.convs,
    )


class Zoo(nn.Module):
    """A call of every kind of module that the hooks count."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, (3, 1), padding=(1, 0))
        self.up = nn.ConvTranspose2d(4, 6, 2, 2, groups=2)
        self.norm, self.plain_norm = nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False)
        self.activations = nn.Sequential(nn.ReLU(), nn.PReLU(), nn.ELU(), nn.LeakyReLU(), nn.ReLU6(), nn.GELU())
        self.linear = nn.Linear(5, 7)

    def forward(self, x):
        x = self.conv(self.conv(x)[:, :3])  # twice: counts twice
        x = self.activations(self.plain_norm(self.norm(self.up(x))))
        flat = self.linear(x[:, :, :, :5])  # N×6×8×5 → N×6×8×7: officially in.shape[1]·out.shape[1]
        return F.conv2d(flat, flat.new_ones(2, 6, 1, 1)).sigmoid()


def test_every_kind_of_module():
    counted = measure_complexity(found(Zoo()), (4, 5), CPU)
    conv, up, element = 3 * 3 * 4 * 4 * 5, 2 * 2 * 4 * 3 * 8 * 10, 6 * 8 * 10
    assert counted.hooks == 2 * conv + up + (2 + 1) * element + 5 * element + 6 * 6
    assert (counted.activations, counted.convs) == (2 * 4 * 4 * 5 + 6 * 8 * 10, 3)
    assert counted.uncounted_by_hooks == {'gelu': 1, 'convolution': 1, 'sigmoid': 1}
    assert counted.multiply_adds_uncounted_by_hooks == 6 * 2 * 8 * 7


def test_fvcore_counts_functions_and_names_what_it_does_not_count():
    counted = measure_complexity(found(Zoo()), (4, 5), CPU)
    convs = 2 * 3 * 3 * 4 * 4 * 5 + 2 * 2 * 4 * 3 * 4 * 5 + 6 * 2 * 8 * 7  # the transposed one at its input's pixels
    assert counted.fvcore == convs + (2 + 1) * 6 * 8 * 10 + 6 * 8 * 5 * 7
    assert {'relu', 'prelu', 'elu', 'leaky_relu', 'gelu', 'sigmoid'} <= counted.uncounted_by_fvcore.keys()


def test_fused_attention_is_listed():
    counted = measure_complexity(
        find_network(NetworkChoice('RK4RDN', {'num_feat': 8, 'num_grow_ch': 4, 'num_block': 1, 'order': 1})),
        (8, 6),
        CPU,
    )
    assert counted.uncounted_by_fvcore['scaled_dot_product_attention'] == 1
    assert any('scaled_dot_product' in name for name in counted.uncounted_by_hooks)
    assert counted.multiply_adds_uncounted_by_hooks == 2 * 48 * 48 * 8


def test_peak_memory_is_of_tensors_and_weights():
    class Two(nn.Module):
        def forward(self, x):
            return x + 1

    counted = measure_complexity(found(Two()), (256, 256), CPU)
    assert counted.memory == 2 * 3 * 256 * 256 * 4 / 2**20
    assert 'of tensors' in counted.memory_is


def test_hooks_are_gone_afterwards():
    subject = find_network(NetworkChoice('A2N', {'num_feat': 8, 'num_block': 1}))
    assert measure_complexity(subject, (5, 5), CPU) == measure_complexity(subject, (5, 5), CPU)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in subject.network.modules())


def test_an_input_that_does_not_fit():
    with pytest.raises(UserError, match=r'MSRResNet cannot be run on an input of 1×4×8×8 on cpu: .*--size'):
        measure_complexity(find_network(NetworkChoice('MSRResNet', {'num_block': 1})), (4, 8, 8), CPU)
    with pytest.raises(UsageError, match='H W'):
        measure_complexity(find_network(NetworkChoice('MSRResNet', {'num_block': 1})), (0, 8), CPU)


def test_the_command(capsys):
    arguments = ['complexity', 'LGVAN', '--set', 'num_feat=8', 'num_block=1', '--size', '8', '6']
    assert cli.main([*arguments, '--device', 'cpu']) == 0
    printed = capsys.readouterr().out
    by_hand = formulas.lgvan(8, 6, 8, 1)
    assert printed.startswith('LGVAN(num_feat=8, num_block=1), training form, input 1×3×8×6\n')
    assert f'multiply-adds      {by_hand.multiply_adds:,} (' in printed
    assert 'gelu ×2' in printed
    assert cli.main([*arguments, '--device', 'meta', '--json']) == 0
    described = json.loads(capsys.readouterr().out)
    assert described['hooks'] == by_hand.multiply_adds
    assert described['form'] == 'training form'
    assert described['fvcore'] is None
    assert described['memory'] is None


FIGURES = ('params', 'hooks', 'fvcore', 'activations', 'convs')


@pytest.mark.parametrize(('name', 'arguments'), [(name, arguments) for name, arguments, _ in SMALL])
def test_count_complexity_equals_measure_complexity(name, arguments):
    subject = find_network(NetworkChoice(name, arguments))
    counted, measured = count_complexity(subject, (11, 14), CPU), measure_complexity(subject, (11, 14), CPU)
    assert [getattr(counted, figure) for figure in FIGURES] == [getattr(measured, figure) for figure in FIGURES]
    assert counted.uncounted_by_fvcore == measured.uncounted_by_fvcore
    assert next(subject.network.parameters()).device == CPU


def test_a_network_that_needs_values_is_counted_by_computing():
    class Asks(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) if x.max().item() > 0 else x

    subject = found(Asks(3, 4, 3))
    with pytest.raises(UserError, match='try another --device'):
        measure_complexity(subject, (6, 5), META)
    subject = found(Asks(3, 4, 3))
    assert count_complexity(subject, (6, 5), CPU).hooks == 4 * 3 * 9 * 4 * 3
    assert count_complexity(subject, (6, 5), CPU, fvcore=False).fvcore is None


@pytest.mark.parametrize('keywords', [False, True])
@pytest.mark.parametrize('given', [{}, {'attn_mask': torch.zeros(7, 5)}])
def test_fused_attention_is_not_computed_for_fvcore(monkeypatch, given, keywords):
    """Which changes no count: neither of the projections before it nor of what follows it."""

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.last = nn.Linear(3, 6), nn.Linear(3, 6), nn.Linear(4, 2)

        def forward(self, x):
            query, key = self.query(x[:, :, 0]), self.key(x[:, :, 1, :5])
            operands = {'query': query, 'key': key, 'value': key[..., :4]}
            args, named = ((), operands) if keywords else (operands.values(), {})
            return self.last(F.scaled_dot_product_attention(*args, **named, scale=1.0, **given))

    network, x = Attends(), torch.rand(1, 2, 2, 7, 3)
    counted = complexity.count_fvcore(network, x)
    assert counted['fused_attention'] == 2 * 7 * 5 * (6 + 4)
    monkeypatch.setattr(complexity, 'FusedAttentionCounter', lambda: nullcontext(SimpleNamespace(multiply_adds=0)))
    assert complexity.count_fvcore(network, x) == {**counted, 'fused_attention': 0}
    assert counted['fvcore'] == 2 * 7 * 3 * 6 + 2 * 5 * 3 * 6 + 2 * 7 * 4 * 2
    assert counted['uncounted_by_fvcore']['scaled_dot_product_attention'] == 1

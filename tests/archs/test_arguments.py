"""Arguments that a network cannot work with raise a ValueError at construction."""

import math

import pytest

from earn_plugin import archs
from earn_plugin.archs.arguments import check_choice, check_counts, check_images, check_multiple

# one value for each check of each network
ANY = {'num_in_ch': 4, 'num_feat': 31, 'upscale': 5}
ATTENTION = {'non_local_mode': 'dot', 'squeeze_factor': 0}
WRONG = {
    archs.A2N: {**ANY, 'num_block': 0, 'variant': 'a2n', 'branch_weights': 'none', 'img_range': 0},
    archs.EARN: {
        **ANY,
        **{'num_block': 0, 'variant': 'code', 'groups': 0, 'squeeze_factor': 0, 'window_size': 2, 'use_asca': 'no'},
        **{'img_range': 0, 'rgb_mean': [114.4, 111.5, 103.0]},
    },
    archs.HAN: {**ANY, 'num_group': 0, 'squeeze_factor': 2.0, 'rgb_mean': (-0.1, 0, 0)},
    archs.LGVAN: {**ANY, 'num_block': 0, 'fused': 'no'},
    archs.RK4RDN: {**ANY, **ATTENTION, 'num_layer': 0, 'order': 3, 'attention': 'pixel'},
    archs.RNAN: {**ANY, 'num_block': 1, 'img_range': 0},
    archs.DualAttentionRCAN: {**ANY, **ATTENTION, 'num_group': 0, 'rgb_mean': (2, 0, 0)},
    archs.SRGANDiscriminator: {'num_in_ch': 0, 'num_feat': 2.5},
}


def test_every_network_is_here():
    assert {network.__name__ for network in WRONG} == set(archs.__all__)


@pytest.mark.parametrize(
    ('network', 'name'), [(network, name) for network, arguments in WRONG.items() for name in arguments]
)
def test_a_wrong_argument_is_named(network, name):
    with pytest.raises(ValueError, match=rf'{name} .*must .*, got '):
        network(**{name: WRONG[network][name]})


@pytest.mark.parametrize(
    ('network', 'arguments', 'message'),
    [
        (archs.EARN, {'num_feat': 6, 'squeeze_factor': 3}, r'multiple of 4 .*got 6; try 8'),
        (archs.EARN, {'groups': 5}, r'num_feat must be a multiple of 5 \(groups\), got 64; try 65'),
        (archs.RK4RDN, {'num_feat': 15, 'squeeze_factor': 5}, 'multiple of 2 .*got 15; try 16'),
        (archs.DualAttentionRCAN, {'num_feat': 15, 'squeeze_factor': 5}, 'multiple of 2 .*got 15; try 16'),
    ],
)
def test_features_must_also_fit_the_parts(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        network(**arguments)


@pytest.mark.parametrize('value', [0, -3, 2.0, True, '3', None])
def test_counts_are_integers_of_at_least_1(value):
    with pytest.raises(ValueError, match=r'num_feat must be an integer of at least 1, got '):
        check_counts(num_feat=value)


@pytest.mark.parametrize('value', [5, 2.0, True, '2', None, [2]])
def test_a_choice_has_the_type_of_the_choices(value):
    with pytest.raises(ValueError, match='upscale must be one of 1, 2, got '):
        check_choice((1, 2), upscale=value)


def test_the_nearest_multiple_is_suggested():
    with pytest.raises(ValueError, match=r'num_feat must be a multiple of 16 \(groups\), got 30; try 32'):
        check_multiple(16, 'groups', num_feat=30)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((1, 3), 'num_in_ch and num_out_ch must be equal, got 1 and 3'),
        ((1, 1, 255, (0.4, 0.4, 0.4)), 'num_in_ch must equal .*got 1 .*give rgb_mean 1 value'),
        ((3, 3, 255, [114.4, 111.5, 103.0]), 'rgb_mean must be .*from 0 to 1, .*; divide .* by 255'),
        ((3, 3, 255, 0.5), 'rgb_mean must be a list'),
        ((3, 3, math.nan), 'img_range must be .*got nan'),
        ((3, 3, math.inf), 'img_range must be .*got inf'),
    ],
)
def test_images_fit_range_and_mean(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_images(*arguments)


@pytest.mark.parametrize(
    ('network', 'arguments'),
    [
        (archs.A2N, {'num_in_ch': 1, 'num_out_ch': 1}),
        (archs.LGVAN, {'num_in_ch': 4, 'num_out_ch': 4}),
        (archs.RNAN, {'num_in_ch': 1, 'num_out_ch': 1, 'rgb_mean': [0.5], 'num_feat': 2}),
        (archs.HAN, {'num_block': 1, 'img_range': 1, 'rgb_mean': [0, 0, 0]}),
        # the conditions of an attention that the network does not have
        (archs.RK4RDN, {'num_feat': 15, 'attention': 'none'}),
        (archs.RK4RDN, {'num_feat': 30, 'attention': 'spatial'}),
        (archs.RK4RDN, {'num_feat': 15, 'squeeze_factor': 5, 'attention': 'channel'}),
    ],
)
def test_unusual_arguments_are_accepted(network, arguments):
    network(**arguments)

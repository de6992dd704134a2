"""Every argument of every network: what it cannot serve is told at construction."""

import inspect
import math

import pytest

from earn_plugin import archs

COUNT = [0, -3, 2.0, True, '3', None]
CHANNELS = {'num_in_ch': [*COUNT, 4], 'num_out_ch': [*COUNT, 1]}
RANGE = {'img_range': [0, -1.0, math.inf, math.nan, True, '255', None]}
SHIFT = {**RANGE, 'rgb_mean': [(0.5,), (), 0.5, None, 'abc', (0.5, 0.5, '0.5'), [114.4, 111.5, 103.0], (-0.1, 0, 0)]}
UPSCALE = [0, 1, 5, -2, 2.0, '4', True, None]
UPSCALE_8 = [*UPSCALE, 6, 16]
ODD_NAMES = ['no such', '', 0, None, True, ['dual']]
SWITCH = ['no', 1, 0, None]

WRONG = {
    archs.A2N: {
        **CHANNELS,
        'num_feat': [*COUNT, 30, 2],
        'num_upfeat': COUNT,
        'num_block': COUNT,
        'upscale': [*UPSCALE, 8],
        'variant': [*ODD_NAMES, 'a2n'],
        'branch_weights': [*ODD_NAMES, (0.5, 0.5)],
        **RANGE,
    },
    archs.EARN: {
        **CHANNELS,
        'num_feat': [*COUNT, 30],
        'num_block': COUNT,
        'upscale': [*UPSCALE, 8],
        'variant': [*ODD_NAMES, 'code'],
        'num_group': [value for value in COUNT if value is not None] + [5, 'all'],
        'reduction': [*COUNT, 7, 128],
        'window_size': [*COUNT, 2],
        'use_asca': SWITCH,
        'use_skip': SWITCH,
        'use_local_attention': SWITCH,
        **SHIFT,
    },
    archs.HAN: {
        **CHANNELS,
        'num_feat': [*COUNT, 30],
        'num_group': COUNT,
        'num_block': COUNT,
        'upscale': UPSCALE_8,
        'reduction': [*COUNT, 7, 128],
        **SHIFT,
    },
    archs.LGVAN: {
        **CHANNELS,
        'num_feat': [*COUNT, 31],
        'num_block': COUNT,
        'upscale': [*UPSCALE, 8],
        'fused': SWITCH,
    },
    archs.RK4RDN: {
        **CHANNELS,
        'num_feat': [*COUNT, 30],
        'num_grow_ch': COUNT,
        'num_block': COUNT,
        'num_layer': COUNT,
        'upscale': [*UPSCALE, 8],
        'order': [0, 3, 5, 2.0, '4', True, None],
        'attention': [*ODD_NAMES, 'pixel'],
        'non_local_mode': [*ODD_NAMES, 'concatenation'],
        'reduction': [*COUNT, 7, 128],
    },
    archs.RNAN: {
        **CHANNELS,
        'num_feat': [*COUNT, 31],
        'num_block': [*COUNT, 1],
        'upscale': [*UPSCALE, 8],
        **SHIFT,
    },
    archs.DualAttentionRCAN: {
        **CHANNELS,
        'num_feat': [*COUNT, 30],
        'num_group': COUNT,
        'num_block': COUNT,
        'upscale': UPSCALE_8,
        'non_local_mode': [*ODD_NAMES, 'concatenation'],
        'reduction': [*COUNT, 7, 128],
        **SHIFT,
    },
}


def test_every_network_has_a_table():
    assert {network.__name__ for network in WRONG} == {
        name for name in archs.__all__ if 'upscale' in inspect.signature(getattr(archs, name)).parameters
    }


@pytest.mark.parametrize('network', WRONG)
def test_a_table_covers_exactly_the_networks_arguments(network):
    assert set(WRONG[network]) == set(inspect.signature(network).parameters)


@pytest.mark.parametrize(
    ('network', 'argument', 'value'),
    [(n, argument, value) for n, table in WRONG.items() for argument, values in table.items() for value in values],
)
def test_a_wrong_argument_is_a_value_error_with_its_name_and_value_and_what_is_right(network, argument, value):
    with pytest.raises(ValueError, match=r'must (be|equal) .*got ') as error:
        network(**{argument: value})
    assert argument in str(error.value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    ('network', 'arguments', 'told'),
    [
        (archs.EARN, {'num_feat': 6, 'reduction': 3}, 'num_feat must be a multiple of 4 .*got 6; try 8'),
        (archs.EARN, {'num_group': 5}, r'num_feat must be a multiple of 5 \(num_group\), got 64; try 65'),
        (archs.HAN, {'num_feat': 30}, r'num_feat must be a multiple of 16 \(reduction\), got 30; try 32'),
        (archs.RK4RDN, {'num_feat': 15, 'reduction': 5}, 'num_feat must be a multiple of 2 .*got 15; try 16'),
        (archs.DualAttentionRCAN, {'num_feat': 15, 'reduction': 5}, 'num_feat must be a multiple of 2 .*got 15; try'),
        (archs.RNAN, {'num_in_ch': 1, 'num_out_ch': 1}, 'num_in_ch must equal .*got 1 .*give rgb_mean 1 value'),
        (archs.LGVAN, {'num_in_ch': 1}, 'num_in_ch and num_out_ch must be equal, got 1 and 3; set both'),
        (archs.A2N, {'upscale': 5}, 'upscale must be one of 2, 3, 4, got 5'),
        (archs.HAN, {'rgb_mean': [114.4, 111.5, 103]}, 'rgb_mean must be .*from 0 to 1, .*; divide .* by 255'),
    ],
)
def test_the_remedy_is_told(network, arguments, told):
    with pytest.raises(ValueError, match=told):
        network(**arguments)


@pytest.mark.parametrize(
    ('network', 'arguments'),
    [
        (archs.A2N, {'num_in_ch': 1, 'num_out_ch': 1}),
        (archs.LGVAN, {'num_in_ch': 4, 'num_out_ch': 4}),
        (archs.RNAN, {'num_in_ch': 1, 'num_out_ch': 1, 'rgb_mean': [0.5], 'num_feat': 2}),
        (archs.HAN, {'num_block': 1, 'img_range': 1, 'rgb_mean': [0, 0, 0]}),
        # what an attention needs is no condition where there is none
        (archs.RK4RDN, {'num_feat': 15, 'attention': 'none'}),
        (archs.RK4RDN, {'num_feat': 30, 'attention': 'spatial'}),
        (archs.RK4RDN, {'num_feat': 15, 'reduction': 5, 'attention': 'channel'}),
    ],
)
def test_nothing_is_refused_that_works(network, arguments):
    network(**arguments)

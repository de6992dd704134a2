"""Each network, built by its arguments, has the output of the authors' network with the same weights."""

from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network

from earn_plugin.convert.authors import FORMATS
from earn_plugin.convert.networks import load_strictly
from earn_plugin.convert.weight_files import describe_network
from earn_plugin.protocols import Fusible
from tests.helpers.places import GOLDEN

EARN = {'num_feat': 32, 'variant': 'released'}
RK4RDN = {'num_feat': 16, 'num_grow_ch': 8, 'num_block': 3, 'num_layer': 3}
CASES = {
    'a2n_x2': ('A2N', {'upscale': 2}),
    'a2n_x3': ('A2N', {'upscale': 3}),
    'a2n_x4': ('A2N', {'upscale': 4}),
    'earn_code_nola_x4_f32g1': ('EARN', {**EARN, 'num_block': 1, 'use_local_attention': False}),
    'earn_code_x2_f32g2': ('EARN', {**EARN, 'num_block': 2, 'upscale': 2}),
    'earn_code_x4_f32g2': ('EARN', {**EARN, 'num_block': 2}),
    'han_x2_f16b2': ('HAN', {'num_feat': 16, 'num_block': 2, 'squeeze_factor': 4, 'upscale': 2}),
    'han_x4_f16b2': ('HAN', {'num_feat': 16, 'num_block': 2, 'squeeze_factor': 4}),
    'lgvan_x2_f16b3': ('LGVAN', {'num_feat': 16, 'num_block': 3, 'upscale': 2}),
    'lgvan_x4_f32b9': ('LGVAN', {}),
    'rkrdn_euler_none_x3': ('RK4RDN', {**RK4RDN, 'order': 1, 'attention': 'none', 'upscale': 3}),
    'rkrdn_rk2_dual_x2': ('RK4RDN', {**RK4RDN, 'order': 2, 'upscale': 2}),
    'rkrdn_rk4_dual_x4': ('RK4RDN', RK4RDN),
    'rnan_x2_f16g3': ('RNAN', {'num_feat': 16, 'num_block': 3, 'upscale': 2}),
}


def test_every_case_is_here():
    assert set(CASES) == {path.stem for path in GOLDEN.glob('*.json') if not path.stem.startswith('block_')}


@pytest.mark.parametrize('name', CASES)
def test_equals_the_authors_network(golden, name):
    arch, arguments = CASES[name]
    case = golden(name)
    network = build_network({'type': arch, **arguments}).double()
    kind = next(kind for kind in FORMATS if kind.arch == arch)
    arguments = describe_network('net_g', {'network_g': {'type': arch, **arguments}})['arguments']
    load_strictly(Path(name), network, case.weights, kind, arguments)
    with torch.no_grad():
        for form in (network, network.fuse()) if isinstance(type(network), Fusible) else (network,):
            output = form(case.input / case.input_range) * case.input_range
            assert case.error(output) < 1e-9

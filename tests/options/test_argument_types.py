import inspect
from typing import Any

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.swinir_arch import SwinIR
from basicsr.metrics import calculate_psnr

from earn_plugin.options.argument_types import arguments_of, fits, kind_name, kind_of, takes_any_key


@pytest.mark.parametrize(
    ('value', 'kind', 'expected'),
    [
        (1, int, True),
        (1.0, int, False),
        (True, int, False),
        ('1', int, False),
        (1, float, True),
        (True, float, False),
        (float('nan'), float, False),
        (False, bool, True),
        (0, bool, False),
        ('a', str, True),
        (None, str, False),
        (None, str | None, True),
        ([1, 2.5], tuple[float, ...], True),
        ([1, 'a'], tuple[float, ...], False),
        ((1, 2), tuple, False),
        ([1], float | list, True),
        ({'a': 1}, dict[str, float], True),
        ('anything', Any, True),
        (None, object, True),
    ],
)
def test_fits(value, kind, expected):
    assert fits(value, kind) is expected


def test_kinds_of_basicsrs_defaults():
    parameters, hints = arguments_of(EDSR)
    assert not hints
    kinds = {name: kind_of(p, hints) for name, p in parameters.items()}
    assert fits(0.1, kinds['res_scale'])
    assert not fits('64', kinds['num_feat'])
    assert fits(anything := object(), kinds['num_in_ch']), anything
    parameters, hints = arguments_of(torch.optim.Adam, skip=('params',))
    assert 'params' not in parameters
    assert fits([0.9, 0.99], kind_of(parameters['betas'], hints))
    assert not fits('1e-4', kind_of(parameters['lr'], hints))


def test_only_used_kwargs_take_any_key():
    def passes_on(a, **kwargs):
        return dict(**kwargs)

    scope = {}
    exec(compile('def has_no_source(**kwargs): pass', 'nowhere', 'exec'), scope)
    assert takes_any_key(scope['has_no_source'])
    assert takes_any_key(passes_on)
    assert not takes_any_key(calculate_psnr)
    assert not takes_any_key(SwinIR)
    assert not takes_any_key(EDSR)


def test_kind_names():
    assert kind_name(int) == 'a whole number'
    assert kind_name(float | list) == 'a number or a list'
    assert kind_name(str | None) == 'text or nothing (~)'
    assert kind_name(tuple[float, ...]) == 'a list'
    assert kind_name(float | torch.Tensor) == 'a number'  # as torch annotates a learning rate
    assert kind_name(inspect.Parameter) == 'Parameter'

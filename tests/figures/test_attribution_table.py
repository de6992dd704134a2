"""``basicsr attribution``: its table, JSON and figure; which inputs and networks go together."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earn_plugin.convert.networks import NetworkChoice
from earn_plugin.errors import UsageError, UserError
from earn_plugin.figures import attribution_table
from earn_plugin.figures.attribution import MIDPOINT
from earn_plugin.figures.attribution_table import attribute_networks
from earn_plugin.prepare.lr import make_lr
from tests.helpers.command import command_here
from tests.helpers.pictures import photo, save

SMALL = {'num_feat': 16, 'num_block': 1}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def small(upscale: int = 2, **settings) -> NetworkChoice:
    return NetworkChoice('LGVAN', {**SMALL, 'upscale': upscale, **settings})


def test_the_command(capsys):
    pytest.importorskip('matplotlib')
    save(Path('lr.png'), photo(20, 24))
    arguments = ['attribution', 'lr.png', '--model', 'LGVAN', 'B=LGVAN', '--set', 'num_feat=16', 'num_block=1']
    arguments += ['--upscale', '2', '--steps', '3', '--window', '10', '12', '8']
    printed = command_here(*arguments, '-o', 'map.png', '--json', 'map.json', '--columns', '1', capsys=capsys)
    assert 'input 24×20, window 8×8 at (10, 12) of the result, 48×40' in printed
    numbers = json.loads(Path('map.json').read_text())
    assert numbers['window'] == {'x': 10, 'y': 12, 'size': 8} and numbers['rule']['steps'] == 3
    first, second = numbers['networks']
    assert (first['label'], second['label']) == ('LGVAN', 'B')
    assert first['map'] == second['map']  # their random weights have the same seed
    assert np.shape(first['map']) == (20, 24) and np.max(first['map']) == 1
    assert first['involved_pixels'] == pytest.approx(first['diffusion_index'] / 100 * 480)
    assert f'{first["diffusion_index"]:.2f}' in printed and f'{100 * first["missing"]:+.2f} %' in printed
    assert ('warning: LGVAN' in printed) == (abs(first['missing']) > 0.01)
    with Image.open('map.png') as figure:
        assert figure.width == pytest.approx(3.5 * 300, abs=20)


@pytest.mark.parametrize(
    'wrong',
    [
        ['--steps', '0'],
        ['--steps', '10', '--as-published'],
        ['--window', '40', '0', '16'],
        ['--model', 'LGVAN'],
        ['--model', '=LGVAN'],
        ['--model', 'missing.onnx'],
        ['-o', 'map.gif'],
        ['-o', 'lr.png'],
        ['--json', './lr.png'],
        ['--columns', '1', '--output', 'map.png', '--model', 'A=LGVAN', 'B=LGVAN', 'C=LGVAN'],
    ],
    ids=lambda words: ' '.join(words),
)
def test_wrong_usage(wrong, capsys):
    save(Path('lr.png'), photo(20, 24))
    arguments = ['attribution', 'lr.png', '--model', 'LGVAN', '--set', 'num_feat=16', 'num_block=1', '--upscale', '2']
    expected = 'at most 3 networks, got 4' if '--output' in wrong else wrong[1].removeprefix('./')
    assert expected in command_here(*arguments, *wrong, capsys=capsys, expect=2)
    assert not Path('map.png').exists()


def test_networks_of_several_scales_are_not_compared():
    save(Path('lr.png'), photo(20, 24))
    with pytest.raises(UsageError, match='A ×2, B ×4'):
        attribute_networks(Path('lr.png'), {'A': small(), 'B': small(4)})


def test_an_hr_image_is_reduced_as_by_prepare_lr():
    save(Path('HR/a.png'), photo(42, 53))
    make_lr(Path('HR'), Path('LR'), 2)
    of_hr = attribute_networks(Path('HR/a.png'), {'A': small()}, rule=MIDPOINT._replace(steps=2), hr=True)
    of_lr = attribute_networks(Path('LR/a.png'), {'A': small()}, rule=MIDPOINT._replace(steps=2))
    assert np.array_equal(of_hr.image, of_lr.image) and of_hr.image.shape == (21, 26, 3)
    assert np.array_equal(of_hr.attributions['A'].map, of_lr.attributions['A'].map)


@pytest.mark.parametrize('kind', ['grey', 'alpha', 'deep'])
def test_pictures_of_other_kinds(kind):
    pixels = {'grey': photo(40, 40)[..., 0], 'deep': photo(40, 40, deep=True)}.get(kind)
    if kind == 'alpha':
        pixels = np.dstack([photo(40, 40), np.full((40, 40), 255, np.uint8)])
    save(Path('a.png'), pixels)
    found = attribute_networks(Path('a.png'), {'A': small()}, rule=MIDPOINT._replace(steps=1), hr=True)
    assert found.attributions['A'].map.shape == (20, 20)
    grey = {'A': small(num_in_ch=1, num_out_ch=1)}
    if kind == 'grey':
        assert attribute_networks(Path('a.png'), grey, rule=MIDPOINT._replace(steps=1)).attributions['A'].terms == 256
    else:
        with pytest.raises(UserError, match='A: takes grey pictures only'):
            attribute_networks(Path('a.png'), grey)


def test_pictures_that_cannot_be_read():
    Path('text.png').write_bytes(b'text')
    for path, error in (('.', 'is a folder'), ('no.png', 'does not exist'), ('text.png', 'not a picture')):
        with pytest.raises(UserError, match=error):
            attribute_networks(Path(path), {'A': small()})
    save(Path('tiny.png'), photo(1, 9))
    with pytest.raises(UsageError, match='too few'):
        attribute_networks(Path('tiny.png'), {'A': small()}, hr=True)
    with pytest.raises(UsageError, match='18×2 pixels'):
        attribute_networks(Path('tiny.png'), {'A': small()})


@pytest.mark.parametrize(('enough', 'steps'), [(1, 10), (40, 40), (100, 80)])
def test_as_many_steps_as_it_takes(enough, steps, monkeypatch):
    save(Path('lr.png'), photo(20, 24))
    computed = attribution_table.attribute

    def attribute(network, x, scale, window, rule, on_step):
        few = computed(network, x, scale, window, MIDPOINT._replace(steps=1))
        return replace(few, missing=0.002 if rule.steps >= enough else -0.03)

    monkeypatch.setattr(attribution_table, 'attribute', attribute)
    table = attribute_networks(Path('lr.png'), {'A': small(), 'B': small()})
    assert table.rule == MIDPOINT._replace(steps=steps)
    assert bool(table.warnings()) == (enough > steps)
    assert attribute_networks(Path('lr.png'), {'A': small()}, rule=MIDPOINT).rule == MIDPOINT

"""The included networks: found by name wherever a checkpoint is named, and in the wheel, with their cards."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import earn_plugin
from earn_plugin.catalogue import print_catalogue
from earn_plugin.convert.networks import NetworkChoice, find_network
from earn_plugin.convert.weight_files import read_weights
from earn_plugin.errors import UsageError, UserError
from earn_plugin.weights import checkpoint_file, included
from tests.benchmarks.model_card import card_of, filled, results_of
from tests.helpers.command import command_here
from tests.helpers.images import photograph
from tests.helpers.places import ROOT

NAME = 'A2N-S_x4'


@pytest.mark.parametrize('name', included())
def test_a_file_is_small_and_describes_its_network(name):
    weights, description, nested = read_weights(included()[name])
    assert included()[name].stat().st_size <= 1.5e6
    assert (description['arch'], nested) == ('A2N', '')
    assert name == f'A2N-S_x{description["scale"]}'
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in weights.values())


def test_every_file_has_a_card():
    folder = ROOT / 'earn_plugin/weights'
    assert {path.stem for path in folder.glob('*.md')} == set(included()) >= {NAME}


@pytest.mark.parametrize('name', included())
def test_a_card_has_the_numbers_of_its_file_and_results(name):
    card = card_of(name).read_text(encoding='utf-8')
    assert card == filled(name, card), f'python -m tests.benchmarks.model_card {name} fills it in'
    checksum = hashlib.sha256(included()[name].read_bytes()).hexdigest()
    assert checksum in card
    if results := results_of(name):
        assert results['checkpoint']['sha256'] == checksum
        assert f'{results["datasets"]["Set5"]["mean"]["psnr"]:.2f} / ' in card


def test_a_file_in_the_working_directory_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(NAME).mkdir()  # as results may be named
    assert checkpoint_file(NAME) == included()[NAME]
    assert find_network(NetworkChoice(NAME)).arguments['num_feat'] == 32
    Path(NAME).rmdir()
    torch.save(earn_plugin.load(NAME, fused=True).state_dict(), NAME)
    assert checkpoint_file(NAME) == Path(NAME)
    assert earn_plugin.load(NAME, upscale=4, fused=True).conv_first.weight.shape == (32, 3, 3, 3)


@pytest.mark.parametrize('name', ['A2N-S_x5', 'A2N-S', 'A2N-S_x4.pth', 'missing.safetensors'])
def test_a_misspelt_name_lists_the_possible_ones(name):
    with pytest.raises(UserError, match=rf'{name} .*{NAME}'):
        earn_plugin.load(name)
    with pytest.raises((UserError, UsageError), match=rf'{name} .*{NAME}'):
        find_network(NetworkChoice(name))


def test_a_missing_path_does_not():
    with pytest.raises(UserError, match=r'models/A2N-S_x5 does not exist$'):
        earn_plugin.load('models/A2N-S_x5')


def test_commands_take_the_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert '344,627 parameters' in command_here('convert', NAME, 'out.pth', capsys=capsys)
    for ours, again in zip(earn_plugin.load(NAME).parameters(), earn_plugin.load('out.pth').parameters(), strict=True):
        assert torch.equal(ours, again)
    assert '344,627' in command_here('complexity', NAME, '--size', 16, 16, '--device', 'meta', capsys=capsys)
    printed = command_here(
        'benchmark', 'network', NAME, '--size', 8, 8, '--repeats', 1, '--forms', 'trained', capsys=capsys
    )
    assert 'A2N(' in printed


def test_the_catalogue_has_the_first_line_of_the_card(capsys):
    print_catalogue()
    assert f'  {NAME:<32}A2N' in capsys.readouterr().out


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The unpacked wheel, built from a copy of what it is built from."""
    root = tmp_path_factory.mktemp('wheel')
    source = root / 'source'
    for name in ('earn_plugin', 'options', 'datasets'):
        kept = {'datasets': ['README.md']}.get(name)
        ignore = (lambda _, names: {*names} - {*kept}) if kept else shutil.ignore_patterns('__pycache__')  # noqa: B023
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ('setup.py', 'pyproject.toml', 'README.md'):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', root, source]
    subprocess.run(build, check=True, cwd=root)
    (built,) = root.glob('*.whl')
    with zipfile.ZipFile(built) as archive:
        archive.extractall(root / 'unpacked')
    return root / 'unpacked'


def test_the_wheel_has_weights_cards_and_recipes(wheel):
    folder = ROOT / 'earn_plugin/weights'
    assert sorted(path.name for path in (wheel / 'earn_plugin/weights').iterdir()) == sorted(
        path.name for path in folder.iterdir() if path.is_file()
    )
    assert (wheel / f'earn_plugin/recipes/test_{NAME}.yml').is_file()
    assert (wheel / 'earn_plugin/datasets/README.md').is_file()


def test_an_installed_package_enlarges_a_photograph(wheel, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / 'photo.jpg'), photograph(20, 24))
    environment = {**os.environ, 'PYTHONPATH': str(wheel)}
    run = 'import sys, earn_plugin.cli; print(earn_plugin.__file__); sys.exit(earn_plugin.cli.main(sys.argv[1:]))'
    done = subprocess.run(
        [sys.executable, '-c', run, 'upscale', 'photo.jpg'],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(wheel))
    assert cv2.imread(str(tmp_path / 'photo_x4.jpg')).shape == (80, 96, 3)

"""A folder of images, and archives of small data sets for the commands that make the tree."""

import os
import shutil
from functools import partial

import pytest

from earn_plugin.data.image_files import write_image
from earn_plugin.prepare import benchmark_sets, div2k, flickr2k, voc2012
from tests.helpers.images import photograph
from tests.helpers.published import FLICKR, HR, TRAIN, VALID, publish


@pytest.fixture
def folder(tmp_path):
    """HR/im0.png to im2.png of 50×70, 51×70 and 52×70."""
    for index in range(3):
        write_image(tmp_path / f'HR/im{index}.png', photograph(50 + index, 70, index))
    return tmp_path / 'HR'


@pytest.fixture(scope='session')
def published(tmp_path_factory):
    voc = {'2008_000001': photograph(100, 110), '2007_000002': photograph(97, 120), '2007_000009': photograph(60, 99)}
    sets = dict.fromkeys(benchmark_sets.COUNTS, HR)
    return publish(tmp_path_factory.mktemp('sets'), train=TRAIN, valid=VALID, flickr=FLICKR, benchmark=sets, voc=voc)


@pytest.fixture
def downloads(published, tmp_path, monkeypatch):
    """A copy of the archives in a working directory; the data sets have as many images as the archives."""
    shutil.copytree(published, tmp_path / 'Downloads')
    for module, name, counts in (
        (div2k, 'make_div2k', {'train': (1, 2, 3), 'valid': (801, 802)}),
        (flickr2k, 'make_flickr2k', {'train': (1, 2, 3), 'flickr': (1, 2)}),
        (voc2012, 'make_voc2012', {'images': 3, 'first': 2}),
        (benchmark_sets, 'make_benchmark', {'counts': dict.fromkeys(benchmark_sets.COUNTS, 2)}),
    ):
        monkeypatch.setattr(module, name, partial(getattr(module, name), **counts))
    monkeypatch.setattr(os, 'sync', lambda: None)  # it waits for the disk of the complete machine
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'Downloads'

"""Archives of small data sets, for the commands that make a tree of them."""

import os
import shutil
from functools import partial

import pytest

from earn_plugin.prepare import benchmarks
from earn_plugin.prepare import div2k as sets
from tests.helpers.images import photograph
from tests.helpers.published import FLICKR, HR, TRAIN, VALID, publish


@pytest.fixture(scope='session')
def published(tmp_path_factory):
    images = dict.fromkeys(benchmarks.COUNTS, HR)
    voc = {'2008_000001': photograph(100, 110), '2007_000002': photograph(97, 120), '2007_000009': photograph(60, 99)}
    return publish(tmp_path_factory.mktemp('sets'), TRAIN, VALID, FLICKR, images, voc)


@pytest.fixture
def downloads(published, tmp_path, monkeypatch):
    """A copy of the archives, in a working directory; the sets have as many images as are in them."""
    shutil.copytree(published, tmp_path / 'Downloads')
    div2k, flickr2k = partial(sets.div2k, train=(1, 2, 3), valid=(801, 802)), partial(sets.flickr2k, train=(1, 2, 3))
    monkeypatch.setattr(sets, 'div2k', div2k)
    monkeypatch.setattr(sets, 'flickr2k', partial(flickr2k, flickr=(1, 2)))
    monkeypatch.setattr(sets, 'voc2012', partial(sets.voc2012, images=3, taken=2))
    monkeypatch.setattr(
        benchmarks, 'benchmark', partial(benchmarks.benchmark, counts=dict.fromkeys(benchmarks.COUNTS, 2))
    )
    monkeypatch.setattr(os, 'sync', lambda: None)  # it waits for the whole machine's disk
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'Downloads'

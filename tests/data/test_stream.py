import copy
import pickle

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from hypothesis import given
from hypothesis import strategies as st

from earn_plugin import rng
from earn_plugin.data.loaders import TrainingData
from earn_plugin.data.stream import Positions, Readable, Share, Stream, collate, image_names
from earn_plugin.errors import UserError


class Noisy(torch.utils.data.Dataset):
    """Draws from all three generators, as BasicSR's data sets may do."""

    def __init__(self, length=5):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        import random

        return {'index': index, 'drawn': (random.random(), np.random.rand(), torch.rand(1).item())}


def test_sample_depends_only_on_seed_and_position():
    stream = Stream(Noisy(), seed=3)
    ahead = [stream[p] for p in range(12)]
    np.random.seed(0)
    torch.manual_seed(0)
    shuffled = {p: stream[p] for p in (7, 3, 11, 0)}
    assert all(shuffled[p] == ahead[p] for p in shuffled)
    assert Stream(Noisy(), seed=3)[9] == ahead[9]
    assert Stream(Noisy(), seed=4)[9] != ahead[9]


def test_batch_equals_its_samples_and_leaves_the_generators_alone():
    stream = Stream(Noisy(), seed=3)
    state = rng.get_state()
    expected = torch.rand(2)
    rng.set_state(state)
    assert stream.__getitems__([4, 11, 4]) == [stream[4], stream[11], stream[4]]
    assert torch.equal(torch.rand(2), expected)


@given(length=st.integers(1, 12), ratio=st.sampled_from([1, 2, 3.5]), seed=st.integers(0, 10))
def test_epoch_has_every_image_in_a_new_order(length, ratio, seed):
    stream = Stream(Noisy(length), seed, ratio)
    epochs = [
        [stream[p]['index'] for p in range(e * stream.epoch_length, (e + 1) * stream.epoch_length)] for e in (0, 1)
    ]
    for epoch in epochs:
        counts = np.bincount(epoch, minlength=length)
        assert counts.sum() == np.ceil(length * ratio)
        assert counts.max() - counts.min() <= 1
    assert stream.epoch_length < 8 or epochs[0] != epochs[1]


def test_no_two_epochs_repeat_their_draws():
    stream = Stream(Noisy(4), seed=0)
    assert len({stream[p]['drawn'] for p in range(400)}) == 400


@given(start=st.integers(0, 20), count=st.integers(0, 5), batch=st.integers(1, 4), world=st.integers(1, 4))
def test_positions_of_all_processes_together_are_one_stream(start, count, batch, world):
    by_rank = [list(Positions(start, count, batch, rank, world)) for rank in range(world)]
    assert all(len(Positions(start, count, batch, rank, world)) == len(p) for rank, p in enumerate(by_rank))
    merged = [p for i in range(count) for rank in range(world) for p in by_rank[rank][i * batch : (i + 1) * batch]]
    assert merged == list(range(start, start + count * batch * world))


def options(tiny, workers, **changes):
    opt = copy.deepcopy(tiny)
    opt.update(dist=False, rank=0, world_size=1)
    opt['datasets']['train'].update(phase='train', scale=2, num_worker_per_gpu=workers, **changes)
    return opt


def batches(tiny, workers, position, count, **changes):
    opt = options(tiny, workers, **changes)
    data = TrainingData(build_dataset(opt['datasets']['train']), opt)
    return list(data.batches(position, count))


@pytest.mark.parametrize('mode', [None, 'cpu', 'cuda'])
def test_any_worker_count_and_restart_give_the_same_batches(tiny, mode):
    """With BasicSR's data set on an LMDB; prefetch_mode cuda falls back without CUDA."""
    expected = batches(tiny, 0, 0, 8)
    assert len(expected) == 8
    for workers, first in ((1, 0), (2, 0), (3, 5)):
        part = batches(tiny, workers, first * 2, 8 - first, prefetch_mode=mode)
        for batch, other in zip(expected[first:], part, strict=True):
            assert batch['gt_path'] == other['gt_path']
            assert torch.equal(batch['lq'], other['lq'])
            assert torch.equal(batch['gt'], other['gt'])
    crops = [gt.numpy().tobytes() for batch in expected for gt in batch['gt']]
    assert len(set(crops)) == len(crops)


def test_training_generator_is_not_drawn_from(tiny):
    state = rng.get_state()
    expected = torch.rand(2)
    rng.set_state(state)
    batches(tiny, 1, 0, 2)
    assert torch.equal(torch.rand(2), expected)


def test_batch_larger_than_an_epoch(tiny):
    with pytest.raises(UserError, match=r'batch of 7 is larger than an epoch of data set train: 6 samples .*ratio: 2'):
        batches(tiny, 0, 0, 1, batch_size_per_gpu=7)
    assert len(batches(tiny, 0, 0, 1, batch_size_per_gpu=7, dataset_enlarge_ratio=2)[0]['gt']) == 7


class Broken(Noisy):
    opt = {'name': 'broken'}

    def __getitem__(self, index):
        raise ValueError('no such thing')


def test_failure_arrives_as_a_message():
    with pytest.raises(UserError, match=r'data set broken: cannot read sample 2 .*ValueError: no such thing'):
        Readable(Broken())[2]
    for paths in ({'a': 'b'}, ['a', 'b']):  # of a data set whose paths are not those of its samples
        dataset = Broken()
        dataset.paths = paths
        with pytest.raises(UserError, match=r'sample 2 \(no path known\): ValueError: no such thing'):
            Readable(dataset)[2]
    failed = Stream(Broken(), 0)[0]
    assert isinstance(failed, UserError)
    assert collate([{'a': 1}, failed]) == {'failure': failed}
    assert torch.equal(collate([{'a': 1}, {'a': 2}])['a'], torch.tensor([1, 2]))


def test_wrapper_behaves_like_its_data_set_and_can_be_pickled():
    readable = Readable(Broken(3))
    assert readable.opt['name'] == 'broken'
    assert len(pickle.loads(pickle.dumps(Readable(Noisy(3))))) == 3
    with pytest.raises(AttributeError):
        _ = readable.nothing


def test_image_names():
    assert image_names({'gt_path': ['a', 'b'], 'lq_path': ['c', 'd']}) == ['a', 'b']
    assert image_names({'lq': 0}) == []


@pytest.mark.parametrize('world_size', [1, 3, 7])
def test_shares_are_a_partition_of_the_data_set(world_size):
    shares = [Share(Noisy(5), rank, world_size) for rank in range(world_size)]
    read = [(index, share[k]['index']) for share in shares for k, index in enumerate(share.indices)]
    assert sorted(read) == [(index, index) for index in range(5)]
    assert sum(map(len, shares)) == 5


def test_a_share_names_the_sample_that_cannot_be_read():
    class Damaged(Noisy):
        def __getitem__(self, index):
            raise ValueError(f'number {index}')

    with pytest.raises(UserError, match=r'sample 4 .*number 4'):
        Share(Damaged(), 1, 3)[1]

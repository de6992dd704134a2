"""The training data as one endless stream, in which a sample is a function of the seed and its position alone.

BasicSR seeds its workers the same way in every epoch, and their number and the restart of an epoch change every crop.
Here position p of the stream has the same image with the same crop, flip, rotation and noise whichever worker or
process reads it, and iteration k has the same positions whether or not training was interrupted before it.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler, default_collate

from earn_plugin import rng
from earn_plugin.data.pair_checks import explain_failure
from earn_plugin.errors import UserError

_ORDER, _SAMPLE = 0, 1  # keep the seeds of the epochs' orders and those of the samples apart


class Readable(Dataset):
    """A BasicSR data set whose failures name the files; in all else the data set itself."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not set yet: while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            raise UserError(explain_failure(self.dataset, index, error)) from error


class Stream(Readable):
    """The stream of a BasicSR data set: ``stream[position]``, for any position from 0 on.

    Args:
        dataset: any BasicSR data set, as it is.
        seed: of the orders and of every sample.
        enlarge_ratio: BasicSR's ``dataset_enlarge_ratio``: how often an epoch has each image.
    """

    def __init__(self, dataset: Dataset, seed: int, enlarge_ratio: float = 1):
        super().__init__(dataset)
        self.seed = seed
        self.epoch_length = math.ceil(len(dataset) * enlarge_ratio)
        self._order = (-1, [])

    def order(self, epoch: int) -> list[int]:
        """The images of an epoch, by index, shuffled."""
        if self._order[0] != epoch:
            with rng.seeded(self.seed, _ORDER, epoch):
                permutation = torch.randperm(self.epoch_length)
            self._order = epoch, (permutation % len(self.dataset)).tolist()
        return self._order[1]

    def __getitem__(self, position: int) -> Any:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: list[int]) -> list:
        """What torch's loader asks for: a batch. The generators are put back once for all of it."""
        with rng.preserved_on_cpu():
            return [self._read(position) for position in positions]

    def _read(self, position: int) -> Any:
        epoch, offset = divmod(position, self.epoch_length)
        index = self.order(epoch)[offset]
        rng.seed(self.seed, _SAMPLE, position)
        try:
            return super().__getitem__(index)
        except UserError as error:
            return error  # raised in the main process, without a worker's traceback around it


class Positions(Sampler):
    """The positions that one process reads, batch after batch; all processes together read every position once.

    ``start`` is the first position; there are ``count`` batches of ``batch_size`` a process. Setting ``count`` to 0
    ends an iteration under way.
    """

    def __init__(self, start: int, count: int, batch_size: int, rank: int = 0, world_size: int = 1):
        self.start, self.count, self.batch_size = start, count, batch_size
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.count * self.batch_size

    def __iter__(self) -> Iterator[int]:
        batch = 0
        while batch < self.count:
            first = self.start + (batch * self.world_size + self.rank) * self.batch_size
            yield from range(first, first + self.batch_size)
            batch += 1


def collate(samples: list) -> dict:
    """torch's default batch; {'failure': error} where a sample could not be read."""
    failures = [sample for sample in samples if isinstance(sample, UserError)]
    return {'failure': failures[0]} if failures else default_collate(samples)


def image_names(batch: dict) -> list[str]:
    """The files or keys of the images in a batch, as far as the data set tells them."""
    for key in ('gt_path', 'lq_path', 'key'):
        if key in batch:
            return [str(name) for name in batch[key]]
    return []

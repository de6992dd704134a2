"""The training data as one endless stream in which a sample depends only on the seed and its position.

BasicSR seeds its workers the same way in every epoch, and every crop changes with their number and with a restart.
Here position p of the stream has the same image with the same crop, flip, rotation and noise in every worker and
process, and iteration k reads the same positions whether or not training was interrupted before it.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler, default_collate

from earn_plugin import rng
from earn_plugin.data.pair_checks import explain_failure
from earn_plugin.errors import UserError

_ORDER, _SAMPLE = 0, 1  # so that the seeds of the epochs' orders differ from those of the samples


class Readable(Dataset):
    """A BasicSR data set whose failures name the file; otherwise it behaves like the data set."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not set yet, during unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            raise UserError(explain_failure(self.dataset, index, error)) from error


class Share(Readable):
    """What one of several processes reads of a data set: every ``world_size``-th sample, from ``rank`` on."""

    def __init__(self, dataset: Dataset, rank: int, world_size: int):
        super().__init__(dataset)
        self.indices = range(rank, len(dataset), world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Any:
        return super().__getitem__(self.indices[position])


class Stream(Readable):
    """The stream of a BasicSR data set: ``stream[position]`` for any position from 0 on.

    Args:
        dataset: any BasicSR data set.
        seed: of the epochs' orders and of every sample.
        enlarge_ratio: BasicSR's ``dataset_enlarge_ratio``: how often each image is in an epoch.
    """

    def __init__(self, dataset: Dataset, seed: int, enlarge_ratio: float = 1):
        super().__init__(dataset)
        self.seed = seed
        self.epoch_length = math.ceil(len(dataset) * enlarge_ratio)
        self._order = (-1, [])

    def order(self, epoch: int) -> list[int]:
        """The shuffled image indices of an epoch."""
        if self._order[0] != epoch:
            with rng.seeded(self.seed, _ORDER, epoch):
                permutation = torch.randperm(self.epoch_length)
            self._order = epoch, (permutation % len(self.dataset)).tolist()
        return self._order[1]

    def __getitem__(self, position: int) -> Any:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: list[int]) -> list:
        """A batch, as torch's loader requests it. The generators are restored once, at the end."""
        with rng.preserved():
            return [self._read(position) for position in positions]

    def _read(self, position: int) -> Any:
        epoch, offset = divmod(position, self.epoch_length)
        index = self.order(epoch)[offset]
        rng.seed(self.seed, _SAMPLE, position)
        try:
            return super().__getitem__(index)
        except UserError as error:
            return error  # to be raised in the main process, without a worker's traceback


class Positions(Sampler):
    """The positions that one process reads, batch by batch; all processes together read every position once.

    ``start`` is the first position; each process reads ``count`` batches of ``batch_size``.
    """

    def __init__(self, start: int, count: int, batch_size: int, rank: int = 0, world_size: int = 1):
        self.start, self.count, self.batch_size = start, count, batch_size
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.count * self.batch_size

    def __iter__(self) -> Iterator[int]:
        for batch in range(self.count):
            first = self.start + (batch * self.world_size + self.rank) * self.batch_size
            yield from range(first, first + self.batch_size)


def collate(samples: list) -> dict:
    """torch's default batch; {'failure': error} if a sample could not be read."""
    failures = [sample for sample in samples if isinstance(sample, UserError)]
    return {'failure': failures[0]} if failures else default_collate(samples)


def image_names(batch: dict) -> list[str]:
    """The files or keys of the images in a batch, if the data set gives them."""
    for key in ('gt_path', 'lq_path', 'key'):
        if key in batch:
            return [str(name) for name in batch[key]]
    return []

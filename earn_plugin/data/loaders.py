"""BasicSR's data loaders: over our stream for training, and with explained failures for validation."""

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from multiprocessing.sharedctypes import RawValue
from typing import Any

import cv2
import torch
from basicsr.data import build_dataloader
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import DataLoader

from earn_plugin import signals
from earn_plugin.data.bicubic_pair_dataset import BicubicPairDataset
from earn_plugin.data.pair_checks import check_dataset, check_pairing
from earn_plugin.data.stream import Positions, Readable, Stream, collate
from earn_plugin.errors import UsageError, UserError, reason_of

SMALLEST_EPOCH = 1000  # samples, with dataset_enlarge_ratio: auto; a constant, so that batches hardly ever change it


def build_checked(dataset_opt: dict[str, Any]) -> tuple[Any, list[str]]:
    """A BasicSR data set whose images pair, have the right sizes and valid headers; and warnings.

    Raises:
        UserError: lists what is wrong.
    """
    try:
        check_pairing(dataset_opt)
        dataset = DATASET_REGISTRY.get(dataset_opt['type'])(deepcopy(dataset_opt))
    except (AssertionError, ValueError, KeyError, OSError) as error:
        needs = 'needs the option ' if isinstance(error, KeyError) else ''
        raise UserError(f'data set {dataset_opt["name"]}: {needs}{error}') from error
    found = dataset.warnings if isinstance(dataset, BicubicPairDataset) else []
    return dataset, [*found, *check_dataset(dataset_opt, dataset)]


def validation_loader(dataset: Any, dataset_opt: dict[str, Any], opt: dict[str, Any]) -> DataLoader:
    """Batches of one image each, in order."""
    settings = {**dataset_opt, 'persistent_workers': False}  # validation has no workers
    readable = dataset if isinstance(dataset, Readable) else Readable(dataset)
    return build_dataloader(readable, settings, num_gpu=opt['num_gpu'], dist=opt['dist'], seed=opt['manual_seed'])


class TrainingData:
    """The training batches, from any iteration on.

    Args:
        dataset: any BasicSR data set.
        opt: the completed options.
        accum_iter: how many batches of each process are one batch here, because an iteration reads them all.

    Raises:
        UsageError: an epoch has fewer samples than a batch.
    """

    def __init__(self, dataset: Any, opt: dict[str, Any], accum_iter: int = 1):
        self.opt = opt
        self.options = dict(opt['datasets']['train'])
        self.options['batch_size_per_gpu'] *= accum_iter
        # as in BasicSR: with DataParallel one loader feeds all GPUs
        self.batch_size = self.options['batch_size_per_gpu'] * (1 if opt['dist'] else max(1, opt['num_gpu']))
        self.samples_per_iteration = self.batch_size * opt['world_size']
        ratio = self.options.get('dataset_enlarge_ratio', 1)
        if ratio == 'auto':
            ratio = -(-max(SMALLEST_EPOCH, self.samples_per_iteration) // len(dataset))
        self.stream = Stream(dataset, opt['manual_seed'], ratio)
        if self.samples_per_iteration > self.stream.epoch_length:
            ratio = -(-self.samples_per_iteration // len(dataset))
            raise UsageError(
                f'a batch of {self.samples_per_iteration} is larger than an epoch of data set {self.options["name"]}: '
                f'{self.stream.epoch_length} samples ({len(dataset)} images); use a smaller batch_size_per_gpu or '
                f'dataset_enlarge_ratio: {ratio}'
            )

    def epoch(self, position: int) -> int:
        return position // self.stream.epoch_length

    def batches(self, position: int, count: int) -> Iterator[dict]:
        """``count`` batches from a position of the stream on. Close the iterator: that ends its workers.

        Raises:
            UserError: names an image that cannot be read, or a worker that ended.
        """
        sampler = Positions(position, count, self.batch_size, self.opt['rank'], self.opt['world_size'])
        on_cuda = self.options.get('prefetch_mode', 'cuda') == 'cuda' and self.opt['num_gpu'] > 0
        # the workers prefetch; BasicSR's thread for prefetch_mode: cpu waits for ever for a worker that was killed
        settings = {'pin_memory': on_cuda, **self.options, 'prefetch_mode': 'cuda' if on_cuda else None}
        settings['persistent_workers'] = False  # there is only one pass
        loader = build_dataloader(
            self.stream, settings, self.opt['num_gpu'], self.opt['dist'], sampler, self.opt['manual_seed']
        )
        ending = RawValue('b', 0)
        loader.collate_fn = collate
        loader.worker_init_fn = partial(start_worker, ending)
        loader.generator = torch.Generator()  # else the workers' seeds are drawn from the training's generator
        with signals.blocked():
            prefetcher = CUDAPrefetcher(loader, self.opt) if on_cuda else CPUPrefetcher(loader)
        signals.leave_children_to_loaders()
        try:
            while (batch := prefetcher.next()) is not None:
                if 'failure' in batch:
                    raise batch['failure']
                if on_cuda:
                    keep_until_read(batch)
                yield batch
        except (RuntimeError, ConnectionError, EOFError) as error:  # by when the worker has ended
            if isinstance(error, RuntimeError) and 'DataLoader worker' not in str(error):
                raise
            raise UserError(
                f'a process that reads the images has ended ({reason_of(error)}). Perhaps memory ran out: use a '
                'smaller num_worker_per_gpu; resume with --auto_resume'
            ) from error
        finally:
            ending.value = 1
            del prefetcher  # ends the workers


def keep_until_read(batch: dict) -> None:
    """BasicSR's prefetcher copies on its own CUDA stream, which would reuse a batch's memory before it is read."""
    for value in batch.values():
        if isinstance(value, torch.Tensor) and value.is_cuda:
            value.record_stream(torch.cuda.current_stream())


def start_worker(ending, worker_id: int) -> None:
    signals.leave_to_main_process(ending)
    cv2.setNumThreads(0)  # the workers are the parallelism

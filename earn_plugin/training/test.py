"""Tests a network on data sets: writes its images, a table of the metrics of each image, and the same as JSON.

Several processes share the images of each data set. A thread measures and writes an image while the network computes
the next.
"""

import itertools
import json
import time
from collections.abc import Container, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.models.video_base_model import VideoBaseModel
from basicsr.utils import get_root_logger, make_exp_dirs, tensor2img
from basicsr.utils.registry import MODEL_REGISTRY
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from earn_plugin.atomic_files import write_file
from earn_plugin.convert.networks import FoundNetwork, fuse_network
from earn_plugin.data.bicubic import BORDERS
from earn_plugin.data.loaders import build_checked, validation_loader
from earn_plugin.data.stream import Share
from earn_plugin.devices import cuda_is_optional
from earn_plugin.errors import UsageError, UserError
from earn_plugin.inference.layout import faster_layout
from earn_plugin.inference.self_ensemble import SelfEnsemble
from earn_plugin.metrics.bicubic_baseline import applicable, mean_metrics, metrics_of, metrics_of_bicubic
from earn_plugin.metrics.fast_metrics import fast_metrics
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import Options
from earn_plugin.prepare.demo import make_missing_demo
from earn_plugin.training import distributed, run_logs
from earn_plugin.training.model import build_checked_model
from earn_plugin.training.record import describe_paths, describe_protocol, describe_test, lr_borders
from earn_plugin.training.run_lock import run_lock
from earn_plugin.training.validation import explain, image_paths

FORMS = {'fused': 'fused', 'self_ensemble': 'self-ensemble'}  # options under val, and as the table shows them
LEAST_SHARE = 0.8  # of the wall time that a test must have a processor, for its speed to be recorded


def test(
    options: Options, launcher: str = 'none', debug: bool = False, fused: bool = False, self_ensemble: bool = False
) -> None:
    """Test from an options file; writes to results/NAME under the working directory.

    Args:
        fused, self_ensemble: as ``val: fused: true`` and ``val: self_ensemble: true`` of the options.

    Raises:
        UserError: lists all problems of the options, or what is wrong with the images or the network file.
    """
    rank, world_size = distributed.start(launcher, options.data.get('dist_params'))
    try:
        warnings = check_options(options, is_train=False)
        if world_size > 1 and not has_single_images(MODEL_REGISTRY.get(options.data['model_type'])):
            warnings.append(f'{options.data["model_type"]} tests in one process, not in {world_size}')
            distributed.stop()
            if rank > 0:
                return
            world_size = 1
        distributed.rank0_first(lambda: make_missing_demo(options.data))
        opt = fill_defaults(options, is_train=False, debug=debug, rank=rank, world_size=world_size)
        opt['dist'] = False  # without gradients there is nothing to exchange but results
        if world_size > 1:
            opt['num_gpu'] = min(opt['num_gpu'], 1)
        opt['val'] |= {key: True for key, given in (('fused', fused), ('self_ensemble', self_ensemble)) if given}
        with cuda_is_optional(), fast_metrics(), ExitStack() as locks:
            distributed.rank0_first(lambda: locks.enter_context(run_lock(Path(opt['path']['results_root']))))
            evaluate(opt, warnings)
    finally:
        distributed.stop()


def has_single_images(model_class: type[BaseModel]) -> bool:
    """Whether a model can be tested here, image by image; models of videos and others test themselves."""
    return issubclass(model_class, SRModel) and not issubclass(model_class, VideoBaseModel)


def evaluate(opt: dict[str, Any], warnings: list[str]) -> None:
    opt['manual_seed'] = opt['manual_seed'] or 0
    loaders = []
    for phase, dataset_opt in sorted(opt['datasets'].items()):
        if dataset_opt['phase'] == 'train':
            warnings.append(f'datasets.{phase} is for training and is not used')
            continue
        dataset, found = build_checked(dataset_opt)
        warnings += found
        loaders.append(validation_loader(Share(dataset, opt['rank'], opt['world_size']), dataset_opt, opt))
    if not any(key.startswith('pretrain_network') and value for key, value in opt['path'].items()):
        warnings.append('path: pretrain_network_g is not set, so the network has random weights')
    run_logs.start_log(opt)
    model = build_checked_model(opt)
    change_network(model, opt)
    distributed.rank0_first(lambda: make_exp_dirs(opt))
    run_logs.open_log(opt, 'test', warnings)

    forms = {form: bool(opt['val'].get(form)) for form in FORMS}
    title = ''.join(f', {FORMS[form]}' for form, is_used in forms.items() if is_used)
    report = {'name': opt['name'], **describe_test(model, opt), **forms, 'path': describe_paths(opt['path'])}
    report['datasets'] = {}
    unwritten: list[UserError] = []
    for loader in loaders:
        name, tested, failure = loader.dataset.opt['name'], {}, None
        try:
            if has_single_images(type(model)):
                names = result_names(loader.dataset.dataset)
                tested = test_images(model, loader, names, opt, unwritten)
            else:
                model.validation(loader, opt['name'], None, opt['val']['save_img'])
        except (Exception, SystemExit) as error:  # networks, metrics and data sets may raise anything
            failure = f'the test on {name} failed: {explain(error)}'
            if opt['val'].get('on_error') != 'skip':
                raise UserError(f'{failure}; to continue with other data sets set val: on_error: skip') from error
        shares, failures = zip(*distributed.all_gather((tested, failure)), strict=True)
        if failure := next(filter(None, failures), None):
            if opt['rank'] == 0:
                get_root_logger().error(failure)
        elif tested := {index: image for share in shares for index, image in share.items()}:
            results = report['datasets'][name] = collect(names, [tested[index] for index in sorted(tested)], opt)
            if opt['rank'] == 0:
                print(results_table(f'{name}{title}', results))
    unwritten = [error for share in distributed.all_gather(unwritten) for error in share]
    if opt['rank'] > 0:
        return
    path = Path(opt['path']['results_root'], 'results.json')
    write_file(path, json.dumps(report, indent=2, default=str).encode())
    if unwritten:
        raise UserError(f'{unwritten[0]}; {len(unwritten)} images are missing, {path} is complete')
    print(f'images and results.json are in {path.parent}')


def change_network(model: BaseModel, opt: dict[str, Any]) -> None:
    """Put the model's network into its faster layout; into its fused form or a self-ensemble, where the options ask.

    Raises:
        UserError: it has no fused form, or the model does not compute single images with ``net_g``.
    """
    if isinstance(getattr(model, 'net_g', None), nn.Module):
        faster_layout(model.get_bare_model(model.net_g))
    forms = [form for form in FORMS if opt['val'].get(form)]
    if not forms:
        return
    if not has_single_images(type(model)) or not isinstance(getattr(model, 'net_g', None), nn.Module):
        raise UsageError(
            f'val: {forms[0]} is for models of single images, derived from SRModel; not {opt["model_type"]}'
        )
    network = model.get_bare_model(model.net_g)
    if 'fused' in forms:
        network = fuse_network(FoundNetwork(network, opt['network_g']['type'], opt['network_g'])).network
    if 'self_ensemble' in forms:
        network = SelfEnsemble(network)
    model.net_g = model.model_to_device(network)


class Duration(NamedTuple):
    """Of a computation, in seconds: wall time, and the time that its thread has had a processor."""

    wall: float
    processor: float


class TestedImage(NamedTuple):
    """Its metrics, and the wall time of the network; if it has a target, bicubic's metrics, and how it was made."""

    metrics: dict[str, float]
    duration: Duration
    bicubic: dict[str, float] | None = None
    hr_size: tuple[int, int] | None = None
    lr_borders: tuple[str, ...] = ()


def test_images(
    model: BaseModel, loader: DataLoader, names: list[str], opt: dict[str, Any], unwritten: list[UserError]
) -> dict[int, TestedImage]:
    """Save the images of this process; returns their results by their indices in the data set.

    Images that cannot be written are added to ``unwritten``.
    """
    dataset = loader.dataset.opt['name']
    wanted, scale = opt['val'].get('metrics') or {}, opt.get('scale', 1)
    borders = BORDERS  # with which all LR images so far can have been made

    def finish(
        img_name: str, batch: dict[str, Any], visuals: dict[str, torch.Tensor], duration: Duration
    ) -> TestedImage:
        nonlocal borders
        image = tensor2img(visuals['result'])
        if opt['val']['save_img']:
            file = f'{img_name}_{opt["val"]["suffix"] or opt["name"]}.png'
            try:
                write_file(Path(opt['path']['visualization'], dataset, file), cv2.imencode('.png', image)[1].tobytes())
            except UserError as error:
                unwritten.append(error)
        target = tensor2img(visuals['gt']) if 'gt' in batch else None
        metrics = applicable(wanted, target is not None)
        tested = TestedImage(metrics_of(image, target, metrics), duration)
        if not metrics or target is None or batch['lq'].dim() != 4:
            return tested
        borders = lr_borders(tensor2img(batch['lq'][0]), target, scale, borders)
        bicubic = metrics_of_bicubic(batch['lq'][0], target, metrics, scale)
        return tested._replace(bicubic=bicubic, hr_size=target.shape[:2], lr_borders=borders)

    tested: dict[int, Future[TestedImage]] = {}
    last = None
    bar = tqdm(loader, desc=dataset, unit='image', disable=None if opt['rank'] == 0 else True)
    with ThreadPoolExecutor(1) as thread:
        for index, batch in zip(loader.dataset.indices, bar, strict=True):
            img_name = names[index]
            model.feed_data(batch)
            if last is not None and model.device.type == 'cpu':
                last.result()  # its metrics would take a processor from the network, whose time is measured
            duration = time_test(model, warm_up=not tested)
            visuals = model.get_current_visuals()
            del model.lq, model.output  # before the next image allocates its own
            if last is not None:
                last.result()  # no more than one image waits, and the first failure ends the test
            last = tested[index] = thread.submit(finish, img_name, batch, visuals, duration)
        return {index: image.result() for index, image in tested.items()}


def time_test(model: BaseModel, warm_up: bool) -> Duration:
    """The duration of ``model.test()``; on a GPU, the first image is computed twice to warm up."""
    on_gpu = model.device.type == 'cuda'
    if on_gpu and warm_up:
        model.test()
    if on_gpu:
        torch.cuda.synchronize(model.device)
    wall, processor = time.perf_counter(), time.thread_time()
    model.test()
    if on_gpu:
        torch.cuda.synchronize(model.device)
    duration = Duration(time.perf_counter() - wall, time.thread_time() - processor)
    return duration._replace(processor=duration.wall) if on_gpu else duration


def mean_seconds(durations: Sequence[Duration]) -> float | None:
    """The mean wall time; None if other programs have had the processors for too long: it would not show the speed."""
    wall, processor = (sum(times) for times in zip(*durations, strict=True))
    return round(wall / len(durations), 6) if processor >= LEAST_SHARE * wall else None


def collect(names: list[str], tested: list[TestedImage], opt: dict[str, Any]) -> dict[str, Any]:
    """The results of a data set as results.json has them: of each image, their means, and how they were measured."""
    metrics, durations, bicubic, sizes, borders = zip(*tested, strict=True)
    results: dict[str, Any] = {'seconds_per_image': mean_seconds(durations)}
    if None not in sizes:
        wanted = {name: opt['val']['metrics'][name] for name in metrics[0]}
        results['protocol'] = describe_protocol(sizes, borders, wanted, opt.get('scale', 1))
    results['images'] = dict(zip(names, metrics, strict=True))
    if metrics[0]:
        results['mean'] = mean_metrics(metrics)
        if None not in bicubic:
            results['bicubic'] = {'images': dict(zip(names, bicubic, strict=True)), 'mean': mean_metrics(bicubic)}
    return results


def result_names(dataset: Any) -> list[str]:
    """A distinct name for each image of a data set, from the paths of the LR images."""
    names: dict[str, None] = {}
    for path in image_paths(dataset):
        names[unique_name(path, names)] = None
    return list(names)


def unique_name(path: Path, taken: Container[str]) -> str:
    """The stem, or as much of the path as no other image has: of a.png next to a.bmp, or of x/a.png and y/a.png."""
    longer = ('_'.join(path.parts[-count:]) for count in range(1, len(path.parts) + 1))
    numbered = (f'{path.stem}_{number}' for number in itertools.count(2))
    return next(name for name in itertools.chain([path.stem], longer, numbered) if name not in taken)


def results_table(dataset: str, results: dict[str, Any]) -> str:
    """A line for each image and one for the mean: each metric, followed by bicubic's."""
    if 'mean' not in results:
        return f'{dataset}: {len(results["images"])} images, no metrics'
    names = list(results['mean'])
    width = max(len(dataset), *map(len, results['images']))
    header = ''.join(f'{name:>10}{"bicubic":>10}' for name in names)
    lines = [f'{dataset:<{width}}{header}']
    rows = {**results['images'], 'mean': results['mean']}
    bicubic = {**results['bicubic']['images'], 'mean': results['bicubic']['mean']} if 'bicubic' in results else {}

    def cells(row: str, name: str) -> str:
        compared = f'{bicubic[row][name]:.4f}' if bicubic else '–'  # without targets
        return f'{rows[row][name]:>10.4f}{compared:>10}'

    return '\n'.join([*lines, *(f'{row:<{width}}' + ''.join(cells(row, name) for name in names) for row in rows)])

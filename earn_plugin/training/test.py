"""Tests a network on data sets: writes its images, a table of the metrics of each image, and the same as JSON."""

import itertools
import json
from collections.abc import Container
from pathlib import Path
from typing import Any

import cv2
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.models.video_base_model import VideoBaseModel
from basicsr.utils import get_root_logger, make_exp_dirs, tensor2img
from torch.utils.data import DataLoader
from tqdm import tqdm

from earn_plugin.atomic_files import write_file
from earn_plugin.data.loaders import build_checked, validation_loader
from earn_plugin.devices import cuda_is_optional
from earn_plugin.errors import UserError
from earn_plugin.metrics.bicubic_baseline import applicable, bicubic_metrics, mean_metrics, metrics_of
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import Options
from earn_plugin.prepare.demo import make_missing_demo
from earn_plugin.training import distributed, run_logs
from earn_plugin.training.model import build_checked_model
from earn_plugin.training.run_lock import run_lock
from earn_plugin.training.validation import explain


def test(options: Options, launcher: str = 'none', debug: bool = False) -> None:
    """Test from an options file; writes to results/NAME under the working directory.

    Raises:
        UserError: lists all problems of the options, or what is wrong with the images or the network file.
    """
    rank, _ = distributed.start(launcher, options.data.get('dist_params'))
    distributed.stop()
    if rank == 0:  # one process, one image at a time
        warnings = check_options(options, is_train=False)
        make_missing_demo(options.data)
        opt = fill_defaults(options, is_train=False, debug=debug)
        with cuda_is_optional(), run_lock(Path(opt['path']['results_root'])):
            evaluate(opt, warnings)


def evaluate(opt: dict[str, Any], warnings: list[str]) -> None:
    opt['manual_seed'] = opt['manual_seed'] or 0
    loaders = []
    for phase, dataset_opt in sorted(opt['datasets'].items()):
        if dataset_opt['phase'] == 'train':
            warnings.append(f'datasets.{phase} is for training and is not used')
            continue
        dataset, found = build_checked(dataset_opt)
        warnings += found
        loaders.append(validation_loader(dataset, dataset_opt, opt))
    if not any(key.startswith('pretrain_network') and value for key, value in opt['path'].items()):
        warnings.append('path: pretrain_network_g is not set, so the network has random weights')
    run_logs.start_log(opt)
    model = build_checked_model(opt)
    make_exp_dirs(opt)
    run_logs.open_log(opt, 'test', warnings)

    report = {'name': opt['name'], 'network_g': opt.get('network_g'), 'path': opt['path'], 'datasets': {}}
    unwritten: list[UserError] = []
    for loader in loaders:
        name = loader.dataset.opt['name']
        try:
            if isinstance(model, SRModel) and not isinstance(model, VideoBaseModel):
                results = report['datasets'][name] = test_images(model, loader, opt, unwritten)
                print(results_table(name, results))
            else:  # models of videos and others test themselves
                model.validation(loader, opt['name'], None, opt['val']['save_img'])
        except (Exception, SystemExit) as error:  # networks, metrics and data sets may raise anything
            failure = f'the test on {name} failed: {explain(error)}'
            if opt['val'].get('on_error') != 'skip':
                raise UserError(f'{failure}; to continue with other data sets set val: on_error: skip') from error
            get_root_logger().error(failure)
    path = Path(opt['path']['results_root'], 'results.json')
    write_file(path, json.dumps(report, indent=2, default=str).encode())
    if unwritten:
        raise UserError(f'{unwritten[0]}; {len(unwritten)} images are missing, {path} is complete')
    print(f'images and results.json are in {path.parent}')


def test_images(
    model: BaseModel, loader: DataLoader, opt: dict[str, Any], unwritten: list[UserError]
) -> dict[str, Any]:
    """Save the images; returns the network's metrics of each and their means, and bicubic's if there are targets.

    Images that cannot be written are added to ``unwritten``.
    """
    wanted = opt['val'].get('metrics') or {}
    dataset = loader.dataset.opt['name']
    images: dict[str, dict[str, float]] = {}
    for batch in tqdm(loader, desc=dataset, unit='image', disable=None):
        img_name = unique_name(Path(batch['lq_path'][0]), images)
        model.feed_data(batch)
        model.test()
        visuals = model.get_current_visuals()
        image = tensor2img(visuals['result'])
        if opt['val']['save_img']:
            file = f'{img_name}_{opt["val"]["suffix"] or opt["name"]}.png'
            try:
                write_file(Path(opt['path']['visualization'], dataset, file), cv2.imencode('.png', image)[1].tobytes())
            except UserError as error:
                unwritten.append(error)
        target = tensor2img(visuals['gt']) if 'gt' in batch else None
        metrics = applicable(wanted, target is not None)
        images[img_name] = metrics_of(image, target, metrics)
        del model.lq, model.output  # before the next image allocates its own
        torch.cuda.empty_cache()
    results: dict[str, Any] = {'images': images}
    if metrics:
        results['mean'] = mean_metrics(list(images.values()))
        if bicubic := bicubic_metrics(loader.dataset, metrics, opt.get('scale', 1)):
            results['bicubic'] = {'images': dict(zip(images, bicubic, strict=True)), 'mean': mean_metrics(bicubic)}
    return results


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

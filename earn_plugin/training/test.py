"""Testing a network on data sets: images, a table of metrics by image, and the same as JSON."""

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.models.video_base_model import VideoBaseModel
from basicsr.utils import get_root_logger, get_time_str, make_exp_dirs, tensor2img
from basicsr.utils.options import dict2str
from torch.utils.data import DataLoader
from tqdm import tqdm

from earn_plugin.atomic_files import atomic_file
from earn_plugin.data.loaders import build_checked, validation_loader
from earn_plugin.metrics.bicubic_baseline import bicubic_metrics, mean, measure
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import Options
from earn_plugin.prepare.demo import make_missing_demo
from earn_plugin.training import distributed
from earn_plugin.training.model import build_checked_model


def test(options: Options, launcher: str = 'none', debug: bool = False) -> None:
    """Test as an options file says; everything goes to results/NAME under the working directory.

    Raises:
        UserError: what is wrong with the options, the images or the network file.
    """
    rank, _ = distributed.start(launcher, options.data.get('dist_params'))
    distributed.stop()
    if rank == 0:  # the images go through one by one, in one process
        make_missing_demo(options.data)
        notes = check_options(options, is_train=False)
        run(fill_defaults(options, is_train=False, debug=debug), notes)


def run(opt: dict[str, Any], notes: list[str]) -> None:
    opt['manual_seed'] = opt['manual_seed'] or 0
    loaders = []
    for phase, dataset_opt in sorted(opt['datasets'].items()):
        if dataset_opt['phase'] == 'train':
            notes.append(f'datasets.{phase} is for training and left out')
            continue
        dataset, oddities = build_checked(dataset_opt)
        notes += oddities
        loaders.append(validation_loader(dataset, dataset_opt, opt))
    if not any(key.startswith('pretrain_network') and value for key, value in opt['path'].items()):
        notes.append('path: pretrain_network_g is not set, so this tests a network with random weights')
    get_root_logger()
    model = build_checked_model(opt)
    make_exp_dirs(opt)
    logger = open_log(opt)
    for note in notes:
        logger.warning(note)

    report = {'name': opt['name'], 'network_g': opt.get('network_g'), 'path': opt['path'], 'datasets': {}}
    for loader in loaders:
        name = loader.dataset.opt['name']
        if isinstance(model, SRModel) and not isinstance(model, VideoBaseModel):
            results = test_images(model, loader, opt)
            report['datasets'][name] = results
            print(table(name, results))
        else:  # videos and the like know best how to test themselves
            model.validation(loader, opt['name'], None, opt['val']['save_img'])
    path = Path(opt['path']['results_root'], 'results.json')
    with atomic_file(path) as file:
        file.write(json.dumps(report, indent=2, default=str).encode())
    print(f'images and results.json are in {path.parent}')


def open_log(opt: dict[str, Any]) -> logging.Logger:
    logger = get_root_logger()
    path = Path(opt['path']['log'], f'test_{opt["name"]}_{get_time_str()}.log')
    handler = logging.FileHandler(path, 'w', encoding='utf-8')
    handler.setFormatter(logger.handlers[0].formatter)
    handler.stream.write(f'options:{dict2str(opt)}\n')
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return logger


def test_images(model: BaseModel, loader: DataLoader, opt: dict[str, Any]) -> dict[str, Any]:
    """Metrics by image and their means, ours and bicubic's; without targets no metrics, only images."""
    metrics = opt['val'].get('metrics') or {}
    dataset = loader.dataset.opt['name']
    images: dict[str, dict[str, float]] = {}
    for batch in tqdm(loader, desc=dataset, unit='image', disable=None):
        path = Path(batch['lq_path'][0])
        name = path.name if path.stem in images else path.stem  # a.png beside a.bmp
        model.feed_data(batch)
        model.test()
        visuals = model.get_current_visuals()
        image = tensor2img(visuals['result'])
        if opt['val']['save_img']:
            suffix = opt['val']['suffix'] or opt['name']
            with atomic_file(Path(opt['path']['visualization'], dataset, f'{name}_{suffix}.png')) as file:
                file.write(cv2.imencode('.png', image)[1].tobytes())
        images[name] = measure(image, tensor2img(visuals['gt']), metrics) if 'gt' in batch else {}
        del model.lq, model.output  # before the next image makes its own
        torch.cuda.empty_cache()
    results: dict[str, Any] = {'images': images}
    if metrics and all(images.values()):
        results['mean'] = mean(list(images.values()))
        bicubic = bicubic_metrics(loader.dataset, metrics, opt['scale'])
        results['bicubic'] = {'images': dict(zip(images, bicubic, strict=True)), 'mean': mean(bicubic)}
    return results


def table(dataset: str, results: dict[str, Any]) -> str:
    """The results of a data set: a line for each image and their mean, bicubic's beside."""
    if 'mean' not in results:
        return f'{dataset}: {len(results["images"])} images, no metrics'
    names = list(results['mean'])
    width = max(len(dataset), *map(len, results['images']))
    header = ''.join(f'{name:>10}{"bicubic":>10}' for name in names)
    lines = [f'{dataset:<{width}}{header}']
    rows = {**results['images'], 'mean': results['mean']}
    beside = {**results['bicubic']['images'], 'mean': results['bicubic']['mean']}
    for row, values in rows.items():
        lines.append(f'{row:<{width}}' + ''.join(f'{values[n]:>10.4f}{beside[row][n]:>10.4f}' for n in names))
    return '\n'.join(lines)

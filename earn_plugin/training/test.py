"""Tests a network on data sets: writes its images, a table of the metrics of each image, and the same as JSON."""

import json
from pathlib import Path
from typing import Any

import cv2
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.models.video_base_model import VideoBaseModel
from basicsr.utils import make_exp_dirs, tensor2img
from torch.utils.data import DataLoader
from tqdm import tqdm

from earn_plugin.atomic_files import atomic_file
from earn_plugin.data.loaders import build_checked, validation_loader
from earn_plugin.metrics.bicubic_baseline import bicubic_metrics, mean_metrics, metrics_of
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import Options
from earn_plugin.prepare.demo import make_missing_demo
from earn_plugin.training import distributed, run_logs
from earn_plugin.training.model import build_checked_model


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
        evaluate(fill_defaults(options, is_train=False, debug=debug), warnings)


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
    for loader in loaders:
        name = loader.dataset.opt['name']
        if isinstance(model, SRModel) and not isinstance(model, VideoBaseModel):
            results = test_images(model, loader, opt)
            report['datasets'][name] = results
            print(results_table(name, results))
        else:  # models of videos and others test themselves
            model.validation(loader, opt['name'], None, opt['val']['save_img'])
    path = Path(opt['path']['results_root'], 'results.json')
    with atomic_file(path) as file:
        file.write(json.dumps(report, indent=2, default=str).encode())
    print(f'images and results.json are in {path.parent}')


def test_images(model: BaseModel, loader: DataLoader, opt: dict[str, Any]) -> dict[str, Any]:
    """Save the images; returns the network's and bicubic's metrics of each and their means, if there are targets."""
    metrics = opt['val'].get('metrics') or {}
    dataset = loader.dataset.opt['name']
    images: dict[str, dict[str, float]] = {}
    for batch in tqdm(loader, desc=dataset, unit='image', disable=None):
        path = Path(batch['lq_path'][0])
        name = path.name if path.stem in images else path.stem  # a.png next to a.bmp
        model.feed_data(batch)
        model.test()
        visuals = model.get_current_visuals()
        image = tensor2img(visuals['result'])
        if opt['val']['save_img']:
            suffix = opt['val']['suffix'] or opt['name']
            with atomic_file(Path(opt['path']['visualization'], dataset, f'{name}_{suffix}.png')) as file:
                file.write(cv2.imencode('.png', image)[1].tobytes())
        images[name] = metrics_of(image, tensor2img(visuals['gt']), metrics) if 'gt' in batch else {}
        del model.lq, model.output  # before the next image allocates its own
        torch.cuda.empty_cache()
    results: dict[str, Any] = {'images': images}
    if metrics and all(images.values()):
        results['mean'] = mean_metrics(list(images.values()))
        bicubic = bicubic_metrics(loader.dataset, metrics, opt.get('scale', 1))
        results['bicubic'] = {'images': dict(zip(images, bicubic, strict=True)), 'mean': mean_metrics(bicubic)}
    return results


def results_table(dataset: str, results: dict[str, Any]) -> str:
    """A line for each image and one for the mean: each metric, followed by bicubic's."""
    if 'mean' not in results:
        return f'{dataset}: {len(results["images"])} images, no metrics'
    names = list(results['mean'])
    width = max(len(dataset), *map(len, results['images']))
    header = ''.join(f'{name:>10}{"bicubic":>10}' for name in names)
    lines = [f'{dataset:<{width}}{header}']
    rows = {**results['images'], 'mean': results['mean']}
    bicubic = {**results['bicubic']['images'], 'mean': results['bicubic']['mean']}
    for row, values in rows.items():
        lines.append(f'{row:<{width}}' + ''.join(f'{values[n]:>10.4f}{bicubic[row][n]:>10.4f}' for n in names))
    return '\n'.join(lines)

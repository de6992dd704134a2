"""Scripts like the organisers' of each year, as far as a submission depends on them, and data for them."""

from pathlib import Path

import cv2

from tests.helpers.images import photograph

# each of our networks, small
OURS = {
    'EARN': {'num_feat': 16, 'num_block': 1},
    'RNAN': {'num_feat': 8, 'num_block': 2},
    'LGVAN': {'num_feat': 8, 'num_block': 1},
    'A2N': {'num_feat': 8, 'num_block': 1},
    'HAN': {'num_feat': 16, 'num_group': 2, 'num_block': 1},
    'RK4RDN': {'num_feat': 8, 'num_grow_ch': 4, 'num_block': 1, 'num_layer': 2, 'order': 2},
    'DualAttentionRCAN': {'num_feat': 16, 'num_group': 1, 'num_block': 1},
}
FOLDERS = {2022: 'DIV2K_valid', 2023: 'DIV2K_valid', 2024: 'DIV2K_LSDIR_valid'}
BASELINES = {2022: ('RFDN', 255.0), 2023: ('RFDN', 255.0), 2024: ('RLFN', 255.0), 2025: ('EFDN', 1.0)}

EFFICIENT = """
import argparse
import glob
import json
import os
import time

import cv2
import numpy as np
import torch


def select_model(args, device):
    # a number for each submission, in the order in which they came
    model_id = args.model_id
    if model_id == 0:
        from models.team00_{baseline} import {baseline}
        name, data_range = f"{{model_id:02}}_{baseline}_baseline", {data_range}
        model_path = os.path.join('model_zoo', 'team00_{lower}.pth')
        model = {baseline}()
        model.load_state_dict(torch.load(model_path), strict=True)
    elif model_id == 1000:
        pass
    # elif model_id == 1:
    #     ...
    else:
        raise NotImplementedError(f"Model {{model_id}} is not implemented.")

    model.eval()
    tile = None
    for k, v in model.named_parameters():
        v.requires_grad = False
    return model.to(device), name, data_range, tile


def main(args):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results = json.load(open("results.json")) if os.path.exists("results.json") else {{}}
    model, name, data_range, tile = select_model(args, device)
    psnrs, times = [], []
    os.makedirs(os.path.join(args.save_dir, name), exist_ok=True)
    for path in sorted(glob.glob(os.path.join(args.data_dir, "{folder}_HR/*.png"))):
        lr = path.replace("_HR", "_LR").replace(".png", "x4.png")
        image = cv2.imread(lr)[..., ::-1].transpose(2, 0, 1)
        x = torch.from_numpy(np.ascontiguousarray(image)).float().div(255.0 / data_range)[None].to(device)
        start = time.time()
        y = model(x)
        times.append(1000 * (time.time() - start))
        y = y[0].clamp(0, data_range).cpu().numpy().transpose(1, 2, 0)
        y = np.uint8((y * 255.0 / data_range).round())
        hr = cv2.imread(path)[: y.shape[0], : y.shape[1], ::-1]
        error = (np.float64(y) - hr)[4:-4, 4:-4]
        psnrs.append(10 * np.log10(255**2 / (error**2).mean()))
        cv2.imwrite(os.path.join(args.save_dir, name, os.path.basename(path)), y[..., ::-1])
    results[name] = {{"valid_ave_psnr": sum(psnrs) / len(psnrs), "valid_ave_runtime": sum(times) / len(times)}}
    results[name]["num_parameters"] = sum(p.numel() for p in model.parameters()) / 10**6
    json.dump(results, open("results.json", "w"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser("NTIRE{year}-EfficientSR")
    parser.add_argument("--data_dir", default="../", type=str)
    parser.add_argument("--save_dir", default="../results", type=str)
    parser.add_argument("--model_id", default=0, type=int)
    parser.add_argument("--include_test", action="store_true")
    parser.add_argument("--ssim", action="store_true")
    main(parser.parse_args())
"""

QUALITY = """
import argparse
import os

import torch


def select_model(args, device):
    model_id = args.model_id
    if model_id == 0:
        from models.team00_DAT import main as DAT
        name = f"{{model_id:02}}_DAT_baseline"
        model_path = os.path.join('model_zoo', 'team00_dat')
        model_func = DAT
    else:
        raise NotImplementedError(f"Model {{model_id}} is not implemented.")
    return model_func, model_path, name


if __name__ == "__main__":
    parser = argparse.ArgumentParser("NTIRE{year}-ImageSRx4")
    parser.add_argument("--valid_dir", default=None, type=str)
    parser.add_argument("--save_dir", default="NTIRE{year}-ImageSRx4", type=str)
    parser.add_argument("--model_id", default=0, type=int)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model_func, model_path, name = select_model(args, device)
    save_path = os.path.join(args.save_dir, name, "valid")
    os.makedirs(save_path, exist_ok=True)
    model_func(model_dir=model_path, input_path=args.valid_dir, output_path=save_path, device=device)
"""

# runs a script of several checkouts for several models, where neither package can be imported
DRIVER = """
import os
import runpy
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('basicsr', 'earn_plugin'):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
checkouts, script, models, *arguments = sys.argv[1:]
for checkout in checkouts.split(','):
    os.chdir(checkout)
    sys.path.insert(0, checkout)
    for model in models.split(','):
        sys.argv = [script, '--model_id', model, *arguments]
        runpy.run_path(script, run_name='__main__')
    for name in [name for name in sys.modules if name.partition('.')[0] == 'models']:
        del sys.modules[name]  # the next checkout has its own
    sys.path.remove(checkout)
"""


def make_repo(folder: Path, year: int, track: str = 'efficient') -> Path:
    """A checkout as the organisers publish it."""
    for name in ('models', 'model_zoo', 'utils'):
        (folder / name).mkdir(parents=True)
    (folder / 'README.md').write_text('How to test\n')
    if track == 'quality':
        (folder / 'test.py').write_text(QUALITY.format(year=year))
        return folder
    baseline, data_range = BASELINES.get(year, ('SPAN', 1.0))
    values = {'baseline': baseline, 'lower': baseline.lower(), 'data_range': data_range, 'year': year}
    (folder / 'test_demo.py').write_text(EFFICIENT.format(**values, folder=FOLDERS.get(year, FOLDERS[2024])))
    return folder


def make_data(folder: Path, year: int) -> Path:
    """Two images of a year's validation set, one of an odd size."""
    from earn_plugin.data.bicubic import imresize

    name = FOLDERS.get(year, FOLDERS[2024])
    for split in ('HR', 'LR'):
        (folder / f'{name}_{split}').mkdir(parents=True)
    for index, size in enumerate([(80, 96), (68, 60)]):
        image = photograph(*size, index)
        stem = f'{801 + index:04}'
        cv2.imwrite(str(folder / f'{name}_HR/{stem}.png'), image)
        cv2.imwrite(str(folder / f'{name}_LR/{stem}x4.png'), imresize(image, 0.25))
    return folder

"""Run an exported network as the organisers' script does, where neither BasicSR nor this package can be imported.

A script of its own: ``python -I probe.py FOLDER WORK TEAM``. FOLDER is the submission; WORK contains script.py, whose
``select_model`` has the submission's branch, inputs.pt (precision → images N×3×H×W in [0, 1]) and, for the quality
track, a folder of images. Writes into WORK: outputs.pt, times.json with the seconds of the first and of later images,
and the folder ``upscaled``.
"""

import importlib.abc
import json
import os
import runpy
import site
import sys
import time
from pathlib import Path
from types import SimpleNamespace

IMAGES = 4  # timed, including the first


class Absent(importlib.abc.MetaPathFinder):
    """Imports of the two packages fail as if they were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('basicsr', 'earn_plugin'):
            raise ModuleNotFoundError(f"No module named '{name}' on the organisers' machines", name=name)


def run(folder: str, place: str, team: str) -> None:
    sys.meta_path.insert(0, Absent())
    sys.path.insert(0, folder)
    # where packages may be that -I leaves out
    sys.path += map(os.path.abspath, filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep)))
    sys.path.append(site.getusersitepackages())
    os.chdir(folder)
    import torch

    work = Path(place)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    select_model = runpy.run_path(str(work / 'script.py'))['select_model']
    selected = select_model(SimpleNamespace(model_id=int(team)), device)
    if len(selected) == 3:  # the quality track
        model_func, model_path, _ = selected
        model_func(
            model_dir=model_path, input_path=str(work / 'images'), output_path=str(work / 'upscaled'), device=device
        )
        module = sys.modules[model_func.__module__]
        model, data_range = module.load(model_path).to(device), module.DATA_RANGE
    else:
        model, _, data_range, _ = selected
    inputs = torch.load(work / 'inputs.pt')

    def wait() -> None:
        if device.type == 'cuda':
            torch.cuda.synchronize()

    times = []
    # in the memory layout of the official script
    image = torch.rand(64, 64, 3, device=device).permute(2, 0, 1)[None] * data_range
    for _ in range(IMAGES):
        wait()
        start = time.perf_counter()
        model(image)
        wait()
        times.append(time.perf_counter() - start)

    model = model.to('cpu')
    outputs = {}
    for dtype, images in inputs.items():
        model = model.to(images[0].dtype)
        outputs[dtype] = [model(image * data_range) / data_range for image in images]
    torch.save(outputs, work / 'outputs.pt')
    (work / 'times.json').write_text(json.dumps({'device': device.type, 'seconds': times}))


if __name__ == '__main__':
    run(*sys.argv[1:])

"""Whether an exported submission computes, alone and by the organisers' rules, what our network computes."""

import ast
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import ModuleType

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from earn_plugin.convert.networks import FoundNetwork, output_of, swapped_forms
from earn_plugin.data.image_files import write_image
from earn_plugin.errors import UserError
from earn_plugin.measure.complexity import measure_complexity
from earn_plugin.ntire import probe
from earn_plugin.ntire.network_checks import SIZES
from earn_plugin.ntire.official_run import as_official_input, to_image, to_tensor
from earn_plugin.ntire.old_versions import find_newer
from earn_plugin.ntire.organisers_script import Submission, branch
from earn_plugin.ntire.single_file import is_allowed

TOLERANCE = 1e-6
FIGURES = ('params', 'hooks', 'activations', 'convs', 'exported_fvcore')
SCRIPT = """
import os
import torch

def select_model(args, device):
    model_id = args.model_id
{branch}    else:
        raise NotImplementedError(f"Model {{model_id}} is not implemented.")
"""
REST = {
    'efficient': """
    model.eval()
    tile = None
    for k, v in model.named_parameters():
        v.requires_grad = False
    model = model.to(device)
    return model, name, data_range, tile
""",
    'quality': """
    return model_func, model_path, name
""",
}


def check_submission(
    folder: Path, submission: Submission, network: nn.Module, done: Callable[[], object] = lambda: None
) -> list[str]:
    """Check the exported files in a folder against the network that they come from.

    Args:
        network: on the CPU, in evaluation mode, in the form that was exported.
        done: called after each of the four checks.

    Returns:
        What was checked, one line each.

    Raises:
        UserError: what does not hold.
    """
    packages = submission.protocol.packages
    check_source(submission.code, (folder / submission.code).read_text(encoding='utf-8'), packages)
    done()
    check_weights(folder / submission.weights, submission, network)
    done()
    compared = check_outputs(folder, submission, network)
    done()
    check_figures(folder, submission, network)
    done()
    return [
        f'{submission.code}: Python 3.9 syntax, only names of torch 1.13, no imports that the organisers may lack',
        f'{submission.weights}: flat, {len(network.state_dict())} tensors on the CPU, exactly those of the network',
        *compared,
        'parameters, activations, convs and the multiply-adds of both counters equal ours',
    ]


def check_source(name: str, text: str, packages: tuple[str, ...]) -> None:
    if found := find_newer(text):
        raise UserError(f'{name}: {"; ".join(found)}. Write it another way where the network is defined')
    for node in ast.walk(ast.parse(text)):
        modules = [node.module or ''] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            if not is_allowed(module, packages):
                raise UserError(f'{name}, line {node.lineno}: imports {module}, which the organisers may not have')


def check_weights(path: Path, submission: Submission, network: nn.Module) -> None:
    weights = torch.load(path, weights_only=True)
    if nested := [key for key, value in weights.items() if not isinstance(value, Tensor)]:
        raise UserError(
            f'{path} is nested: it has {", ".join(map(str, nested))} where the script expects tensors by name; save '
            'the inner dict, or export again'
        )
    if elsewhere := next((key for key, tensor in weights.items() if tensor.device.type != 'cpu'), None):
        raise UserError(f'{path}: {elsewhere} is on {weights[elsewhere].device}; save CPU tensors')
    if forms := swapped_forms(network, submission.arguments, weights):
        raise UserError(
            f'{path} has the weights of the {forms[0]} form, but the branch builds the {forms[1]} form: export again, '
            'with --fused for the fused form'
        )
    if odd := sorted(weights.keys() ^ network.state_dict().keys()):
        raise UserError(f'{path} does not fit the network: {odd[0]} is in only one of them')


def check_outputs(folder: Path, submission: Submission, network: nn.Module) -> list[str]:
    """Run the files in an interpreter of their own and compare the outputs.

    Compared in double precision, and in single precision, where the file may round as much as the network does; in
    single precision alone if the network cannot run in double.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = {'single': [as_official_input(torch.rand(*size, 3, generator=generator)) for size in SIZES]}
    own = {'single': outputs_in_unit_range(network, inputs['single'], submission.data_range)}
    double = [image.double() for image in inputs['single']]
    with contextlib.suppress(UserError):
        own['double'] = outputs_in_unit_range(network, double, submission.data_range)
        inputs['double'] = double
    outputs, times = run_alone(folder, submission, network, inputs)
    exact = own.get('double', own['single'])
    errors = {dtype: max(map(relative_error, outputs[dtype], exact)) for dtype in outputs}
    rounding = max(map(relative_error, own['single'], exact))
    if not errors['single'] <= 4 * rounding + TOLERANCE or not errors.get('double', 0) <= TOLERANCE:
        listed = ' and '.join(f'{value:.1e} in {dtype} precision' for dtype, value in errors.items())
        raise UserError(
            f'{submission.code} does not compute what the network computes: outputs differ by {listed} (the network '
            f'itself rounds by {rounding:.1e}). Does something outside the class change it?'
        )
    listed = ' and '.join(f'{value:.0e} in {dtype} precision' for dtype, value in errors.items())
    return [
        f'in a fresh interpreter without basicsr and earn_plugin: outputs equal ours to {listed}, where ours round by '
        f'{rounding:.0e}',
        describe_times(submission, times),
    ]


def describe_times(submission: Submission, times: dict) -> str:
    """What the first image costs, and how much of that is in the year's mean runtime; the quality track has none."""
    first, *rest = (1000 * second for second in times['seconds'])
    said = f'the first image of 64×64 takes {first:.1f} ms on this {times["device"]}, later ones {median(rest):.1f} ms'
    if submission.track == 'quality':
        return said
    images = submission.protocol.splits['valid'][0].images
    share = max(0, first - median(rest)) / images
    return f"{said}: the first is part of the organisers' mean of {images} images, +{share:.2f} ms"


def check_figures(folder: Path, submission: Submission, network: nn.Module) -> None:
    """Compare the counters' figures of the file with ours."""
    networks = [
        FoundNetwork(of, submission.arch, submission.arguments) for of in (network, build_exported(folder, submission))
    ]
    for size in SIZES:
        expected, found = (measure_complexity(of, size, torch.device('cpu')) for of in networks)
        for figure in FIGURES:
            exported_is, ours_is = getattr(found, figure), getattr(expected, figure)
            if exported_is != ours_is:
                raise UserError(
                    f'{submission.code} has other figures than the network: {figure} {exported_is:,} instead of '
                    f'{ours_is:,}'
                )


def build_exported(folder: Path, submission: Submission) -> nn.Module:
    """The network of the exported file, with its weights, in this interpreter. An import would leave a cache there."""
    module = ModuleType(f'exported_{submission.module}')
    sys.modules[module.__name__] = module  # where dataclasses look up their annotations
    text = (folder / submission.code).read_text(encoding='utf-8')
    exec(compile(text, module.__name__, 'exec'), module.__dict__)
    network = getattr(module, submission.arch)(**submission.arguments)
    network.load_state_dict(torch.load(folder / submission.weights, weights_only=True), strict=True)
    return network.eval()


def relative_error(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b).abs().max() / b.abs().max().clamp(min=1)).item()


def outputs_in_unit_range(network: nn.Module, images: list[Tensor], data_range: float) -> list[Tensor]:
    """The outputs in [0, 1], in the precision of the images; the network returns to single precision."""
    try:
        network.to(images[0].dtype)
        with torch.no_grad():
            return [output_of(network, image * data_range) / data_range for image in images]
    finally:
        network.float()


def run_alone(
    folder: Path, submission: Submission, network: nn.Module, inputs: dict[str, list[Tensor]]
) -> tuple[dict, dict]:
    """The outputs and the times that ``probe`` writes; for the quality track the images of ``main`` are compared."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        (work / 'script.py').write_text(
            SCRIPT.format(branch=branch(submission, 'if')) + REST[submission.track], 'utf-8'
        )
        torch.save(inputs, work / 'inputs.pt')
        images = {}
        if submission.track == 'quality':
            images = {f'{i:04}x4.png': to_image(image, 1.0) for i, image in enumerate(inputs['single'])}
        for name, image in images.items():
            write_image(work / 'images' / name, image)
        arguments = [sys.executable, '-I', '-B', probe.__file__, str(folder.resolve()), work, str(submission.team)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or 'no message').splitlines()[-1]
            lines = re.findall(rf'File ".*{re.escape(submission.code)}", line (\d+)', done.stderr)
            place = f'{submission.code}, line {lines[-1]},' if lines else submission.code
            raise UserError(f'{place} does not run on its own: {last}')
        for name, image in images.items():
            check_upscaled(work / 'upscaled' / name, image, submission, network)
        times = json.loads((work / 'times.json').read_text('utf-8'))
        return torch.load(work / 'outputs.pt', weights_only=True), times


def check_upscaled(path: Path, image: np.ndarray, submission: Submission, network: nn.Module) -> None:
    """Raise UserError unless ``main`` has written what the network computes, to one level in 255."""
    with torch.no_grad():
        output = network(to_tensor(image, submission.data_range, torch.device('cpu')))
    expected = to_image(output, submission.data_range).astype(int)
    written = cv2.imread(str(path)) if path.exists() else None
    if written is None or written.shape != expected.shape or abs(written - expected).max() > 1:
        raise UserError(f'{submission.code}: main has not written what the network computes for {path.name}')

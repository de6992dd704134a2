"""Whether an exported submission does, alone and on the organisers' terms, what our network does."""

import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from earn_plugin.convert.networks import FoundNetwork, output_of, registered_name
from earn_plugin.data.image_files import images_in, read_image
from earn_plugin.errors import UserError
from earn_plugin.measure.complexity import measure
from earn_plugin.ntire import old_versions as compatibility
from earn_plugin.ntire import probe
from earn_plugin.ntire.official_run import as_image, to_image, to_tensor
from earn_plugin.ntire.organisers_script import Submission, branch
from earn_plugin.ntire.single_file import is_promised
from earn_plugin.ntire.standalone import OFFICIAL, Extra, extra_of, names_of
from earn_plugin.protocols import Fusible

TOLERANCE = 1e-6
SIZES = ((24, 20), (17, 33))
SCRIPT = """
import os
import torch

def select_model(args, device):
    model_id = args.model_id
    if model_id < 0:
        pass
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


class Checked(NamedTuple):
    """What a check found, in words, and what the organisers' counter adds to ours."""

    lines: list[str]
    extra: Extra


def check(folder: Path, submission: Submission, network: nn.Module) -> Checked:
    """Check the exported files in a folder against the network that they come from.

    Args:
        network: on the CPU, in evaluation mode, of the form that was exported.

    Raises:
        UserError: says what does not hold.
    """
    text = (folder / submission.code).read_text(encoding='utf-8')
    check_text(submission.code, text)
    check_weights(folder / submission.weights, submission, network)
    compared = check_outputs(folder, submission, network)
    extra = check_counts(folder, submission, network)
    counted = 'parameters, activations, convs and the multiply-adds of both counters are as ours'
    if any(extra):
        counted = (
            "parameters, activations, convs and the hooks' multiply-adds are as ours; fvcore counts "
            f'{extra(*OFFICIAL) / 1e9:.4f} G more at 256×256, because what runs fused here is plain in the file'
        )
    lines = [
        f'{submission.code}: reads as Python 3.9, has only names of torch 1.13, imports nothing of its own',
        f'{submission.weights}: flat, {len(network.state_dict())} tensors on the CPU, all that the network takes',
        *compared,
        counted,
    ]
    return Checked(lines, extra)


def check_text(name: str, text: str) -> None:
    if found := compatibility.problems(text):
        raise UserError(f'{name}: {"; ".join(found)}. Write it in other words where the network is defined')
    for node in ast.walk(ast.parse(text)):
        modules = [node.module or ''] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            if not is_promised(module):
                raise UserError(f'{name}, line {node.lineno}: imports {module}, which the organisers may not have')


def check_weights(path: Path, submission: Submission, network: nn.Module) -> None:
    weights = torch.load(path, weights_only=True)
    nested = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if nested:
        raise UserError(
            f'{path} is nested: it has {", ".join(map(str, nested))} where the script expects tensors by their names; '
            'save the inner dict, or export again'
        )
    if elsewhere := next((key for key, tensor in weights.items() if tensor.device.type != 'cpu'), None):
        raise UserError(f'{path}: {elsewhere} is on {weights[elsewhere].device}; save tensors of the CPU')
    expected = network.state_dict()
    if weights.keys() == expected.keys():
        return
    if weights.keys() == other_form(submission).keys():
        has, needs = ('as trained', 'inference') if submission.arguments.get('fused') else ('inference', 'as trained')
        raise UserError(
            f'{path} has the weights of the form {has}, and the network of the branch is of the form {needs}: '
            'export again, with --fused for the fused form'
        )
    odd = sorted(weights.keys() ^ expected.keys())[0]
    raise UserError(f'{path} does not fit the network: {odd} is on one side alone')


def other_form(submission: Submission) -> dict[str, Any]:
    """The weights of the same network in its other form, if it has one."""
    cls = ARCH_REGISTRY.get(registered_name(submission.arch))
    if not isinstance(cls, Fusible):
        return {}
    fused = not submission.arguments.get('fused', False)
    return cls(**{**submission.arguments, 'fused': fused}).state_dict()


def check_outputs(folder: Path, submission: Submission, network: nn.Module) -> list[str]:
    """Run the files in an interpreter of their own and compare.

    In double precision, which has no excuse, and in single, where the file may round as much as the network does; in
    single alone where the network cannot run in double.
    """
    inputs = inputs_for(network)
    own = {kind: results(network, images, submission.data_range) for kind, images in inputs.items()}
    outputs, times = run_alone(folder, submission, network, inputs)
    exact = own.get('double', own['single'])
    apart = {kind: max(map(relative, outputs[kind], exact)) for kind in outputs}
    rounding = max(map(relative, own['single'], exact))
    if not apart['single'] <= 4 * rounding + TOLERANCE or not apart.get('double', 0) <= TOLERANCE:
        listed = ' and '.join(f'{value:.1e} in {kind} precision' for kind, value in apart.items())
        raise UserError(
            f'{submission.code} does not do what the network does: outputs differ by {listed} (the network itself '
            f'rounds by {rounding:.1e}). Is something outside the class changing it?'
        )
    listed = ' and '.join(f'{value:.0e} in {kind} precision' for kind, value in apart.items())
    first, *rest = times['seconds']
    return [
        f'in a fresh interpreter without basicsr and earn_plugin: outputs equal ours to {listed}, where ours rounds by '
        f'{rounding:.0e}',
        f'the first image of 64×64 takes {1e3 * first:.1f} ms on this {times["device"]}, those after it '
        f"{1e3 * median(rest):.1f} ms: the organisers' mean of 100 images has the first in it, "
        f'{10 * (first - median(rest)):+.2f} ms',
    ]


def check_counts(folder: Path, submission: Submission, network: nn.Module) -> Extra:
    """Compare the counters' figures of the file with ours; fvcore's may be more."""
    ours = FoundNetwork(network, submission.arch, submission.arguments)
    theirs = ours._replace(network=build(folder, submission))
    for size in SIZES:
        own, exported = (measure(found, size, torch.device('cpu'), fvcore=False) for found in (ours, theirs))
        for figure in ('params', 'hooks', 'activations', 'convs'):
            if getattr(own, figure) != getattr(exported, figure):
                raise UserError(
                    f'{submission.code} has other figures than the network: {figure} {getattr(exported, figure):,} '
                    f'instead of {getattr(own, figure):,}'
                )
    return extra_of(ours, theirs)


def build(folder: Path, submission: Submission) -> nn.Module:
    """The network that the exported file has, with its weights, in this interpreter."""
    path = folder / submission.code
    names = names_of(path.read_text(encoding='utf-8'), f'exported_{submission.module}')
    network = names[submission.arch](**submission.arguments)
    network.load_state_dict(torch.load(folder / submission.weights, weights_only=True), strict=True)
    return network.eval()


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b).abs().max() / b.abs().max().clamp(min=1)).item()


def inputs_for(network: nn.Module) -> dict[str, list[Tensor]]:
    """Images of odd and even sizes in both precisions, or in single where the network takes no other."""
    generator = torch.Generator().manual_seed(0)
    single = [as_image(torch.rand(*size, 3, generator=generator)) for size in SIZES]
    double = [image.double() for image in single]
    try:
        results(network, double[:1], 1.0)
    except UserError:
        return {'single': single}
    return {'single': single, 'double': double}


def results(network: nn.Module, images: list[Tensor], data_range: float) -> list[Tensor]:
    """The outputs in [0, 1], in the precision of the images; the network goes back to single precision."""
    try:
        network.to(images[0].dtype)
        with torch.no_grad():
            return [output_of(network, image * data_range) / data_range for image in images]
    finally:
        network.float()


def run_alone(
    folder: Path, submission: Submission, network: nn.Module, inputs: dict[str, list[Tensor]]
) -> tuple[dict, dict]:
    with tempfile.TemporaryDirectory() as work:
        script = SCRIPT.format(branch=branch(submission)) + REST[submission.track]
        (Path(work) / 'script.py').write_text(script, encoding='utf-8')
        torch.save(inputs, Path(work) / 'inputs.pt')
        if submission.track == 'quality':
            write_images(Path(work) / 'images', inputs['single'])
        arguments = [sys.executable, '-I', '-B', probe.__file__, str(folder.resolve()), work, str(submission.team)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or 'no message').splitlines()[-1]
            raise UserError(f'{submission.code} does not run on its own: {last}')
        outputs = torch.load(Path(work) / 'outputs.pt', weights_only=True)
        if submission.track == 'quality':
            check_images(Path(work) / 'images', Path(work) / 'upscaled', submission, network)
        return outputs, json.loads((Path(work) / 'times.json').read_text(encoding='utf-8'))


def write_images(folder: Path, images: list[Tensor]) -> None:
    folder.mkdir()
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f'{index:04}x4.png'), to_image(image, 1.0))


def check_images(images: Path, upscaled: Path, submission: Submission, network: nn.Module) -> None:
    """Raises: UserError: ``main`` has not written what the network makes of the images, to a level in 255."""
    for path in images_in(images):
        with torch.no_grad():
            output = network(to_tensor(read_image(path), submission.data_range, torch.device('cpu')))
        expected = to_image(output, submission.data_range).astype(int)
        written = cv2.imread(str(upscaled / path.name)) if (upscaled / path.name).exists() else None
        if written is None or written.shape != expected.shape or abs(written - expected).max() > 1:
            raise UserError(f'{submission.code}: main has not written what the network makes of {path.name}')

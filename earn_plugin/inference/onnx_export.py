"""Networks written as ONNX files, each compared with torch before it takes its name."""

import copy
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from earn_plugin import __version__
from earn_plugin.archs.attention import NonLocalAttention
from earn_plugin.atomic_files import write_file
from earn_plugin.convert.conversion import count_of
from earn_plugin.convert.networks import fuse_network, output_of, read_network
from earn_plugin.errors import UsageError, UserError
from earn_plugin.inference.onnx_network import OnnxNetwork, require
from earn_plugin.inference.tiles import TiledNetwork
from earn_plugin.measure.memory import peak_bytes
from earn_plugin.own_code import failure_of
from earn_plugin.protocols import Fusible, RunsByParts
from earn_plugin.weights import checkpoint_file

OPSET = 20  # the first with GELU as one node
LIMIT = 0.1 / 255  # of differences to torch, relative to the largest result or 1
HALF_LIMIT = 2 / 255  # of the same for float16
WIDE_HALF_LIMIT = 0.5 / 255  # for networks that work on more than [0, 1], whose features may overflow
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)  # that networks may need sides to be of
SMALLEST = 16  # multiples tried as the smallest side
NON_LOCAL_PIXELS = 128**2  # of an image whose non-local attention stores 1 GiB of weights


def export_onnx(
    source: Path,
    target: Path,
    arguments: dict[str, Any] | None = None,
    *,
    arch: str | None = None,
    half: bool = False,
) -> str:
    """Write the network of a checkpoint as an ONNX file: N×C×H×W in [0, 1] → N×C×sH×sW, for any N, H and W.

    The file has the fused form where there is one, and metadata: scale, reach, the sizes that it takes, architecture
    and arguments, the SHA-256 of the checkpoint. It is written atomically, once onnxruntime has given the results that
    the checkpoint's own form has in torch, for an odd, a tiny and a large image and for a batch.

    Args:
        source, target: a checkpoint as ``load`` takes it, and an .onnx file.
        arguments, arch: of the network, as for ``load``.
        half: float16; refused if it changes a result by 2/255, or by 0.5/255 for a network with a range above 1.

    Returns:
        What was exported, how it was compared, and what was written.

    Raises:
        UserError: as ``load``; a package is missing, the network cannot be exported, or the results differ.
    """
    if target.suffix != '.onnx' or target.is_dir():
        raise UsageError(f'{target} must be the name of an .onnx file')
    require('onnx', 'onnxscript', 'onnxruntime')
    read = read_network(source, arguments or {}, arch)
    trained = read.found.network
    found = fuse_network(read.found) if isinstance(type(trained), Fusible) else read.found
    lines = [f'{source}: {read.title}, {count_of(trained)} parameters']
    lines += [f'warning: {warning}' for warning in read.warnings]
    if found.arguments.get('fused'):
        lines.append(f'fused form, {count_of(found.network)} parameters')
    with torch.no_grad():
        images = Photographs(trained, found.arguments.get('num_in_ch', 3))
        network, sample = found.network, images.crop(20, 24, number=2)  # neither square nor smaller than a kernel
        scale = output_of(trained, sample).shape[3] // sample.shape[3]
        metadata = {
            'scale': scale,
            'value_range': '0 to 1',
            **limits_of(network, scale, images),
            'arch': found.arch,
            'arguments': json.dumps(found.arguments),
            'checkpoint_sha256': hashlib.sha256(checkpoint_file(source).read_bytes()).hexdigest(),
            'command': f'basicsr export {source.name} {target.name}' + ' --half' * half,
            'version': f'earn_plugin {__version__}, torch {torch.__version__}',
        }
        limit = LIMIT
        if half:
            limit = WIDE_HALF_LIMIT if found.arguments.get('img_range', 1) > 1 else HALF_LIMIT
            network, sample = copy.deepcopy(network).half(), sample.half()
            changed = change_by_half(network, trained, images, limit)
            lines.append(f'float16 changes results by up to {255 * changed:.2g}/255')
            metadata['half_difference'] = f'{changed:.2g}'
        model = exported(network, sample, f'{source} ({found.arch})')
        written = OnnxNetwork(model.SerializeToString(), f'ONNX of {found.arch}')
        smallest = smallest_of(written, trained, images, limit)
        largest, sizes = compare(written, trained, images, smallest, limit)
    lines.append(f'onnxruntime gives the results of torch to {largest:.2g} ({sizes})')
    multiple = f', multiples of {images.multiple}' * (images.multiple > 1)
    lines.append(f'for images with sides of at least {smallest}{multiple}')
    if 'largest' in metadata:
        lines.append(
            f'warning: for images of at most {metadata["largest"]:,} pixels, as non-local attention in ONNX stores a '
            'weight for each pair of pixels, which takes 3.5 GB at 128×128; use the checkpoint for larger ones'
        )
    metadata |= {'smallest': smallest, 'multiple': images.multiple, 'largest_difference': f'{largest:.2g}'}
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=str(value))
    content = model.SerializeToString()
    write_file(target, content)
    return '\n'.join([*lines, str(found), f'written to {target}: {len(content) / 1e6:.1f} MB, opset {OPSET}'])


class Photographs:
    """Crops of a photograph that scikit-image brings, in the sizes that a network takes.

    ``multiple`` is what its sides must be a multiple of.
    """

    def __init__(self, network: nn.Module, channels: int):
        from skimage import data

        photograph = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[torch.arange(channels) % 3]
        self.photograph = photograph[None].float() / 255
        for self.multiple in MULTIPLES:
            try:
                output_of(network, self.crop(5, 3))
                return
            except UserError as error:
                failure = error
        raise failure

    def crop(self, height: int, width: int, number: int = 1) -> Tensor:
        """Neighbouring crops, as many multiples high and wide as fit in the size or, if they are odd, one more."""
        sides = []
        for side in (height, width):
            count = max(1, side // self.multiple)
            sides.append(self.multiple * (count | side & 1))
        rows, columns = sides
        return torch.cat([self.photograph[..., 64 * n : 64 * n + rows, 160 : 160 + columns] for n in range(number)])


def limits_of(network: nn.Module, scale: int, images: Photographs) -> dict[str, int]:
    """What tiles and large images need: memory, reach and alignment where the network has a reach, most pixels."""
    image = images.crop(48, 48)
    limits = {'pixel_bytes': round(peak_bytes(lambda: network(image)) / image.shape[2:].numel())}
    if images.multiple == 1 and not isinstance(network, RunsByParts):
        reach = TiledNetwork(network, scale, channels=image.shape[1]).reach
        limits |= {'reach': reach.pixels, 'alignment': reach.alignment} if reach else {}
    if any(isinstance(module, NonLocalAttention) for module in network.modules()):
        limits['largest'] = NON_LOCAL_PIXELS
    return limits


def exported(network: nn.Module, sample: Tensor, name: str) -> Any:
    """The onnx.ModelProto of a network, for images of any number, height and width."""
    free = torch.export.Dim.DYNAMIC
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of torch about itself
            program = torch.onnx.export(
                network,
                (sample,),
                input_names=['image'],
                output_names=['result'],
                dynamic_shapes=({0: free, 2: free, 3: free},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter may raise anything for a network
        raise UserError(f'{name} cannot be exported: {failure_of(error)}') from error
    return program.model_proto


def change_by_half(half: nn.Module, network: nn.Module, images: Photographs, limit: float) -> float:
    """How much float16 changes a result; in torch, as onnxruntime computes on a CPU in float32 all the way.

    Raises:
        UserError: by the limit or more.
    """
    checkerboard = torch.zeros_like(images.crop(24, 32))  # the largest activations are at such patterns
    checkerboard[..., ::2, ::2] = checkerboard[..., 1::2, 1::2] = 1
    tests = (checkerboard, images.crop(48, 64))
    changed = max(difference(output_of(half, image.half()).float(), network(image)) for image in tests)
    if not changed < limit:
        raise UserError(
            f'--half is refused: float16 changes a result by {255 * changed:.2g}/255, and {255 * limit:.2g}/255 is the '
            'limit for this network; export in float32'
        )
    return changed


def smallest_of(written: OnnxNetwork, network: nn.Module, images: Photographs, limit: float) -> int:
    """The smallest side with which onnxruntime and torch give the same result.

    Raises:
        UserError: there is none; the message has the reason for the largest that was tried.
    """
    for side in range(images.multiple, SMALLEST * images.multiple + 1, images.multiple):
        image = images.crop(side, side)
        try:
            found = difference(written(image), output_of(network, image))
        except UserError as error:  # a border wider than the image, or a size that the exporter has fixed
            reason = str(error)
            continue
        if found < limit:
            return side
        reason = f'it differs by {found:.2g} for {side}×{side}'
    raise UserError(f'not written, as onnxruntime does not give the results of torch for small images: {reason}')


def compare(
    written: OnnxNetwork, network: nn.Module, images: Photographs, smallest: int, limit: float
) -> tuple[float, str]:
    """The largest difference between onnxruntime and torch, and the sizes of the images that were compared.

    Raises:
        UserError: a difference is not below the limit.
    """
    crops = (
        images.crop(smallest, smallest),
        images.crop(37, 23),
        images.crop(18, 30, number=2),
        images.crop(96, 128),
    )
    sizes = ['×'.join(map(str, crop.shape)) for crop in crops]
    differences = [difference(written(crop), output_of(network, crop)) for crop in crops]
    if not max(differences) < limit:
        found = ', '.join(f'{number:.2g} at {size}' for number, size in zip(differences, sizes, strict=True))
        raise UserError(f'not written, as onnxruntime differs from torch by {found}; the limit is {limit:.2g}')
    return max(differences), ', '.join(sizes)


def difference(result: Tensor, reference: Tensor) -> float:
    """The largest difference, relative to the largest reference value or 1; infinite for other sizes and for NaN."""
    if result.shape != reference.shape or not result.isfinite().all():
        return float('inf')
    return ((result - reference).abs().max() / reference.abs().max().clamp(min=1)).item()

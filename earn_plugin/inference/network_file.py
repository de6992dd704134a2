"""The network of a file as it runs best: a checkpoint's in its fused form, or an ONNX file's."""

from pathlib import Path
from typing import Any

from torch import nn

from earn_plugin.convert.networks import fuse_network, read_logged
from earn_plugin.errors import UsageError
from earn_plugin.inference.onnx_network import load_onnx
from earn_plugin.protocols import Fusible


def open_network(
    path: Path, arguments: dict[str, Any], arch: str | None = None, fused: bool | None = None
) -> nn.Module:
    """The network of a checkpoint or an ONNX file, ready to run: N×C×H×W in [0, 1] → N×C×sH×sW.

    Args:
        arguments, arch: of a checkpoint, as ``load`` takes them.
        fused: the form; None for the fused one where there is one.

    Raises:
        UserError: as ``load`` and ``OnnxNetwork``; for an ONNX file something is given that goes with checkpoints.
    """
    if path.suffix == '.onnx':
        if arguments or arch or fused is not None:
            raise UsageError(f'{path} is an ONNX file: --arch, --set, --upscale and --fused go with checkpoints')
        return load_onnx(path)
    found = read_logged(path, arguments, arch)
    fused = isinstance(type(found.network), Fusible) if fused is None else fused
    return (fuse_network(found) if fused else found).network

"""A network in an ONNX file, run by onnxruntime as if it were a torch module."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from earn_plugin.errors import UserError, reason_of

TYPES = {'tensor(float)': torch.float32, 'tensor(float16)': torch.float16}
PROVIDERS = ('CUDAExecutionProvider', 'CPUExecutionProvider')  # in the order of preference
PIXEL_BYTES = 2**13  # for files of other programs: two maps of 64 features at four times the sides
FATAL = 4  # onnxruntime's severity: its errors are raised, and need not be printed as well


class OnnxNetwork(nn.Module):
    """N×C×H×W in [0, 1] → N×C×sH×sW, on the device and in the type of the input; computed by onnxruntime.

    ``to`` and ``eval`` change nothing: it runs on a GPU where onnxruntime has CUDA, else on the CPU, on as many threads
    as torch has, and in the precision of the file.

    Args:
        model: path or content of the file.
        name: of the network, for messages.

    Attributes:
        metadata: what the file records, as text.
        scale: s.
        reach, alignment: as of ``protocols.HasReach``, where the file records them: for networks that compute nothing
            from the entire image.
        pixel_bytes: memory that it takes for each pixel of the input, about.
        smallest, multiple: H and W must be at least ``smallest``, and multiples of ``multiple``.
        largest: most pixels H·W of an image; None for any.

    Raises:
        UserError: onnxruntime is missing, or the file cannot be loaded.
    """

    def __init__(self, model: Path | bytes, name: str):
        super().__init__()
        require('onnxruntime')
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = FATAL
        providers = [provider for provider in PROVIDERS if provider in onnxruntime.get_available_providers()]
        try:
            content = model if isinstance(model, bytes) else str(model)
            self.session = onnxruntime.InferenceSession(content, options, providers)
            (inputs,), (_,) = self.session.get_inputs(), self.session.get_outputs()
            self.input_name, self.input_type = inputs.name, TYPES[inputs.type]
            self.channels = inputs.shape[1] if isinstance(inputs.shape[1], int) else 3  # a name stands for any number
        except Exception as error:  # onnxruntime's errors have no class in common
            raise UserError(
                f'{name} cannot be loaded: it is damaged, or not an ONNX network from one image to one image '
                f'({reason_of(error)})'
            ) from error
        self.name, self.metadata = name, self.session.get_modelmeta().custom_metadata_map
        self.smallest, self.multiple = self._number('smallest', 1), self._number('multiple', 1)
        self.largest, self.pixel_bytes = self._number('largest'), self._number('pixel_bytes', PIXEL_BYTES)
        if 'reach' in self.metadata:
            self.reach, self.alignment = self._number('reach'), self._number('alignment', 1)
        self.scale = self._number('scale') or self._measured_scale()

    def _number(self, key: str, default: int | None = None) -> int | None:
        text = self.metadata.get(key, '')
        return int(text) if text.isdecimal() else default

    def _measured_scale(self) -> int:
        """For the files of other programs: the scale of a small image's result."""
        side = 64
        return self(torch.zeros(1, self.channels, side, side)).shape[-1] // side

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if min(height, width) < self.smallest or height % self.multiple or width % self.multiple:
            multiple = f', and multiples of {self.multiple}' if self.multiple > 1 else ''
            raise UserError(
                f'{self.name} takes images with sides of at least {self.smallest} pixels{multiple}, not '
                f'{height}×{width}; use the checkpoint instead'
            )
        if self.largest and height * width > self.largest:
            raise UserError(
                f'{self.name} takes images of at most {self.largest:,} pixels, not {height}×{width}: non-local '
                'attention as ONNX stores a weight for each pair of pixels; use the checkpoint instead'
            )
        image = x.detach().to('cpu', self.input_type).numpy()
        try:
            (result,) = self.session.run(None, {self.input_name: image})
        except Exception as error:  # see above
            raise UserError(f'{self.name} failed for an image of {height}×{width}: {reason_of(error)}') from error
        return torch.from_numpy(result).to(x)


def load_onnx(path: Path) -> OnnxNetwork:
    """The network of an ONNX file, of ``basicsr export`` or of another program.

    Raises:
        UserError: the file is missing or damaged, or onnxruntime is not installed.
    """
    if not path.is_file():
        raise UserError(f'{path} does not exist')
    return OnnxNetwork(path, str(path))


def require(*packages: str) -> None:
    """Raise UserError with the remedy if a package is not installed."""
    if missing := [package for package in packages if find_spec(package) is None]:
        names = ' '.join(missing)
        raise UserError(f'ONNX files need packages that are not installed; install them with `pip install {names}`')

"""The images of a split through a network, one by one, as the organisers' script does it."""

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from earn_plugin.atomic_files import write_file
from earn_plugin.convert.networks import output_of
from earn_plugin.data.bicubic import crop_to_multiple
from earn_plugin.data.image_files import encode, read_image
from earn_plugin.errors import UserError
from earn_plugin.metrics.ntire_metrics import BORDER, SCALE, calculate_ntire_psnr, calculate_ntire_ssim
from earn_plugin.ntire.image_pairs import PairPaths
from earn_plugin.ntire.results import Entry, split_entry

RANGES = (1.0, 255.0)
SMALLEST = 2 * BORDER + 11  # pixels: SSIM's window within the border
WRONG_RANGE = 'the data range looks wrong'
BETTER = 0.3  # dB by which the other data range must be better for a warning


@dataclass(frozen=True)
class RunSettings:
    """How a split is run."""

    device: torch.device
    data_range: float  # of the network: 1 or 255
    track: str  # 'efficient' or 'quality'
    ssim: bool  # whether SSIM is measured as well
    trained: bool  # whether the weights are, so that a wrong data range can be seen in the output
    save_dir: Path | None = None  # where the results are saved
    compares_ranges: bool = True  # whether the first image is also run with the other data range


@torch.no_grad()
def run_split(network: nn.Module, pairs: list[PairPaths], split: str, settings: RunSettings) -> tuple[Entry, list[str]]:
    """All images of a split, the first one cold: the entry of results.json, and warnings.

    Raises:
        UserError: an image cannot be read, or network and images do not fit NTIRE.
    """
    runtimes, psnrs, ssims, warnings = [], [], [], []
    torch.backends.cudnn.benchmark = False  # as in the official script
    for pair in tqdm(pairs, desc=split, unit='image', disable=None):
        lr, hr = read_pair(pair)
        output, milliseconds = time_pass(network, to_tensor(lr, settings.data_range, settings.device), pair.lr)
        check_pair(pair, lr, output, hr)
        image = to_image(output, settings.data_range)
        del output  # as in the official script; otherwise it counts in the memory of the next image
        runtimes.append(milliseconds)
        psnrs.append(calculate_ntire_psnr(image, hr, settings.track))
        if settings.ssim:
            ssims.append(calculate_ntire_ssim(image, hr, settings.track))
        # not before the first image, which has to be cold
        if len(runtimes) == 1 and split != 'test' and settings.compares_ranges:
            warnings += compare_data_ranges(network, pair, settings, psnrs[0])
        if settings.save_dir is not None:
            write_file(settings.save_dir / split / pair.hr.name, encode(image))
    return split_entry(split, runtimes, psnrs, ssims, peak_memory_mib(settings.device)), warnings


def read_pair(pair: PairPaths) -> tuple[np.ndarray, np.ndarray]:
    """LR, and HR cropped to a multiple of 4, as ``read_bgr`` returns them."""
    return read_bgr(pair.lr), crop_to_multiple(read_bgr(pair.hr), SCALE)


def read_bgr(path: Path) -> np.ndarray:
    """H×W×3, uint8; a grey image gets three equal channels, as in the official script.

    Raises:
        UserError: it cannot be decoded, or has 16 bits.
    """
    image = read_image(path)
    if image.dtype != np.uint8:
        raise UserError(f'{path} has 16 bits; NTIRE measures 8-bit images')
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image


def to_tensor(image: np.ndarray, data_range: float, device: torch.device) -> Tensor:
    """H×W×3, BGR, uint8 → 1×3×H×W, RGB, float32 in [0, data_range], in the memory layout of the official script."""
    rgb = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1]))
    return as_official_input(rgb.float() / (255.0 / data_range)).to(device)


def as_official_input(x: Tensor) -> Tensor:
    """H×W×C → 1×C×H×W without a copy, as the official script does it; a ``view`` in a network may fail on that."""
    return x.permute(2, 0, 1)[None]


def to_image(output: Tensor, data_range: float) -> np.ndarray:
    """1×3×H×W, RGB, in [0, data_range] → H×W×3, BGR, uint8: clamped and rounded."""
    rgb = (output[0].float().clamp(0, data_range) * 255.0 / data_range).round().byte().cpu().numpy()
    return np.ascontiguousarray(rgb.transpose(1, 2, 0)[:, :, ::-1])


def time_pass(network: nn.Module, x: Tensor, path: Path) -> tuple[Tensor, float]:
    """The output and the milliseconds of the pass, by CUDA events or the clock.

    Raises:
        UserError: the network fails on the image of that path, for example for lack of GPU memory.
    """
    try:
        if x.device.type == 'cuda':
            with torch.cuda.device(x.device):
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                output = output_of(network, x)
                end.record()
                torch.cuda.synchronize()
            return output, start.elapsed_time(end)
        begin = time.perf_counter()
        output = output_of(network, x)
        return output, (time.perf_counter() - begin) * 1000
    except UserError as error:
        raise UserError(f'the network fails on {path} ({x.shape[2]}×{x.shape[3]}): {error}') from error


def check_pair(pair: PairPaths, lr: np.ndarray, output: Tensor, hr: np.ndarray) -> None:
    """Raise UserError unless network and images are ×4, and the images large enough to be measured."""
    height, width = SCALE * lr.shape[0], SCALE * lr.shape[1]
    if output.shape != (1, 3, height, width):
        shape = '×'.join(map(str, output.shape))
        raise UserError(f'NTIRE is ×4: the output for {pair.lr} must be 1×3×{height}×{width}, got {shape}')
    if hr.shape[:2] != (height, width):
        raise UserError(
            f'{pair.hr}, cropped to a multiple of 4, is {hr.shape[0]}×{hr.shape[1]}, but four times {pair.lr} is '
            f'{height}×{width}: the LR images have another scale, or belong to other images'
        )
    if min(height, width) < SMALLEST:
        raise UserError(f'{pair.hr} is {height}×{width}; the metrics need {SMALLEST}×{SMALLEST}: remove it')


def compare_data_ranges(network: nn.Module, pair: PairPaths, settings: RunSettings, psnr: float) -> list[str]:
    """A warning if the other data range is better for an image, printed at once, not only after all other images.

    With a wrong range a network that adds to an upscaled input loses tenths of a dB, others nearly everything.
    """
    other = RANGES[settings.data_range == RANGES[0]]
    lr, hr = read_pair(pair)
    image = to_image(network(to_tensor(lr, other, settings.device)), other)
    psnr_of_other = calculate_ntire_psnr(image, hr, settings.track)
    if not settings.trained or psnr_of_other <= psnr + BETTER:
        return []
    given = f'{pair.hr.name}: {psnr:.2f} dB with data range {settings.data_range:g}'
    warning = f'{WRONG_RANGE}. {given}, {psnr_of_other:.2f} dB with {other:g}; try --data-range {other:g}'
    tqdm.write(f'warning: {warning}', file=sys.stderr)
    return [warning]


def peak_memory_mib(device: torch.device) -> float:
    """On CUDA torch's maximum, as in the official script; otherwise the peak resident memory of the process.

    NaN on Windows, which does not report it to Python.
    """
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource  # not on Windows
    except ModuleNotFoundError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == 'darwin' else 2**10)

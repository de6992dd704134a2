"""The images of a split through a network, one after the other, as the organisers' script does it."""

import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from earn_plugin.atomic_files import atomic_file
from earn_plugin.convert.networks import output_of
from earn_plugin.data.bicubic import crop_to_multiple
from earn_plugin.data.image_files import encode, read_image
from earn_plugin.errors import UserError
from earn_plugin.metrics.ntire_metrics import BORDER, SCALE, calculate_ntire_psnr, calculate_ntire_ssim
from earn_plugin.ntire.image_pairs import PairPaths
from earn_plugin.ntire.results import Entry, entry_of

RANGES = (1.0, 255.0)
SMALLEST = 2 * BORDER + 11  # pixels: SSIM's window within the border
BETTER = 0.3  # dB by which the other data range must win for a warning


class Settings(NamedTuple):
    device: torch.device
    data_range: float  # of the network: 1 or 255
    track: str
    ssim: bool
    trained: bool  # whether the weights can tell which data range is theirs


@torch.no_grad()
def run_split(
    network: nn.Module, pairs: list[PairPaths], split: str, settings: Settings, save_dir: Path | None, notes: list[str]
) -> Entry:
    """All images of a split, one after the other, the first one cold.

    Raises:
        UserError: an image cannot be read, or network and images do not fit NTIRE.
    """
    runtimes, psnrs, ssims = [], [], []
    torch.backends.cudnn.benchmark = False  # as in the official script
    for pair in tqdm(pairs, desc=split, unit='image', disable=None):
        lr, hr = read_bgr(pair.lr), crop_to_multiple(read_bgr(pair.hr), SCALE)
        output, milliseconds = timed(network, to_tensor(lr, settings.data_range, settings.device), pair.lr)
        check_scale(pair, lr, output, hr)
        image = to_image(output, settings.data_range)
        del output  # as in the official script; else it counts in the memory of the next image
        runtimes.append(milliseconds)
        psnrs.append(calculate_ntire_psnr(image, hr, settings.track))
        if settings.ssim:
            ssims.append(calculate_ntire_ssim(image, hr, settings.track))
        if len(runtimes) == 1 and split != 'test':  # not before the first image, which has to be cold
            note, suspicious = try_other_range(network, pair, lr, hr, settings, psnrs[0])
            notes.append(note)
            if suspicious:
                tqdm.write(f'warning: {note}', file=sys.stderr)  # now, and not after all other images
        if save_dir is not None:
            save(save_dir / pair.hr.name, image)
    return entry_of(split, runtimes, psnrs, ssims, peak_memory(settings.device))


def save(path: Path, image: np.ndarray) -> None:
    try:
        with atomic_file(path) as file:
            file.write(encode(image))
    except OSError as error:
        raise UserError(f'cannot write {path}: {error}') from error


def read_bgr(path: Path) -> np.ndarray:
    """H×W×3, uint8; a grey image has three equal channels, as in the official script.

    Raises:
        UserError: it cannot be decoded, or has 16 bits.
    """
    image = read_image(path)
    if image.dtype != np.uint8:
        raise UserError(f'{path} has 16 bits, and NTIRE measures images of 8')
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image


def to_tensor(image: np.ndarray, data_range: float, device: torch.device) -> Tensor:
    """H×W×3, BGR, uint8 → 1×3×H×W, RGB, float32 in [0, data_range], laid out in memory as the official script does."""
    rgb = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1]))
    return as_image(rgb.float() / (255.0 / data_range)).to(device)


def as_image(x: Tensor) -> Tensor:
    """H×W×C → 1×C×H×W in the same memory, as the official script makes its input; some ``view`` fails on that."""
    return x.permute(2, 0, 1)[None]


def to_image(output: Tensor, data_range: float) -> np.ndarray:
    """1×3×H×W, RGB, in [0, data_range] → H×W×3, BGR, uint8: clamped and rounded."""
    rgb = (output[0].float().clamp(0, data_range) * 255.0 / data_range).round().byte().cpu().numpy()
    return np.ascontiguousarray(rgb.transpose(1, 2, 0)[:, :, ::-1])


def timed(network: nn.Module, x: Tensor, path: Path) -> tuple[Tensor, float]:
    """The output and the milliseconds of the pass, by CUDA's events or the clock.

    Raises:
        UserError: the image of that path cannot go through, such as for too little memory on the GPU.
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
        raise UserError(f'{path} ({x.shape[2]}×{x.shape[3]}) cannot go through: {error}') from error


def check_scale(pair: PairPaths, lr: np.ndarray, output: Tensor, hr: np.ndarray) -> None:
    """Raise UserError unless the network is ×4 and the images are, and large enough to be measured."""
    height, width = SCALE * lr.shape[0], SCALE * lr.shape[1]
    if output.shape != (1, 3, height, width):
        made = '×'.join(map(str, output.shape))
        raise UserError(f'NTIRE is ×4, and this network made {made} of {pair.lr}, where 1×3×{height}×{width} is wanted')
    if hr.shape[:2] != (height, width):
        raise UserError(
            f'{pair.hr}, cut to a multiple of 4, is {hr.shape[0]}×{hr.shape[1]}, and four times {pair.lr} is '
            f'{height}×{width}: the LR images are of another scale, or of other images'
        )
    if min(height, width) < SMALLEST:
        raise UserError(
            f'{pair.hr} is {height}×{width}, and metrics need {SMALLEST}×{SMALLEST}; take it out of the set'
        )


def try_other_range(
    network: nn.Module, pair: PairPaths, lr: np.ndarray, hr: np.ndarray, settings: Settings, psnr: float
) -> tuple[str, bool]:
    """The PSNR of an image with the given and with the other data range, in words, and whether the other is better.

    With a wrong range a network that adds to an upscaled input loses tenths of a dB, others nearly everything.
    """
    other = RANGES[settings.data_range == RANGES[0]]
    image = to_image(network(to_tensor(lr, other, settings.device)), other)
    theirs = calculate_ntire_psnr(image, hr, settings.track)
    both = f'{pair.hr.name}: {psnr:.2f} dB with data range {settings.data_range:g}, {theirs:.2f} dB with {other:g}'
    if settings.trained and theirs > psnr + BETTER:
        return f'the data range looks wrong. {both}; try --data-range {other:g}', True
    return both, False


def peak_memory(device: torch.device) -> float:
    """MiB: on CUDA torch's maximum, as the official script has it; else the peak resident memory of the process."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == 'darwin' else 2**10)

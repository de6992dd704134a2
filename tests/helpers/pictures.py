"""Pictures of every kind, a network that enlarges them cheaply, and what its results should be."""

import itertools
import struct
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageCms
from torch import nn
from torch.nn import functional as F

from earn_plugin.inference import upscale
from tests.helpers.images import photograph

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
# a profile of its own, as Display P3 is: sRGB's with another description
P3 = SRGB.replace('sRGB built-in'.encode('utf-16-be'), 'Display P3 so'.encode('utf-16-be'))
GREY = SRGB[:16] + b'GRAY' + SRGB[20:]


def cmyk_profile() -> bytes:
    """An ICC profile of a press: a table from the 16 corners of CMYK to Lab, 8 bits each."""
    table = b'mft1' + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack('>9i', *(65536, 0, 0, 0) * 2, 65536)
    ramp = bytes(range(256))
    corners = [
        (255 * (1 - k) * (1 - (c + m + y) / 4), 128 + 60 * (m - c) * (1 - k), 128 + 60 * (y - (c + m) / 2) * (1 - k))
        for c, m, y, k in itertools.product((0, 1), repeat=4)
    ]
    table += ramp * 4 + bytes(round(value) for corner in corners for value in corner) + ramp * 3
    tags = struct.pack('>I4sII', 1, b'A2B0', 144, len(table))
    header = struct.pack('>I4sI4s4s4s', 144 + len(table), b'', 0x02100000, b'prtr', b'CMYK', b'Lab ')
    header += bytes(12) + b'acsp' + bytes(28) + struct.pack('>3i', 63190, 65536, 54061)
    return header.ljust(128, b'\0') + tags + table


class Double(nn.Module):
    """Bicubic ×2 with overshoot, so that results must be clamped; ``channels`` are checked as a convolution does."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != self.channels:
            raise RuntimeError(f'expected {self.channels} channels, got {x.shape[1]}')
        return F.interpolate(x * 1.2 - 0.1, scale_factor=2, mode='bicubic')


def doubled(pixels: np.ndarray, largest: int | None = None) -> np.ndarray:
    """What Double gives for H×W or H×W×3, rounded as BasicSR's tensor2img does."""
    rgb = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, -1)
    x = torch.from_numpy(rgb.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max))
    out = Double()(x.permute(2, 0, 1)[None])[0].clamp(0, 1)
    out = out if pixels.ndim == 3 else out.mean(0, keepdim=True)
    levels = (out.permute(1, 2, 0).numpy() * (largest or np.iinfo(pixels.dtype).max)).round()
    return levels.squeeze(2) if pixels.ndim == 2 else levels


def photo(height: int = 10, width: int = 14, deep: bool = False) -> np.ndarray:
    """RGB in 8 or 16 bits."""
    image = photograph(height, width, 3)
    return image.astype(np.uint16) * 257 + np.arange(3, dtype=np.uint16) if deep else image


def exif(orientation: int = 1, width: int = 14, height: int = 10) -> bytes:
    tags = Image.Exif()
    tags.update({271: 'Maker', 274: orientation, 315: 'A. Photographer'})
    tags[0x8769] = {0x9003: '2020:01:02 03:04:05', 0xA002: width, 0xA003: height}
    tags[0x8825] = {1: 'N', 2: (47.0, 22.0, 12.0)}
    return tags.tobytes()


def save(path: Path, pixels: np.ndarray, **settings) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        cv2.imwrite(str(path), cv2.cvtColor(pixels, [cv2.COLOR_RGB2BGR, cv2.COLOR_RGBA2BGRA][pixels.shape[2] == 4]))
    else:
        Image.fromarray(pixels).save(path, **settings)
    return path


def opened(path: Path) -> np.ndarray:
    """The pixels of a result, all bits of them, in the order of RGB."""
    with Image.open(path) as image:
        if ';16' not in str(image.tile[:1]):
            return np.asarray(image)
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    code = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}.get(pixels.shape[2] if pixels.ndim == 3 else 1)
    return pixels if code is None else cv2.cvtColor(pixels, code)


def enlarge(pixels: np.ndarray, name: str, network=None, save_with=None, **settings) -> np.ndarray:
    """The result for a picture that is saved under that name."""
    save(Path('in', name), pixels, **(save_with or {}))
    upscale(Path('in', name), 'out', network or Double(), **settings)
    (result,) = Path('out').iterdir()
    return opened(result)

"""Training pairs from HR images alone: the LR image is made when a sample is read."""

import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from basicsr.data.data_util import paired_paths_from_meta_info_file, paths_from_folder, paths_from_lmdb
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import FileClient, bgr2ycbcr, imfrombytes, img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from earn_plugin.data.bicubic import BORDERS, crop_to_multiple, imresize
from earn_plugin.data.folder_or_lmdb import first_few, lmdb_header, lmdb_shapes
from earn_plugin.data.held_out import split
from earn_plugin.data.image_headers import Header
from earn_plugin.data.pair_checks import header_or_problem
from earn_plugin.errors import UsageError

LARGE = 2e6  # pixels, from which decoding an image for each small crop is likely to take longer than a training step
NOT_READ = ('grey of floats', '32-bit')  # kinds of images that cv2 does not convert to 8 bits
SUB_IMAGE, STEP = 480, 240  # as BasicSR cuts DIV2K


class LR:
    """The LR image of an HR image, H×W×3 uint8; only the part in use is computed: ``lr[top:bottom, left:right]``.

    The part is a crop of the full LR image, not the LR image of a crop: the kernel reaches beyond the crop's edges.
    """

    def __init__(self, hr: np.ndarray, scale: int, border: str):
        self.hr, self.scale, self.border = hr, scale, border
        self.shape = hr.shape[0] // scale, hr.shape[1] // scale, hr.shape[2]

    def __getitem__(self, place: tuple) -> np.ndarray:
        return imresize(self.hr, Fraction(1, self.scale), self.border, place[:2])


@DATASET_REGISTRY.register()
class BicubicPairDataset(Dataset):
    """BasicSR's PairedImageDataset without LR files, from a folder or an LMDB of HR images.

    For the same random numbers, a sample equals PairedImageDataset's bit for bit, if that has the same HR images,
    cropped to a multiple of the scale, and LR files made by MATLAB's bicubic. From sub-images, the LR image is made of
    the sub-image: within two LR pixels of the edges it differs from a crop of the original image's LR.

    Args:
        opt: PairedImageDataset's options without ``dataroot_lq`` and ``filename_tmpl``: ``dataroot_gt``,
            ``io_backend``, ``meta_info_file``, ``scale``, ``phase``, ``gt_size``, ``use_hflip``, ``use_rot``,
            ``color``, ``mean``, ``std``; and its own:

            - ``border``: 'replicate' (default) or 'symmetric', see ``data.bicubic.imresize``
            - ``part``: 'train' or 'val', what ``data.held_out`` makes of the images; all by default
            - ``skip_unsuitable``: leave out, with a warning, files that are not images, and images smaller than gt_size
            - ``center_crop``: in validation, use at most this many pixels a side, from the middle

    Raises:
        ValueError: the border is unknown, the scale is not an integer, or an LMDB's name does not end in .lmdb.
        UsageError: no image is suitable.
    """

    makes_lr = True  # as ``protocols.MakesLR``: the check of data sets looks for no LR images

    def __init__(self, opt: dict[str, Any]):
        super().__init__()
        self.opt = opt
        self.file_client = None  # each worker opens its own
        self.io_backend_opt = opt['io_backend']
        self.border = opt.get('border', 'replicate')
        if self.border not in BORDERS:
            raise ValueError(f'border must be one of {", ".join(BORDERS)}, got {self.border!r}')
        if not isinstance(opt['scale'], int):
            raise ValueError(f'scale must be an integer, got {opt["scale"]}')
        root, meta_info = opt['dataroot_gt'], opt.get('meta_info_file')
        if self.io_backend_opt['type'] == 'lmdb':
            if Path(root).suffix != '.lmdb':
                raise ValueError(f'{root} must be a folder whose name ends in .lmdb')
            self.io_backend_opt.update(db_paths=root, client_keys='gt')
            paths = sorted(paths_from_lmdb(root))
        elif meta_info is not None:
            pairs = paired_paths_from_meta_info_file([root, root], ['lq', 'gt'], meta_info, '{}')
            paths = [pair['gt_path'] for pair in pairs]
        else:
            paths = paths_from_folder(root)
        self.warnings: list[str] = []
        if opt.get('skip_unsuitable'):
            paths = self.suitable(paths)
        if part := opt.get('part'):
            paths = self.part(paths, part)
        self.paths = [{'gt_path': path} for path in paths]

    def suitable(self, paths: list[str]) -> list[str]:
        """The images of at least gt_size that can be read; the others are in the warnings.

        Raises:
            UsageError: there are none.
        """
        root, smallest = self.opt['dataroot_gt'], self.opt.get('gt_size', 1)
        if self.io_backend_opt['type'] == 'lmdb':
            headers = {path: lmdb_header(shape) for path, shape in lmdb_shapes(Path(root)).items()}
        else:
            headers = {path: header_of_decodable(path) for path in paths}
            folders = sorted(path.name for path in Path(root).iterdir() if path.is_dir())
            headers |= {name: 'is a folder: subfolders are not searched' for name in folders if name[0] != '.'}
        problems = {path: header for path, header in headers.items() if isinstance(header, str)}
        problems |= {
            path: f'is {header.height}×{header.width}, smaller than gt_size {smallest}'
            for path, header in headers.items()
            if isinstance(header, Header) and min(header.height, header.width) < smallest
        }
        left = [path for path in paths if path not in problems]
        found = first_few(f'{Path(path).name} {problem}' for path, problem in problems.items())
        name = f'data set {self.opt["name"]}'
        if not left:
            raise UsageError('\n  '.join([f'{name}: no image in {root} is suitable', *found]))
        if self.opt['phase'] == 'train' or 'part' not in self.opt:  # once for both parts
            if problems:
                self.warnings.append(f'{name}: left out of {root}: {", ".join(found)}')
            pixels = sum(headers[path].height * headers[path].width for path in left)
            if self.opt['phase'] == 'train' and pixels > LARGE * len(left) and self.io_backend_opt['type'] == 'disk':
                self.warnings.append(self.advice(pixels, len(left)))
        return left

    def advice(self, pixels: int, count: int) -> str:
        """What to do if decoding large images keeps the training waiting."""
        root, gt_size = self.opt['dataroot_gt'], self.opt['gt_size']
        size, step = (SUB_IMAGE, STEP) if gt_size <= SUB_IMAGE else (2 * gt_size, gt_size)
        lmdb = shlex.quote(f'{self.opt["name"]}.lmdb')
        disk = pixels * 3 * (size / step) ** 2 / 1e9
        return (
            f'data set {self.opt["name"]}: every crop decodes an image of {pixels / count / 1e6:.0f} megapixels; to '
            f'read sub-images instead, many times as fast (about {disk:.1f} GB): basicsr prepare lmdb '
            f'{shlex.quote(root)} {lmdb} --size {size} --step {step} --skip-small --encoding bmp; then --hr {lmdb}'
        )

    def part(self, paths: list[str], part: str) -> list[str]:
        train, val = split(paths)
        if part == 'train':
            names = ', '.join(first_few(Path(path).name for path in val))
            note = f'{len(train)} images to train on; held out for validation: {names}'
            if train == paths:
                note = f'{names} is its only photograph: it is trained on and validated on; give others with --val'
            self.warnings.append(f'data set {self.opt["name"]}: {note}')
        return {'train': train, 'val': val}[part]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """'gt': C×sH×sW and 'lq': C×H×W, RGB or Y, float32 in [0, 1] before mean and std; and 'gt_path', 'lq_path'."""
        if self.file_client is None:
            self.file_client = FileClient(self.io_backend_opt.pop('type'), **self.io_backend_opt)
        path, scale = self.paths[index]['gt_path'], self.opt['scale']
        gt = crop_to_multiple(imfrombytes(self.file_client.get(path, 'gt')), scale)
        lq = LR(gt, scale, self.border)
        if self.opt['phase'] == 'train':
            gt, lq = paired_random_crop(gt, lq, self.opt['gt_size'], scale, path)
        else:
            side = self.opt.get('center_crop') or max(gt.shape)
            rows, columns = (middle(length, max(1, side // scale)) for length in lq.shape[:2])
            lq = lq[rows, columns]
            gt = gt[rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]
        images = [image.astype(np.float32) / 255 for image in (gt, lq)]
        if self.opt['phase'] == 'train':
            images = augment(images, self.opt['use_hflip'], self.opt['use_rot'])
        if self.opt.get('color') == 'y':
            images = [bgr2ycbcr(image, y_only=True)[..., None] for image in images]
        gt, lq = img2tensor(images)
        mean, std = self.opt.get('mean'), self.opt.get('std')
        if mean is not None or std is not None:
            normalize(lq, mean, std, inplace=True)
            normalize(gt, mean, std, inplace=True)
        return {'lq': lq, 'gt': gt, 'lq_path': path, 'gt_path': path}


def middle(length: int, most: int) -> slice:
    start = max(0, (length - most) // 2)
    return slice(start, min(length, start + most))


def header_of_decodable(path: str) -> Header | str:
    """An image's header, or why it cannot be read."""
    header = header_or_problem(Path(path))
    if isinstance(header, str):
        return header
    if not cv2.haveImageReader(path):
        return 'is in a format that cv2 does not read'
    return f'is {header.kind}: convert it to 8 bits' if header.kind.startswith(NOT_READ) else header

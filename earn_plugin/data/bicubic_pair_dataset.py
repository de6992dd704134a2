"""Training pairs from HR images alone: the LR image is made when a sample is read."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.data.data_util import paired_paths_from_meta_info_file, paths_from_folder, paths_from_lmdb
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import FileClient, bgr2ycbcr, imfrombytes, img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from earn_plugin.data.bicubic import BORDERS, crop_to_multiple, imresize
from earn_plugin.data.photographs import part_of, suitable


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
            paths, self.warnings = suitable(paths, opt)
        if opt.get('part'):
            paths, notes = part_of(paths, opt)
            self.warnings += notes
        self.paths = [{'gt_path': path} for path in paths]

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

"""Set5, Set14, B100 and Urban100, the test sets of the recipes, from any layout in which they are distributed."""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from earn_plugin.data.bicubic import BORDERS, imresize
from earn_plugin.data.folder_or_lmdb import Folder
from earn_plugin.data.image_files import read_image
from earn_plugin.errors import UserError
from earn_plugin.prepare.archives import SourceImage, gather
from earn_plugin.prepare.data_tree import CroppedPNG, DataTree
from earn_plugin.prepare.resumable_folder import check_complete, read_manifest

PAGE = 'https://cv.snu.ac.kr/research/EDSR/benchmark.tar'
ARCHIVES = 'benchmark|Set5|Set14|B100|BSDS?100|Urban100|SelfExSR|RCAN|HR'
COUNTS = {'Set5': 5, 'Set14': 14, 'B100': 100, 'Urban100': 100}
KNOWN_AS = {'B100': '(B100|BSD100|BSDS100)'}


def make_benchmark(tree: DataTree, scales: Sequence[int], counts: dict[str, int] = COUNTS) -> None:
    """GTmod12 of each test set and its LR images; for ×8 GTmod8.

    Args:
        scales: of 2, 3, 4 and 8.
        counts: name → number of images.
    """
    for name, count in counts.items():
        for multiple, its_scales in ((12, [scale for scale in scales if scale != 8]), (8, [8] if 8 in scales else [])):
            gt = tree.root / name / f'GTmod{multiple}'
            if its_scales and tree.make(gt, _make_gt, tree=tree, gt=gt, multiple=multiple, count=count):
                for scale in its_scales:
                    lr = gt.with_name(f'LRbicx{scale}')
                    tree.make(lr, _make_lr, tree=tree, gt=gt, lr=lr, scale=scale)


def _make_gt(tree: DataTree, gt: Path, multiple: int, count: int) -> bool:
    if gt.is_dir():
        found = len(Folder(gt).names)
        if found != count and not (tree.allow_missing and found):
            raise UserError(f'{found} images instead of {count}; move it away')
        check_complete(gt)
        return False
    name = gt.parent.name
    versions = _versions(name, tree.images)
    # images that were cropped to a multiple of 2 before give the same as the originals when cropped to one of 12
    usable = [images for cropped_to, images in versions if multiple % cropped_to == 0]
    chosen = next((images for images in usable if len(images) == count), None)
    if not chosen and tree.allow_missing:
        chosen = max(usable, key=len, default=None)
    if chosen:
        images = {f'{stem}.png': image for stem, image in chosen.items()}
        return gather(images, gt, CroppedPNG(multiple), tree.jobs)
    if usable:
        nearest = min(usable, key=lambda images: abs(len(images) - count))
        raise UserError(f'{len(nearest)} images instead of {count} next to {next(iter(nearest.values()))}')
    only = f' except images cropped to a multiple of {versions[0][0]}' if versions else ''
    raise UserError(f'no images of {name} in {tree.place}{only}; benchmark.tar is published at {PAGE}')


def _make_lr(tree: DataTree, gt: Path, lr: Path, scale: int) -> bool:
    """LR images from elsewhere are kept if they equal ours with either border."""
    if not lr.is_dir() or read_manifest(lr):
        return tree.lr(gt, lr, scale)
    names = Folder(lr).names
    tree.check_names(lr, names, Folder(gt).names, 'no images; remove it, and it is created again')
    name = min(names, key=lambda name: (gt / name).stat().st_size)
    hr, image = read_image(gt / name), read_image(lr / name)
    borders = [border for border in BORDERS if np.array_equal(imresize(hr, Fraction(1, scale), border), image)]
    if not borders:
        raise UserError(f'{name} is not the bicubic LR of the image in {gt.name}; move {lr} away')
    print(f'{lr} has border {borders[0]}')
    return False


def _versions(name: str, found: list[SourceImage]) -> list[tuple[int, dict[str, SourceImage]]]:
    """Candidates for a test set, the least cropped first: the multiple that they were cropped to, stem → image."""
    known_as, stem = KNOWN_AS.get(name, name), r'(?P<stem>[^/]+)'
    layouts = (  # of EDSR and BasicSR, BasicSR's cropped ones, SelfExSR's, RCAN's
        rf'{known_as}(_HR|/HR|/original)?/{stem}',
        rf'{known_as}/GTmod(?P<multiple>\d+)/{stem}',
        rf'{known_as}(_SR)?/image_SRF_(?P<multiple>\d)/{stem}_SRF_\d_HR',
        rf'HR/{known_as}/x(?P<multiple>\d)/{stem}_HR_x\d',
    )
    versions = {}
    for number, layout in enumerate(layouts):
        pattern = re.compile(rf'(^|/){layout}\.\w+$', re.IGNORECASE)
        for image in found:
            match = pattern.search(image.name)
            if match:
                multiple = int(match.groupdict().get('multiple') or 1)
                where = image.file if image.member else '', image.name.rpartition('/')[0]
                versions.setdefault((multiple, number, where), {})[match['stem']] = image
    return [(key[0], images) for key, images in sorted(versions.items(), key=lambda item: item[0][:2])]

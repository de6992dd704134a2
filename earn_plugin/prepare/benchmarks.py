"""The test sets of the recipes, from any of the layouts in which they are handed on."""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from earn_plugin.data.bicubic import BORDERS, imresize
from earn_plugin.data.image_files import read_image
from earn_plugin.prepare.archives import SourceImage, gather
from earn_plugin.prepare.data_tree import Cut, Preparation, names_in
from earn_plugin.prepare.resumable_folder import manifest_of

PAGE = 'https://cv.snu.ac.kr/research/EDSR/benchmark.tar'
COUNTS = {'Set5': 5, 'Set14': 14, 'B100': 100, 'Urban100': 100}
KNOWN_AS = {'B100': '(B100|BSD100|BSDS100)'}
ARCHIVES = {'benchmark': 'benchmark|Set5|Set14|B100|BSDS?100|Urban100|SelfExSR|RCAN|HR'}  # what their names begin with


def benchmark(work: Preparation, scales: Sequence[int], counts: dict[str, int] = COUNTS) -> None:
    """Of each test set GTmod12 and the LR images made of it; for ×8 GTmod8.

    Args:
        scales: of 2, 3, 4 and 8.
        counts: name → number of images.
    """
    for name, count in counts.items():
        versions = _versions(name, work.found)
        for multiple, those in ((12, [scale for scale in scales if scale != 8]), (8, [8] if 8 in scales else [])):
            gt = work.out / name / f'GTmod{multiple}'
            if those and _ground_truth(work, gt, multiple, versions, count):
                for scale in those:
                    _lr(work, gt, scale)


def _ground_truth(
    work: Preparation, gt: Path, multiple: int, versions: list[tuple[int, dict[str, SourceImage]]], count: int
) -> bool:
    if gt.is_dir():
        print(f'{gt} is there already')
        there = len(names_in(gt))
        if there != count and not (work.allow_missing and there):
            work.note(gt, f'{there} images instead of {count}; move it elsewhere')
            return False
        return True
    # what was cut to a multiple of 2 before gives the same as the whole when it is cut to one of 12
    serving = [images for cut, images in versions if multiple % cut == 0]
    chosen = next((images for images in serving if len(images) == count), None)
    if not chosen and work.allow_missing:
        chosen = max(serving, key=len, default=None)
    if chosen:
        images = {f'{stem}.png': image for stem, image in chosen.items()}
        return work.make(gt, lambda: gather(images, gt, Cut(multiple), work.jobs))
    if serving:
        nearest = min(serving, key=lambda images: abs(len(images) - count))
        work.note(gt, f'{len(nearest)} images instead of {count} where {next(iter(nearest.values()))} is')
    else:
        only = f' but what is cut to a multiple of {versions[0][0]}' if versions else ''
        work.note(gt, f'no images of {gt.parent.name} in {work.place}{only}; benchmark.tar is published at {PAGE}')
    return False


def _lr(work: Preparation, gt: Path, scale: int) -> None:
    """What others have made is taken if it is what we would make, with either border."""
    lr = gt.with_name(f'LRbicx{scale}')
    if not lr.is_dir() or manifest_of(lr):
        work.make(lr, lambda: work.lr(gt, lr, scale))
    elif work.is_whole(lr, names_in(lr), names_in(gt), 'no images; remove it, and it is made'):
        name = min(names_in(lr), key=lambda name: (gt / name).stat().st_size)
        hr, image = read_image(gt / name), read_image(lr / name)
        borders = [b for b in BORDERS if np.array_equal(imresize(hr, Fraction(1, scale), b), image)]
        if borders:
            print(f'{lr} is there already, border {borders[0]}')
        else:
            work.note(lr, f'{name} is not what bicubic makes of it in {gt.name}; move {lr} elsewhere')


def _versions(name: str, found: list[SourceImage]) -> list[tuple[int, dict[str, SourceImage]]]:
    """What may be a test set, the least cut first: what the sizes are multiples of, stem → image."""
    known_as, image = KNOWN_AS.get(name, name), r'(?P<stem>[^/]+)'
    layouts = (  # of EDSR and BasicSR, BasicSR's cut ones, SelfExSR's, RCAN's
        rf'{known_as}(_HR|/HR|/original)?/{image}',
        rf'{known_as}/GTmod(?P<cut>\d+)/{image}',
        rf'{known_as}(_SR)?/image_SRF_(?P<cut>\d)/{image}_SRF_\d_HR',
        rf'HR/{known_as}/x(?P<cut>\d)/{image}_HR_x\d',
    )
    versions = {}
    for number, layout in enumerate(layouts):
        pattern = re.compile(rf'(^|/){layout}\.\w+$', re.IGNORECASE)
        for image in found:
            match = pattern.search(image.name)
            if match:
                cut = int(match.groupdict().get('cut') or 1)
                where = image.file if image.member else '', image.name.rpartition('/')[0]
                versions.setdefault((cut, number, where), {})[match['stem']] = image
    return [(key[0], images) for key, images in sorted(versions.items(), key=lambda item: item[0][:2])]

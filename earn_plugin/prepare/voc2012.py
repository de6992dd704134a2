"""VOC2012 from its archive: LMDBs of complete images, for the GAN of RK4-RDN."""

from collections.abc import Sequence
from pathlib import Path

from earn_plugin.errors import UserError
from earn_plugin.prepare.archives import gather
from earn_plugin.prepare.data_tree import INTERMEDIATE, CroppedPNG, DataTree
from earn_plugin.prepare.lmdb import make_lmdb

PAGE = 'http://host.robots.ox.ac.uk/pascal/VOC/voc2012/'
ARCHIVES = 'VOC'


def make_voc2012(tree: DataTree, scales: Sequence[int], images: int = 17_125, first: int = 16_700) -> None:
    """The LMDBs of the first images of VOC2012, without images smaller than the GAN's patches.

    Args:
        scales: of 2, 3 and 4.
        images: how many VOC2012 has.
        first: how many the paper uses; it does not say which.
    """
    root = tree.root / 'VOC2012'
    gt = root / INTERMEDIATE / 'GTmod12'
    photographs = tree.matching(r'(^|/)JPEGImages/(?P<name>\d{4}_\d{6})\.jpg$')

    def make(folder: Path, lmdb: Path, scale: int) -> bool:
        if not photographs:
            archive = 'VOCtrainval_11-May-2012.tar'
            raise UserError(f'no images, {archive} is not in {tree.place}; it is published at {PAGE}')
        if len(photographs) != images and not tree.allow_missing:
            raise UserError(f'{len(photographs):,} images instead of {images:,} are in {tree.place}')
        chosen = sorted(photographs.items())[:first]
        gather({f'{name}.png': image for name, image in chosen}, gt, CroppedPNG(12, smallest=88), tree.jobs)
        if scale > 1:
            tree.lr(gt, folder, scale)
        return make_lmdb(folder, lmdb, jobs=tree.jobs)

    for scale in (1, *scales):
        folder = gt.with_name(f'LRbicx{scale}') if scale > 1 else gt
        lmdb = root / f'{folder.name}.lmdb'
        tree.make_once(lmdb, make, folder=folder, lmdb=lmdb, scale=scale)

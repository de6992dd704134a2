"""DIV2K from its zips: the images as published, and LMDBs of their sub-images (datasets/README.md shows the tree)."""

from collections.abc import Sequence
from pathlib import Path

from earn_plugin.prepare.data_tree import DataTree, intermediate
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.published_pairs import SIZE, STEP, PublishedPairs, make_sub_lmdb
from earn_plugin.prepare.subimages import SubImages

PAGE = 'https://data.vision.ee.ethz.ch/cvl/DIV2K/'
ARCHIVES = 'DIV2K'  # how the names of its archives begin
# EDSR's archive has the validation images in the same folder
TRAIN = PublishedPairs('DIV2K_train', 'DIV2K_(train|valid)', 4, '{}.zip', PAGE)
VALID = PublishedPairs('DIV2K_valid', 'DIV2K_(train|valid)', 4, '{}.zip', PAGE)


def make_div2k(
    tree: DataTree, scales: Sequence[int], train: Sequence[int] = range(1, 801), valid: Sequence[int] = range(801, 901)
) -> None:
    """DIV2K's images and the LMDBs of their sub-images; with scale 4 also the validation images.

    Args:
        scales: of 2, 3, 4 and 8. DIV2K's images for ×8 have rounded-up sizes and do not pair: they are always made.
        train, valid: the numbers of the images.
    """
    root = tree.root / 'DIV2K'
    published = [scale for scale in scales if scale != 8]
    folders = TRAIN.make_folders(tree, root, train, published)
    if published:
        for scale, folder in folders.items():
            lmdb = root / f'{TRAIN.name(scale)}_sub.lmdb'
            tree.make(lmdb, lambda f=folder, to=lmdb, s=scale: make_sub_lmdb(tree, f, to, s))
    if 8 in scales and 1 in folders:
        _make_x8(tree, root, folders[1])
    if 4 in scales:
        VALID.make_folders(tree, root, valid, [4])


def _make_x8(tree: DataTree, root: Path, hr: Path) -> None:
    lr = intermediate(root) / 'DIV2K_train_LRbicx8'
    hr_lmdb, lr_lmdb = root / 'DIV2K_train_HRmod8_sub.lmdb', root / 'DIV2K_train_LRbicx8_sub.lmdb'
    jobs = tree.settings.jobs

    def make_lr_lmdb() -> bool:
        tree.lr(hr, lr, 8)
        return make_lmdb(lr, lr_lmdb, SubImages(SIZE // 8, STEP // 8), jobs=jobs)

    tree.make(hr_lmdb, lambda: make_lmdb(hr, hr_lmdb, SubImages(SIZE, STEP, multiple=8), jobs=jobs))
    tree.make_once(lr_lmdb, make_lr_lmdb)

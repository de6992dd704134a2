"""Flickr2K from its archive, and DF2K: LMDBs of the sub-images of DIV2K and Flickr2K together."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from earn_plugin.data.folder_or_lmdb import Folder
from earn_plugin.prepare import div2k
from earn_plugin.prepare.archives import SourceImage, gather
from earn_plugin.prepare.data_tree import INTERMEDIATE, DataTree

ARCHIVES = 'DIV2K|Flickr2K'
PAGE = 'https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar'
FLICKR2K = div2k.PublishedPairs('Flickr2K', 'Flickr2K', 6, 'Flickr2K.tar', PAGE)


def make_flickr2k(
    tree: DataTree, scales: Sequence[int], train: Iterable[int] = range(1, 801), flickr: Iterable[int] = range(1, 2651)
) -> None:
    """The images of Flickr2K and DIV2K, and the LMDBs of the sub-images of both.

    Args:
        scales: of 2, 3 and 4.
        train, flickr: the numbers of the images of DIV2K and of Flickr2K.
    """
    root = tree.root / 'DF2K'
    parts = (
        div2k.TRAIN.make_folders(tree, tree.root / 'DIV2K', train, scales),
        FLICKR2K.make_folders(tree, tree.root / 'Flickr2K', flickr, scales),
    )
    for scale in (1, *scales):
        name = div2k.TRAIN.name(scale).replace('DIV2K', 'DF2K')
        if all(scale in part for part in parts):
            lmdb, folders = root / f'{name}_sub.lmdb', [part[scale] for part in parts]
            tree.make_once(lmdb, _make_lmdb, tree=tree, folders=folders, lmdb=lmdb, scale=scale)


def _make_lmdb(tree: DataTree, folders: Iterable[Path], lmdb: Path, scale: int) -> bool:
    both = lmdb.parent / INTERMEDIATE / lmdb.stem
    images = {name: SourceImage(folder / name) for folder in folders for name in Folder(folder).names}
    gather(images, both, jobs=tree.jobs)
    return div2k.make_sub_lmdb(tree, both, lmdb, scale)

"""Flickr2K from its archive, and DF2K: LMDBs of the sub-images of DIV2K and Flickr2K together."""

from collections.abc import Sequence

from earn_plugin.prepare import div2k
from earn_plugin.prepare.archives import SourceImage, gather
from earn_plugin.prepare.data_tree import DataTree, intermediate, visible_files
from earn_plugin.prepare.published_pairs import PublishedPairs, make_sub_lmdb

ARCHIVES = 'DIV2K|Flickr2K'
FLICKR2K = PublishedPairs('Flickr2K', 'Flickr2K', 6, 'Flickr2K.tar', 'https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar')


def make_flickr2k(
    tree: DataTree, scales: Sequence[int], train: Sequence[int] = range(1, 801), flickr: Sequence[int] = range(1, 2651)
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
        lmdb, both = root / f'{name}_sub.lmdb', intermediate(root) / name

        def make(scale=scale, lmdb=lmdb, both=both) -> bool:
            folders = [part[scale] for part in parts]
            images = {n: SourceImage(folder / n, '', n, 0, 0) for folder in folders for n in visible_files(folder)}
            gather(images, both, jobs=tree.settings.jobs)
            return make_sub_lmdb(tree, both, lmdb, scale)

        if all(scale in part for part in parts):
            tree.make_once(lmdb, make)

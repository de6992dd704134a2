"""DIV2K from its zips, which ``archives`` unpacks: the images as published, and LMDBs of their sub-images.

datasets/README.md shows the tree.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from earn_plugin.data.folder_or_lmdb import Folder, first_few
from earn_plugin.data.image_headers import read_header
from earn_plugin.errors import UserError
from earn_plugin.prepare.archives import gather
from earn_plugin.prepare.data_tree import INTERMEDIATE, DataTree
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.resumable_folder import check_complete
from earn_plugin.prepare.subimages import SubImages

ARCHIVES = 'DIV2K'  # how the names of its archives begin
SIZE, STEP = 480, 240  # of the HR sub-images; 2, 3, 4 and 8 divide both


@dataclass(frozen=True)
class PublishedPairs:
    """HR and LR images as their authors publish them, in the folders STEM_HR and STEM_LR_bicubic/X2, X3, X4."""

    stem: str
    known_as: str  # pattern of the stems under which the images are found
    digits: int  # of the numbers that name the images
    archive: str  # its name; {} stands for STEM_HR, STEM_LR_bicubic_X2, …
    page: str  # where it is published

    def name(self, scale: int) -> str:
        return f'{self.stem}_HR' if scale == 1 else f'{self.stem}_LR_bicubic_X{scale}'

    def make_folders(
        self, tree: DataTree, root: Path, numbers: Iterable[int], scales: Sequence[int]
    ) -> dict[int, Path]:
        """The folders of the HR images (key 1) and of the LR images of each scale that exist and are complete."""
        folders: dict[int, Path] = {}
        for scale in (1, *scales):
            folder = root / self.name(scale).replace('_X', '/X')
            arguments = {'tree': tree, 'folder': folder, 'numbers': numbers, 'scale': scale, 'hr': folders.get(1)}
            if tree.make(folder, self._make_folder, **arguments):
                folders[scale] = folder
            if 1 in folders:  # with --allow-missing only the existing images need their LR
                numbers = [int(Path(name).stem) for name in Folder(folders[1]).names]
        return folders

    def _make_folder(
        self, *, tree: DataTree, folder: Path, numbers: Iterable[int], scale: int, hr: Path | None
    ) -> bool:
        """Link or unpack the images as published; an existing folder is only checked."""
        suffix = _suffix(scale)
        expected = [f'{number:0{self.digits}d}{suffix}.png' for number in numbers]
        is_new = not folder.is_dir()
        if is_new:
            where = 'HR' if scale == 1 else rf'LR_bicubic(_X{scale})?(/X{scale})?'
            images = tree.matching(rf'(^|/){self.known_as}_{where}/(?P<name>\d{{{self.digits}}}{suffix}\.png)$')
            images = {name: images[name] for name in expected if name in images}
            if tree.make_lr and hr and not images:
                return tree.lr(hr, folder, scale, suffix)
            archive = self.archive.format(self.name(scale))
            hint = '; --make-lr makes them by bicubic' if scale > 1 else ''
            if_missing = f'no images, {archive} is not in {tree.place}; it is published at {self.page}{hint}'
            tree.check_names(folder, images, expected, if_missing)
            gather(images, folder, jobs=tree.jobs)
        else:
            if_empty = 'no images, or broken links; remove it, and it is created again'
            tree.check_names(folder, Folder(folder).names, expected, if_empty)
            check_complete(folder)
        if hr:
            _check_pairs(hr, folder, scale)
        return is_new


PAGE = 'https://data.vision.ee.ethz.ch/cvl/DIV2K/'
# EDSR's archive has the validation images in the same folder
TRAIN = PublishedPairs('DIV2K_train', 'DIV2K_(train|valid)', 4, '{}.zip', PAGE)
VALID = PublishedPairs('DIV2K_valid', 'DIV2K_(train|valid)', 4, '{}.zip', PAGE)


def make_div2k(
    tree: DataTree, scales: Sequence[int], train: Iterable[int] = range(1, 801), valid: Iterable[int] = range(801, 901)
) -> None:
    """DIV2K's images and the LMDBs of their sub-images; with scale 4 also the validation images.

    Args:
        scales: of 2, 3, 4 and 8. DIV2K's images for ×8 have rounded-up sizes and do not pair: they are always made.
        train, valid: the numbers of the images.
    """
    root = tree.root / 'DIV2K'
    published = [scale for scale in scales if scale != 8]
    folders = TRAIN.make_folders(tree, root, train, published)
    for scale, folder in folders.items() if published else ():
        lmdb = root / f'{TRAIN.name(scale)}_sub.lmdb'
        tree.make(lmdb, make_sub_lmdb, tree=tree, folder=folder, lmdb=lmdb, scale=scale)
    if 8 in scales and 1 in folders:
        hr, lr = folders[1], root / INTERMEDIATE / 'DIV2K_train_LRbicx8'
        hr_lmdb, lr_lmdb = root / 'DIV2K_train_HRmod8_sub.lmdb', root / 'DIV2K_train_LRbicx8_sub.lmdb'

        def make_lr_lmdb() -> bool:
            tree.lr(hr, lr, 8)
            return make_lmdb(lr, lr_lmdb, SubImages(SIZE // 8, STEP // 8), jobs=tree.jobs)

        tree.make(hr_lmdb, lambda: make_lmdb(hr, hr_lmdb, SubImages(SIZE, STEP, multiple=8), jobs=tree.jobs))
        tree.make_once(lr_lmdb, make_lr_lmdb)
    if 4 in scales:
        VALID.make_folders(tree, root, valid, [4])


def make_sub_lmdb(tree: DataTree, folder: Path, lmdb: Path, scale: int) -> bool:
    """Published LR images have rounded-up sizes: HR is cropped to a multiple of 12 and LR alike, so that they pair."""
    settings = SubImages(SIZE // scale, STEP // scale, _suffix(scale), multiple=12 // scale)
    return make_lmdb(folder, lmdb, settings, jobs=tree.jobs)


def _check_pairs(hr: Path, lr: Path, scale: int) -> None:
    """Check that LR images are 1/``scale`` of their HR images once both are cropped as ``make_sub_lmdb`` crops them."""
    wrong = []
    for name in Folder(lr).names:
        path = hr / name.replace(_suffix(scale), '')
        try:
            large, small = read_header(path), read_header(path := lr / name)
        except ValueError as error:
            raise UserError(f'{path} {error}') from error
        sides = (large.height, small.height), (large.width, small.width)
        if any(abs(low * scale - high) >= scale or high // 12 != low // (12 // scale) for high, low in sides):
            wrong.append(name)
    if wrong:
        names = ', '.join(first_few(wrong, 5))
        raise UserError(f'{len(wrong)} images are not 1/{scale} of those in {hr.name}: {names}')


def _suffix(scale: int) -> str:
    return f'x{scale}' if scale > 1 else ''

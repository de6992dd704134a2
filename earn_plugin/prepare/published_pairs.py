"""HR and LR images as their authors publish them, and the LMDBs of their sub-images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from earn_plugin.data.folder_or_lmdb import first_few
from earn_plugin.data.image_headers import read_header
from earn_plugin.prepare.data_tree import DataTree, visible_files
from earn_plugin.prepare.lmdb import make_lmdb
from earn_plugin.prepare.subimages import SubImages

SIZE, STEP = 480, 240  # of the HR sub-images; 2, 3, 4 and 8 divide both


@dataclass(frozen=True)
class PublishedPairs:
    """HR and LR images in the folders STEM_HR and STEM_LR_bicubic/X2, X3, X4."""

    stem: str
    known_as: str  # pattern of the stems under which the images are found
    digits: int  # of the numbers that name the images
    archive: str  # its name; {} stands for STEM_HR, STEM_LR_bicubic_X2, …
    page: str  # where it is published

    def name(self, scale: int) -> str:
        return f'{self.stem}_HR' if scale == 1 else f'{self.stem}_LR_bicubic_X{scale}'

    def files(self, numbers: Iterable[int], scale: int) -> list[str]:
        return [f'{number:0{self.digits}d}{_suffix(scale)}.png' for number in numbers]

    def pattern(self, scale: int) -> str:
        where = 'HR' if scale == 1 else rf'LR_bicubic(_X{scale})?(/X{scale})?'
        return rf'(^|/){self.known_as}_{where}/(?P<name>\d{{{self.digits}}}{_suffix(scale)}\.png)$'

    def make_folders(
        self, tree: DataTree, root: Path, numbers: Sequence[int], scales: Sequence[int]
    ) -> dict[int, Path]:
        """The folders of the HR images (key 1) and of the LR images of each scale that exist and are complete."""
        folders = {}
        for scale in (1, *scales):
            folder = root / self.name(scale).replace('_X', '/X')
            pattern, files = self.pattern(scale), self.files(numbers, scale)
            is_published = folder.exists() or not tree.matching(pattern).keys().isdisjoint(files)
            if tree.settings.make_lr and scale > 1 and 1 in folders and not is_published:
                exists = tree.make(folder, lambda f=folder, s=scale: tree.lr(folders[1], f, s, _suffix(s)))
            else:
                archive = self.archive.format(self.name(scale))
                if_missing = f'no images, {archive} is not in {tree.place}; it is published at {self.page}'
                if_missing += '; --make-lr makes them by bicubic' if scale > 1 else ''
                exists = tree.originals(folder, pattern, files, if_missing)
            if exists and (scale == 1 or 1 not in folders or _do_pair(tree, folders[1], folder, scale)):
                folders[scale] = folder
            if exists and scale == 1:  # with --allow-missing only the existing images need their LR
                numbers = [int(Path(name).stem) for name in visible_files(folder)]
        return folders


def _do_pair(tree: DataTree, hr: Path, lr: Path, scale: int) -> bool:
    """Whether LR images are 1/``scale`` of their HR images once both are cropped as ``make_sub_lmdb`` crops them."""
    wrong = []
    for name in visible_files(lr):
        path = hr / name.replace(_suffix(scale), '')
        try:
            large, small = read_header(path), read_header(path := lr / name)
        except ValueError as error:
            tree.add_problem(lr, f'{path} {error}')
            return False
        for of_hr, of_lr in ((large.height, small.height), (large.width, small.width)):
            if abs(of_lr * scale - of_hr) >= scale or of_hr // 12 != of_lr // (12 // scale):
                wrong.append(name)
                break
    if wrong:
        names = ', '.join(first_few(wrong, 5))
        tree.add_problem(lr, f'{len(wrong)} images are not 1/{scale} of those in {hr.name}: {names}')
    return not wrong


def make_sub_lmdb(tree: DataTree, folder: Path, lmdb: Path, scale: int) -> bool:
    """Published LR images have rounded-up sizes: HR is cropped to a multiple of 12 and LR alike, so that they pair."""
    settings = SubImages(SIZE // scale, STEP // scale, _suffix(scale), multiple=12 // scale)
    return make_lmdb(folder, lmdb, settings, jobs=tree.settings.jobs)


def _suffix(scale: int) -> str:
    return f'x{scale}' if scale > 1 else ''

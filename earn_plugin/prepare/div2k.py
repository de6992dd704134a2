"""The data sets of the recipes, made from what their authors publish: datasets/README.md shows the tree.

How many images each has is an argument, so that a part of one is a data set, too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from earn_plugin.data.image_headers import read_header
from earn_plugin.errors import UserError
from earn_plugin.prepare.archives import gather
from earn_plugin.prepare.data_tree import Cut, Preparation, files_in, first_of, names_in, on_the_way
from earn_plugin.prepare.lmdb import make_lmdb

DIV2K_PAGE = 'https://data.vision.ee.ethz.ch/cvl/DIV2K/'
FLICKR2K_PAGE = 'https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar'
VOC_PAGE = 'http://host.robots.ox.ac.uk/pascal/VOC/voc2012/'
SIZE, STEP = 480, 240  # of the HR sub-images; 2, 3, 4 and 8 divide both
ARCHIVES = {'div2k': 'DIV2K', 'flickr2k': 'DIV2K|Flickr2K', 'voc2012': 'VOC'}  # what their names begin with


@dataclass(frozen=True)
class Pairs:
    """HR and LR images as they are published: in the folders STEM_HR and STEM_LR_bicubic/X2, X3, X4.

    Attributes:
        known_as: pattern of the stems that the images are found under.
        digits: of the numbers that the images are named by.
        archive: the archive that has STEM_HR, STEM_LR_bicubic_X2, …
    """

    stem: str
    known_as: str
    digits: int
    archive: str
    page: str

    def name(self, scale: int) -> str:
        return f'{self.stem}_HR' if scale == 1 else f'{self.stem}_LR_bicubic_X{scale}'

    def folder(self, scale: int) -> str:
        return self.name(scale).replace('_X', '/X')

    def files(self, numbers: Iterable[int], scale: int) -> list[str]:
        return [f'{number:0{self.digits}d}{_suffix(scale)}.png' for number in numbers]

    def pattern(self, scale: int) -> str:
        where = 'HR' if scale == 1 else rf'LR_bicubic(_X{scale})?(/X{scale})?'
        return rf'(^|/){self.known_as}_{where}/(?P<name>\d{{{self.digits}}}{_suffix(scale)}\.png)$'

    def originals(
        self, work: Preparation, root: Path, numbers: Sequence[int], scales: Sequence[int], bicubic: bool
    ) -> dict[int, Path]:
        """The folders of the HR images (1) and of the LR images of each scale, as far as they are there and whole."""
        folders = {}
        for scale in (1, *scales):
            folder, pattern, files = root / self.folder(scale), self.pattern(scale), self.files(numbers, scale)
            is_published = folder.exists() or not work.matching(pattern).keys().isdisjoint(files)
            if bicubic and scale > 1 and 1 in folders and not is_published:
                is_there = work.make(folder, lambda f=folder, s=scale: work.lr(folders[1], f, s, _suffix(s)))
            else:
                archive = self.archive.format(self.name(scale))
                nothing = f'no images, {archive} is not in {work.place}; it is published at {self.page}'
                nothing += '; --make-lr makes them by bicubic' if scale > 1 else ''
                is_there = work.originals(folder, pattern, files, nothing)
            if is_there and (scale == 1 or 1 not in folders or _do_pair(work, folders[1], folder, scale)):
                folders[scale] = folder
            if is_there and scale == 1:  # if images may be missing: those that are there need their LR
                numbers = [int(Path(name).stem) for name in names_in(folder)]
        return folders


def _do_pair(work: Preparation, hr: Path, lr: Path, scale: int) -> bool:
    """Whether LR images are 1/``scale`` of their HR images once both are cut as ``_sub_lmdb`` cuts; if not, noted."""
    wrong = []
    for name in names_in(lr):
        path = hr / name.replace(_suffix(scale), '')
        try:
            large, small = read_header(path), read_header(path := lr / name)
        except ValueError as error:
            work.note(lr, f'{path} {error}')
            return False
        for of_hr, of_lr in ((large.height, small.height), (large.width, small.width)):
            if abs(of_lr * scale - of_hr) >= scale or of_hr // 12 != of_lr // (12 // scale):
                wrong.append(name)
                break
    if wrong:
        work.note(lr, f'{len(wrong)} images are not 1/{scale} of those in {hr.name}: {first_of(wrong)}')
    return not wrong


def _sub_lmdb(work: Preparation, images: Path, lmdb: Path, scale: int) -> bool:
    """Published LR images are rounded up in size. HR is cut to a multiple of 12 and LR alike, so that squares pair."""
    size, step = SIZE // scale, STEP // scale
    return make_lmdb(images, lmdb, size, step, _suffix(scale), multiple=12 // scale, jobs=work.jobs)


# the archive of EDSR has the validation images in the same folder
DIV2K_TRAIN = Pairs('DIV2K_train', 'DIV2K_(train|valid)', 4, '{}.zip', DIV2K_PAGE)
DIV2K_VALID = Pairs('DIV2K_valid', 'DIV2K_(train|valid)', 4, '{}.zip', DIV2K_PAGE)
FLICKR2K = Pairs('Flickr2K', 'Flickr2K', 6, 'Flickr2K.tar', FLICKR2K_PAGE)


def div2k(
    work: Preparation,
    scales: Sequence[int],
    bicubic: bool = False,
    train: Sequence[int] = range(1, 801),
    valid: Sequence[int] = range(801, 901),
) -> None:
    """DIV2K's images and the LMDBs of their sub-images; with scale 4 the validation images, too.

    Args:
        scales: of 2, 3, 4 and 8. DIV2K's images for ×8 are rounded up in size and pair with nothing: those are made.
        bicubic: make the LR images that are not in ``work.place``.
        train, valid: the numbers of the images.
    """
    root = work.out / 'DIV2K'
    published = [scale for scale in scales if scale != 8]
    folders = DIV2K_TRAIN.originals(work, root, train, published, bicubic)
    if published:
        for scale, folder in folders.items():
            lmdb = root / f'{DIV2K_TRAIN.name(scale)}_sub.lmdb'
            work.make(lmdb, lambda f=folder, to=lmdb, s=scale: _sub_lmdb(work, f, to, s))
    if 8 in scales and 1 in folders:
        _div2k_x8(work, root, folders[1])
    if 4 in scales:
        DIV2K_VALID.originals(work, root, valid, [4], bicubic)


def _div2k_x8(work: Preparation, root: Path, hr: Path) -> None:
    lr = on_the_way(root) / 'DIV2K_train_LRbicx8'
    hr_lmdb, lr_lmdb = root / 'DIV2K_train_HRmod8_sub.lmdb', root / 'DIV2K_train_LRbicx8_sub.lmdb'

    def make_lr_lmdb() -> bool | None:
        if lr_lmdb.exists():
            return False
        work.lr(hr, lr, 8)
        return make_lmdb(lr, lr_lmdb, SIZE // 8, STEP // 8, jobs=work.jobs)

    work.make(hr_lmdb, lambda: make_lmdb(hr, hr_lmdb, SIZE, STEP, multiple=8, jobs=work.jobs))
    work.make(lr_lmdb, make_lr_lmdb)


def flickr2k(
    work: Preparation,
    scales: Sequence[int],
    bicubic: bool = False,
    train: Sequence[int] = range(1, 801),
    flickr: Sequence[int] = range(1, 2651),
) -> None:
    """The images of Flickr2K and of DIV2K, and DF2K: the LMDBs of the sub-images of both.

    Args:
        scales: of 2, 3 and 4.
        bicubic: make the LR images that are not in ``work.place``.
        train, flickr: the numbers of the images of DIV2K and of Flickr2K.
    """
    root = work.out / 'DF2K'
    parts = (
        DIV2K_TRAIN.originals(work, work.out / 'DIV2K', train, scales, bicubic),
        FLICKR2K.originals(work, work.out / 'Flickr2K', flickr, scales, bicubic),
    )
    for scale in (1, *scales):
        name = DIV2K_TRAIN.name(scale).replace('DIV2K', 'DF2K')
        lmdb, both = root / f'{name}_sub.lmdb', on_the_way(root) / name

        def make(scale=scale, lmdb=lmdb, both=both) -> bool:
            if lmdb.exists():
                return False
            gather(files_in(parts[0][scale]) | files_in(parts[1][scale]), both, jobs=work.jobs)
            return _sub_lmdb(work, both, lmdb, scale)

        if all(scale in folders for folders in parts):
            work.make(lmdb, make)


def voc2012(work: Preparation, scales: Sequence[int], images: int = 17_125, taken: int = 16_700) -> None:
    """The LMDBs of the first images of VOC2012, whole; an image smaller than the GAN's patches is left out.

    Args:
        scales: of 2, 3 and 4.
        images: how many VOC2012 has.
        taken: how many the paper has; which ones is not known to us.
    """
    root = work.out / 'VOC2012'
    gt = on_the_way(root) / 'GTmod12'
    photographs = work.matching(r'(^|/)JPEGImages/(?P<name>\d{4}_\d{6})\.jpg$')

    def make(folder: Path, lmdb: Path, scale: int) -> bool:
        if lmdb.exists():
            return False
        if not photographs:
            archive = 'VOCtrainval_11-May-2012.tar'
            raise UserError(f'no images, {archive} is not in {work.place}; it is published at {VOC_PAGE}')
        if len(photographs) != images and not work.allow_missing:
            raise UserError(f'{len(photographs):,} images instead of {images:,} are in {work.place}')
        first = sorted(photographs.items())[:taken]
        gather({f'{name}.png': image for name, image in first}, gt, Cut(12, smallest=88), work.jobs)
        if scale > 1:
            work.lr(gt, folder, scale)
        return make_lmdb(folder, lmdb, jobs=work.jobs)

    for scale in (1, *scales):
        folder = on_the_way(root) / f'LRbicx{scale}' if scale > 1 else gt
        lmdb = root / f'{folder.name}.lmdb'
        work.make(lmdb, lambda folder=folder, lmdb=lmdb, scale=scale: make(folder, lmdb, scale))


def _suffix(scale: int) -> str:
    return f'x{scale}' if scale > 1 else ''

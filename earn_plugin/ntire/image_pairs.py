"""The images of a year, found in its layout."""

from pathlib import Path
from typing import NamedTuple

from earn_plugin.data.folder_or_lmdb import first_few
from earn_plugin.data.image_files import images_in
from earn_plugin.errors import UserError
from earn_plugin.ntire.years import Layout, Year

NAMED = 3  # file names that a message lists


class PairPaths(NamedTuple):
    lr: Path
    hr: Path


def find_pairs(
    data_dir: Path, layouts: tuple[Layout, ...], split: str, limit: int | None
) -> tuple[list[PairPaths], list[str]]:
    """The images of a split in order of their names, and warnings.

    Raises:
        UserError: a folder is missing or empty, an image has no LR, or a link is broken.
    """
    layout = next((layout for layout in layouts if (data_dir / layout.hr).is_dir()), layouts[0])
    hr, lr = data_dir / layout.hr, data_dir / layout.lr
    expected = f'the {split} images are {layout.hr}/NAME.png and {layout.lr}/NAME{layout.suffix}.png in --data-dir'
    for folder in (hr, lr):
        if not folder.is_dir():
            raise UserError(f'{folder} does not exist; {expected}')
    listed = images_in(hr) if any(hr.iterdir()) else []
    found = [path for path in listed if path.suffix == '.png']
    images = [path for path in found if layout.belongs(path.stem)]
    if not images:
        numbers = layout.numbers
        named = f' named {numbers[0]:04}.png to {numbers[-1]:04}.png' if numbers and found else ''
        raise UserError(f'{hr} has no PNG images{named}; {expected}')
    pairs = [PairPaths(lr / f'{path.stem}{layout.suffix}.png', path) for path in images]
    warnings = []
    if others := [path.name for path in listed if path not in images]:
        named = ', '.join(first_few(others, NAMED))
        warnings.append(f'{hr}: not measured, as by the official script: {named}; it takes the official names, in .png')
    if layout.images and len(pairs) != layout.images:
        warnings.append(f'{hr} has {len(pairs)} of the official {layout.images} images')
    if limit is not None and limit < len(pairs):
        warnings.append(f'--limit: {limit} of the {len(pairs)} images of {split}')
        pairs = pairs[:limit]
    missing = [pair.lr for pair in pairs if not pair.lr.is_file()]
    if missing:
        raise UserError(f'{len(missing)} LR images of {hr} are missing, the first is {missing[0]}')
    return pairs, warnings


def check_path(data_dir: str, year: Year, splits: tuple[str, ...]) -> list[str]:
    """Warnings of a path that the organisers' script would misread: it replaces _HR and .png anywhere in the path."""
    by_rule = any(layout.numbers is None for split in splits for layout in year.splits[split][:1])
    parts = [part for part in ('_HR', '.png') if part in data_dir]
    if not parts or not by_rule:
        return []
    looked_in = data_dir.replace('_HR', '_LR').replace('.png', 'x4.png')
    return [
        f'the path {data_dir} contains {" and ".join(parts)}: this works here, but the official script would look for '
        f'the LR images in {looked_in}; rename the folder before you use that script'
    ]

"""A folder of PNG images made from a folder of images, and the checks of those images before any work."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earn_plugin.data.folder_or_lmdb import first_few
from earn_plugin.data.image_files import decode, encode, images_in
from earn_plugin.data.pair_checks import header_or_problem
from earn_plugin.errors import UsageError, UserError
from earn_plugin.prepare.resumable_folder import Files, already_exists, in_threads, recipe_of, resumable_folder, sha256

NamedImage = tuple[str, np.ndarray]  # a name without ending, and an image


def make_png_folder(
    folder: Path,
    target: Path,
    convert: Callable[[Path, np.ndarray], Iterable[NamedImage]],
    settings: dict[str, Any],
    jobs: int | None,
    **needs: Any,
) -> bool:
    """A PNG for each image that ``convert`` makes of each file and its image. False if the target exists already.

    Args:
        settings: identify what is made; ``what`` is its name on the progress bar.
        needs: see ``usable_images``.

    Raises:
        UserError: images cannot be used, or the target is something else.
    """
    sources = images_in(folder)
    recipe = recipe_of(sources, **settings)
    if already_exists(target, recipe, sources):
        return False
    sources = usable_images(sources, jobs, **needs)
    with resumable_folder(target, recipe) as work:

        def write(path: Path) -> tuple[str, Files]:
            files, original = {}, path.read_bytes()
            try:
                decoded = decode(original)
            except ValueError as error:
                raise UserError(f'{path} {error}') from error
            for name, image in convert(path, decoded):
                content = encode(image)
                (work.path / f'{name}.png').write_bytes(content)
                files[f'{name}.png'] = [len(content), sha256(content)]
            return sha256(original), files

        work.forget_lost_files()
        remaining = [path for path in sources if path.name not in work.done]
        counts = {'total': len(sources), 'done': len(work.done)}
        for path, (checksum, files) in in_threads(remaining, write, label=settings['what'], jobs=jobs, **counts):
            work.record(path.name, files, checksum)
    return True


def usable_images(
    sources: Sequence[Path],
    jobs: int | None,
    *,
    smallest: int,
    only_8_bit: bool = False,
    skip_small: bool | None = None,
    suffix: str = '',
) -> list[Path]:
    """The images whose shorter side has ``smallest`` pixels, after a look at all headers.

    Args:
        skip_small: skip smaller images instead of refusing them; None if the user cannot choose.
        suffix: is stripped from the names, which must still differ.

    Raises:
        UserError: lists all images that cannot be used.
    """
    usable, problems, names = [], [], {}
    for path, header in in_threads(sources, header_or_problem, label='headers', total=len(sources), jobs=jobs):
        first = names.setdefault(path.stem.removesuffix(suffix), path.name)
        if first != path.name:
            problems.append(f'{path.name} and {first} would get the same name')
        if isinstance(header, str):
            problems.append(f'{path.name} {header}')
        elif only_8_bit and '16' in header.kind:
            problems.append(f'{path.name} is {header.kind}: convert it to 8 bits')
        elif min(header.height, header.width) >= smallest:
            usable.append(path)
        elif not skip_small:
            problems.append(f'{path.name} is {header.height}×{header.width}, smaller than {smallest}×{smallest}')
    if not problems and not usable:
        problems.append(f'all its images are smaller than {smallest}')
    if problems:
        has_small = any('smaller' in problem for problem in problems)
        hint = ' (--skip-small skips small ones)' if has_small and skip_small is False else ''
        raise UserError('\n  '.join([f'{sources[0].parent} cannot be used{hint}:', *first_few(problems)]))
    return usable


def check_positive(**numbers: int | None) -> None:
    """Raises UsageError for a number below 1."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UsageError(f'{name} must be at least 1, got {number}')

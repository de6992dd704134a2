"""Image pairs checked by name, header and size before training starts, and explanations of failures to read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from earn_plugin.data.folder_or_lmdb import Folder, Problem, first_few, lmdb_header, lmdb_shapes
from earn_plugin.data.image_files import read_image
from earn_plugin.data.image_headers import Header, read_header
from earn_plugin.errors import UsageError, UserError
from earn_plugin.protocols import MakesLR


class NamedHeader(NamedTuple):
    """An image's name for messages, and its header or what is wrong with it."""

    name: str
    header: Header | str


Pair = tuple[NamedHeader, NamedHeader]  # HR and LR


def check_dataset(opt: dict[str, Any], dataset: Any) -> list[str]:
    """Check the images of a data set of pairs; any other data set is only checked not to be empty.

    Args:
        opt: the data set's options, with ``phase`` and ``scale``.
        dataset: the BasicSR data set that was built from them.

    Returns:
        Warnings: images that can be read but are not 8-bit RGB (grey, 16-bit, with alpha).

    Raises:
        UserError: lists every image that cannot be read, has no partner, or does not fit the scale or the crop.
    """
    name = opt['name']
    if not len(dataset):
        raise UserError(f'data set {name} is empty: no image in {opt.get("dataroot_gt") or opt.get("dataroot_lq")}')
    pairs = list(_pairs(opt, dataset))
    scale, gt_size = opt.get('scale'), opt.get('gt_size')
    if pairs and opt['phase'] == 'train' and scale and gt_size and gt_size % scale:
        nearest = max(1, gt_size // scale) * scale
        raise UsageError(f'data set {name}: gt_size must be a multiple of scale {scale}, got {gt_size}; try {nearest}')
    problems = [problem for pair in pairs for problem in pair_problems(pair, opt)]
    if problems:
        count = 'a problem' if len(problems) == 1 else f'{len(problems)} problems'
        needed = opt.get('gt_size' if opt['phase'] == 'train' else 'smallest') or 1
        sides = [min(gt.header[:2]) for gt, _ in pairs if isinstance(gt.header, Header)]
        raised = UsageError if sides and max(sides) < needed else UserError  # if no image is large enough
        raise raised('\n  '.join([f'data set {name} has {count}:', *first_few(problems)]))
    unusual = [f'{image.name} is {image.header.kind}' for pair in pairs for image in pair if image.header.kind]
    return [f'data set {name}: {", ".join(first_few(unusual))}: read as 8-bit RGB'] if unusual else []


def check_pairing(opt: dict[str, Any]) -> None:
    """Check that every HR image of a PairedImageDataset has an LR image, and the reverse.

    BasicSR's data set stops at the first image without a partner and does not say where it is.

    Raises:
        UserError: names the images without a partner, or a folder without images.
    """
    if opt['type'] != 'PairedImageDataset' or opt.get('meta_info_file'):
        return
    roots = Path(opt['dataroot_gt']), Path(opt['dataroot_lq'])
    if opt['io_backend']['type'] == 'lmdb':
        for root in roots:
            if root.suffix != '.lmdb':
                raise UserError(f'data set {opt["name"]}: {root} must be a folder whose name ends in .lmdb')
        gt, lq = (set(lmdb_shapes(root)) for root in roots)
        hint = ''
    else:
        template = opt.get('filename_tmpl', '{}')
        gt = {lq_name(name, template) for name in Folder(roots[0]).names}
        lq = set(Folder(roots[1]).names)
        hint = f'\n  (filename_tmpl is {template!r})'
    for root, names in zip(roots, (gt, lq), strict=True):
        if not names:
            raise UserError(f'data set {opt["name"]} is empty: no image in {root}')
    lines = [
        f'  {there} has no {", ".join(first_few(sorted(missing)))}, which {here} needs'
        for missing, here, there in ((gt - lq, *roots), (lq - gt, *roots[::-1]))
        if missing
    ]
    if lines:
        raise UserError('\n'.join([f'data set {opt["name"]}: HR and LR do not pair:', *lines]) + hint)


def lq_name(gt_name: str, template: str) -> str:
    """The name that BasicSR gives the LR image of an HR image.

    Raises:
        UserError: the template is not a format with one placeholder.
    """
    path = Path(gt_name)
    try:
        return f'{template.format(path.stem)}{path.suffix}'
    except (ValueError, LookupError, AttributeError, MemoryError) as error:
        raise UserError(f"filename_tmpl must be like '{{}}x4', got {template!r}: {error}") from None


def meta_info_problems(file: Path) -> Iterator[str]:
    """What BasicSR takes for a part of a name, or for a name, in a list of images."""
    try:
        lines = file.read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError) as error:
        yield f'{file} cannot be read: {error}'
        return
    if lines[:1] and lines[0].startswith('\ufeff'):
        yield f'{file}: line 1 begins with a byte order mark: save it as UTF-8 without BOM'
    for number, line in enumerate(lines, 1):
        if not line.strip('\ufeff \t'):
            yield f'{file}: line {number} is blank: remove it'
            return
    if not lines:
        yield f'{file} is empty: it names no image'


def _pairs(opt: dict[str, Any], dataset: Any) -> Iterator[Pair]:
    paths = getattr(dataset, 'paths', None)
    makes_lr = isinstance(dataset, MakesLR) and dataset.makes_lr
    sides = ['gt'] if makes_lr else ['gt', 'lq']
    if not paths or not isinstance(paths[0], dict) or not all(f'{side}_path' in paths[0] for side in sides):
        return
    backend = opt['io_backend']['type']
    if backend not in ('disk', 'lmdb'):  # others may not have the images in files
        return
    is_lmdb = backend == 'lmdb'
    roots = {side: Path(opt[f'dataroot_{side}']) for side in sides}
    shapes = {side: lmdb_shapes(root) for side, root in roots.items()} if is_lmdb else {}

    def named_header(side: str, path: str) -> NamedHeader:
        if is_lmdb:
            return NamedHeader(f'{roots[side]}:{path}', lmdb_header(shapes[side][path]))
        return NamedHeader(path, header_or_problem(Path(path)))

    for path in paths:
        gt = named_header('gt', path['gt_path'])
        yield with_lr_made(gt, opt['scale']) if makes_lr else (gt, named_header('lq', path['lq_path']))


def with_lr_made(gt: NamedHeader, scale: int) -> Pair:
    """An HR image, cropped to a multiple of the scale, with the LR image that is made of it."""
    name, header = gt
    if isinstance(header, str):
        return gt, NamedHeader(name, Header(0, 0, ''))
    lq = Header(header.height // scale, header.width // scale, '')
    cropped = header._replace(height=lq.height * scale, width=lq.width * scale)
    return NamedHeader(name, cropped), NamedHeader(name, lq)


def header_or_problem(path: Path) -> Header | str:
    """An image's header, or what is wrong with its file."""
    try:
        return read_header(path)
    except FileNotFoundError:
        return 'does not exist'
    except (ValueError, OSError) as error:
        return str(error)


def pair_problems(pair: Pair, opt: dict[str, Any]) -> Iterator[Problem]:
    """Images that cannot be read, and sizes that do not fit the scale or the crop."""
    unreadable = [Problem(*image) for image in pair if isinstance(image.header, str)]
    yield from unreadable
    if unreadable or not opt.get('scale'):
        return
    scale, is_train = opt['scale'], opt['phase'] == 'train'
    (name, gt), (its_lq, lq) = pair
    wanted = lq.height * scale, lq.width * scale
    spare = gt.height - wanted[0], gt.width - wanted[1]
    size = f'is {gt.height}×{gt.width}'
    # in validation BasicSR crops the rest that the scale leaves at the bottom and the right
    if (is_train and any(spare)) or not all(0 <= s < scale for s in spare):
        of_lq = f'×{scale} of {its_lq} ({lq.height}×{lq.width})'
        yield Problem(name, f'{size}, but {of_lq} is {wanted[0]}×{wanted[1]}')
    elif is_train and opt.get('gt_size') and min(gt.height, gt.width) < opt['gt_size']:
        yield Problem(name, f'{size}, smaller than gt_size {opt["gt_size"]}')
    elif min(wanted) < opt.get('smallest', 1):
        yield Problem(name, f'{size}, but the metrics and their crop_border need {opt["smallest"]} pixels on each side')


def explain_failure(dataset: Any, index: int, error: Exception) -> str:
    """Why a sample could not be read, with the file that caused it if that can be found out."""
    opt = getattr(dataset, 'opt', {})
    name = opt.get('name', type(dataset).__name__)
    if isinstance(error, KeyError) and opt and error.args and error.args[0] not in opt:
        return f'data set {name} needs the option {error}'
    paths = getattr(dataset, 'paths', None)
    path = paths[index] if isinstance(paths, list) and index < len(paths) else None
    images = [str(image) for image in (path.values() if isinstance(path, dict) else [path]) if image]
    files = [image for image in images if Path(image).is_file()]
    for file in files:
        try:
            read_image(Path(file))
        except UserError as damage:
            return f'data set {name}: {damage}'
    where = ', '.join(dict.fromkeys(images)) or 'no path known'
    if images and images[0] not in files:
        where += f' of {" or ".join(str(opt[key]) for key in ("dataroot_gt", "dataroot_lq") if opt.get(key))}'
    what = str(error) if isinstance(error, UserError) else f'{type(error).__name__}: {error}'
    if 'NoneType' in str(error) and files != images:
        what = 'the image is missing or damaged'
    return f'data set {name}: cannot read sample {index} ({where}): {what}'

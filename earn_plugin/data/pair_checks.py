"""Image pairs checked by name, header and size before training starts, and failures to read explained."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from earn_plugin.data.folder_or_lmdb import Folder, Problem, lmdb_header, lmdb_shapes
from earn_plugin.data.image_files import read_image
from earn_plugin.data.image_headers import Header, read_header
from earn_plugin.errors import UserError

MOST_NAMED = 10  # of one kind of finding; the rest is counted


class PairHeaders(NamedTuple):
    """The two images of a sample: names for messages, and headers or what is wrong."""

    gt_name: str
    lq_name: str
    gt: Header | str
    lq: Header | str


def check_dataset(opt: dict[str, Any], dataset: Any) -> list[str]:
    """Check the images of a data set of pairs; other data sets only for not being empty.

    Args:
        opt: the data set's options, with ``phase`` and ``scale``.
        dataset: the BasicSR data set that was built from them.

    Returns:
        Notes: images that are read, but are not what they should be (grey, 16-bit, with alpha).

    Raises:
        UserError: lists every image that cannot be read, does not pair, or does not fit the scale or the crop.
    """
    name = opt['name']
    if not len(dataset):
        raise UserError(f'data set {name} is empty: no image in {opt.get("dataroot_gt") or opt.get("dataroot_lq")}')
    pairs = list(_pairs(opt, dataset))
    scale, gt_size = opt.get('scale'), opt.get('gt_size')
    if pairs and opt['phase'] == 'train' and scale and gt_size and gt_size % scale:
        nearest = max(1, gt_size // scale) * scale
        raise UserError(f'data set {name}: gt_size must be a multiple of scale {scale}, got {gt_size}; try {nearest}')
    problems = [finding for pair in pairs for finding in pair_problems(pair, opt)]
    if problems:
        count = 'a problem' if len(problems) == 1 else f'{len(problems)} problems'
        raise UserError('\n  '.join([f'data set {name} has {count}:', *first_of(map(str, problems))]))
    notes = [
        f'{image_name} is {header.kind}'
        for pair in pairs
        for image_name, header in ((pair.gt_name, pair.gt), (pair.lq_name, pair.lq))
        if header.kind
    ]
    return [f'data set {name}: {", ".join(first_of(notes))}: read as 8-bit RGB'] if notes else []


def first_of(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    more = len(lines) - MOST_NAMED
    return [*lines[:MOST_NAMED], f'and {more} more'] if more > 0 else lines


def check_names(opt: dict[str, Any]) -> None:
    """Check that every HR image of a PairedImageDataset has its LR image, and the reverse.

    BasicSR's data set stops at the first that has none, and does not say where.

    Raises:
        UserError: names those that are alone, or a folder that holds no image.
    """
    if opt['type'] != 'PairedImageDataset' or opt.get('meta_info_file'):
        return
    roots = Path(opt['dataroot_gt']), Path(opt['dataroot_lq'])
    if opt['io_backend']['type'] == 'lmdb':
        for root in roots:
            if root.suffix != '.lmdb':
                raise UserError(f'data set {opt["name"]}: {root} must be a folder that ends in .lmdb')
        gt, lq = (set(lmdb_shapes(root)) for root in roots)
        template = '{}'
    else:
        files = [set(Folder(root).names) for root in roots]
        template = opt.get('filename_tmpl', '{}')
        gt = {lq_name(name, template) for name in files[0]}
        lq = files[1]
    for root, names in zip(roots, (gt, lq), strict=True):
        if not names:
            raise UserError(f'data set {opt["name"]} is empty: no image in {root}')
    if gt != lq:
        lines = []
        for alone, here, there in ((gt - lq, *roots), (lq - gt, *roots[::-1])):
            if alone:
                lines.append(f'  in {there} is no {", ".join(first_of(sorted(alone)))}, which {here} asks for')
        hint = '' if opt['io_backend']['type'] == 'lmdb' else f'\n  (filename_tmpl is {template!r})'
        raise UserError(f'data set {opt["name"]}: HR and LR do not pair:\n' + '\n'.join(lines) + hint)


def lq_name(gt_name: str, template: str) -> str:
    """The name that BasicSR gives the LR image of an HR image.

    Raises:
        UserError: the template is no format with one place.
    """
    path = Path(gt_name)
    try:
        return f'{template.format(path.stem)}{path.suffix}'
    except (ValueError, LookupError) as error:
        raise UserError(f"filename_tmpl must be like '{{}}x4', got {template!r}: {error}") from None


def _pairs(opt: dict[str, Any], dataset: Any) -> Iterable[PairHeaders]:
    paths = getattr(dataset, 'paths', None)
    if getattr(dataset, 'makes_lr', False):
        yield from _pairs_to_be_made(opt, [path['gt_path'] for path in paths])
        return
    if not paths or not isinstance(paths[0], dict) or not {'gt_path', 'lq_path'} <= set(paths[0]):
        return
    if opt['io_backend']['type'] == 'lmdb':
        roots = Path(opt['dataroot_gt']), Path(opt['dataroot_lq'])
        gt, lq = (lmdb_shapes(root) for root in roots)
        for path in paths:
            key = path['gt_path']
            yield PairHeaders(f'{roots[0]}:{key}', f'{roots[1]}:{key}', lmdb_header(gt[key]), lmdb_header(lq[key]))
    elif opt['io_backend']['type'] == 'disk':
        for path in paths:
            gt, lq = Path(path['gt_path']), Path(path['lq_path'])
            yield PairHeaders(str(gt), str(lq), _header_or_problem(gt), _header_or_problem(lq))


def _pairs_to_be_made(opt: dict[str, Any], keys: list[str]) -> Iterable[PairHeaders]:
    """The pairs of HR images whose LR is made as they are read, from as much of them as the scale divides."""
    root, scale = Path(opt['dataroot_gt']), opt['scale']
    shapes = lmdb_shapes(root) if opt['io_backend']['type'] == 'lmdb' else None
    for key in keys:
        name = f'{root}:{key}' if shapes else key
        gt = lmdb_header(shapes[key]) if shapes else _header_or_problem(Path(key))
        yield pair_to_be_made(name, gt, scale)


def pair_to_be_made(name: str, gt: Header | str, scale: int) -> PairHeaders:
    """An HR image, cut to a multiple of the scale, with the LR image that is made of it."""
    if isinstance(gt, str):
        return PairHeaders(name, name, gt, Header(0, 0, ''))
    lq = Header(gt.height // scale, gt.width // scale, '')
    return PairHeaders(name, name, gt._replace(height=lq.height * scale, width=lq.width * scale), lq)


def _header_or_problem(path: Path) -> Header | str:
    try:
        return read_header(path)
    except FileNotFoundError:
        return 'does not exist'
    except (ValueError, OSError) as error:
        return str(error)


def pair_problems(pair: PairHeaders, opt: dict[str, Any]) -> Iterable[Problem]:
    """What keeps a pair from being read, and sizes that do not fit the scale or the crop."""
    for name, header in ((pair.gt_name, pair.gt), (pair.lq_name, pair.lq)):
        if isinstance(header, str):
            yield Problem(name, header)
    if isinstance(pair.gt, str) or isinstance(pair.lq, str) or not opt.get('scale'):
        return
    scale, is_train = opt['scale'], opt['phase'] == 'train'
    wanted = pair.lq.height * scale, pair.lq.width * scale
    spare = pair.gt.height - wanted[0], pair.gt.width - wanted[1]
    size = f'is {pair.gt.height}×{pair.gt.width}'
    # in validation BasicSR cuts what the scale leaves over from the bottom and the right
    if (is_train and any(spare)) or not all(0 <= s < scale for s in spare):
        yield Problem(
            pair.gt_name,
            f'{size}, but ×{scale} of {pair.lq_name} ({pair.lq.height}×{pair.lq.width}) is {wanted[0]}×{wanted[1]}',
        )
    elif is_train and opt.get('gt_size') and min(pair.gt.height, pair.gt.width) < opt['gt_size']:
        yield Problem(pair.gt_name, f'{size}, smaller than gt_size {opt["gt_size"]}')


def explain_failure(dataset: Any, index: int, error: Exception) -> str:
    """Why a sample could not be read, with the file that is to blame where that can be told."""
    name = getattr(dataset, 'opt', {}).get('name', type(dataset).__name__)
    if isinstance(error, KeyError) and str(error.args[0]) not in getattr(dataset, 'opt', {}):
        return f'data set {name} needs the option {error}'
    path = getattr(dataset, 'paths', {index: None})[index]
    files = list(path.values()) if isinstance(path, dict) else [path]
    are_files = [bool(file) and Path(file).is_file() for file in files]
    for file in itertools.compress(files, are_files):
        try:
            read_image(Path(file))
        except UserError as damage:
            return f'data set {name}: {damage}'
    where = ', '.join(dict.fromkeys(map(str, filter(None, files))))
    roots = [getattr(dataset, 'opt', {}).get(key) for key in ('dataroot_gt', 'dataroot_lq')]
    if where and not are_files[0]:
        where += f' of {" or ".join(map(str, filter(None, roots)))}'
    what = f'{type(error).__name__}: {error}'
    if 'NoneType' in str(error) and not all(are_files):
        what = 'the image is missing or damaged'
    return f'data set {name}: cannot read sample {index} ({where or "no path known"}): {what}'

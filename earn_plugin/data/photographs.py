"""A user's own photographs: which of the files in a folder can be trained on, and which are held out."""

import shlex
from pathlib import Path
from typing import Any

import cv2

from earn_plugin.data.folder_or_lmdb import first_few, lmdb_header, lmdb_shapes
from earn_plugin.data.held_out import split
from earn_plugin.data.image_headers import Header
from earn_plugin.data.pair_checks import header_or_problem
from earn_plugin.errors import UsageError

LARGE = 2e6  # pixels, from which decoding an image for each small crop is likely to take longer than a training step
NOT_READ = ('grey of floats', '32-bit')  # kinds of images that cv2 does not convert to 8 bits
SUB_IMAGE, STEP = 480, 240  # as BasicSR cuts DIV2K


def suitable(paths: list[str], opt: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The images of at least gt_size that can be read; and warnings, which say what is left out.

    Args:
        paths: files, or keys of an LMDB.
        opt: of the data set.

    Raises:
        UsageError: there are none.
    """
    name, root, smallest = f'data set {opt["name"]}', Path(opt['dataroot_gt']), opt.get('gt_size', 1)
    is_lmdb, is_train = opt['io_backend']['type'] == 'lmdb', opt['phase'] == 'train'
    if is_lmdb:
        headers = {path: lmdb_header(shape) for path, shape in lmdb_shapes(root).items()}
    else:
        headers = {path: _header_or_problem(path) for path in paths}
    problems = {Path(path).name: header for path, header in headers.items() if isinstance(header, str)}
    headers = {path: header for path, header in headers.items() if isinstance(header, Header)}
    large = {path: header.height * header.width for path, header in headers.items() if min(header[:2]) >= smallest}
    for path in headers.keys() - large.keys():
        problems[Path(path).name] = f'is {headers[path].height}×{headers[path].width}, smaller than gt_size {smallest}'
    if not is_lmdb:
        folders = [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith('.')]
        problems |= dict.fromkeys(folders, 'is a folder: subfolders are not searched')
    found = first_few(f'{path} {problem}' for path, problem in sorted(problems.items()))
    if not large:
        raise UsageError('\n  '.join([f'{name}: no image in {root} is suitable', *found]))
    warnings = []
    if problems and (is_train or 'part' not in opt):  # once for both parts
        warnings.append(f'{name}: left out of {root}: {", ".join(found)}')
    pixels = sum(large.values())
    if is_train and not is_lmdb and pixels > LARGE * len(large):
        warnings.append(
            f'{name}: every crop decodes an image of {pixels / len(large) / 1e6:.0f} megapixels; to read sub-images '
            f'instead, many times as fast: {_faster(opt, pixels)}'
        )
    return [path for path in paths if path in large], warnings


def part_of(paths: list[str], opt: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The ``part`` of the images that a data set asks for, 'train' or 'val'; and what to report of it."""
    train, val = split(paths)
    if opt['part'] == 'val':
        return val, []
    names = ', '.join(first_few(Path(path).name for path in val))
    note = f'{len(train)} images to train on; held out for validation: {names}'
    if train == paths:
        note = f'{names} is its only photograph: it is trained on and validated on; give others with --val'
    return train, [f'data set {opt["name"]}: {note}']


def _header_or_problem(path: str) -> Header | str:
    """An image's header, or why it cannot be trained on."""
    header = header_or_problem(Path(path))
    if isinstance(header, str):
        return header
    if not cv2.haveImageReader(path):
        return 'is in a format that cv2 does not read'
    return f'is {header.kind}: convert it to 8 bits' if header.kind.startswith(NOT_READ) else header


def _faster(opt: dict[str, Any], pixels: int) -> str:
    """What to do about photographs that have so many pixels in all."""
    size, step = (SUB_IMAGE, STEP) if opt['gt_size'] <= SUB_IMAGE else (2 * opt['gt_size'], opt['gt_size'])
    lmdb, disk = shlex.quote(f'{opt["name"]}.lmdb'), pixels * 3 * (size / step) ** 2 / 1e9
    return (
        f'basicsr prepare lmdb {shlex.quote(opt["dataroot_gt"])} {lmdb} --size {size} --step {step} --skip-small '
        f'--encoding bmp (about {disk:.1f} GB); then --hr {lmdb}'
    )

"""All problems of data sets, found in one run: every image is decoded, every pair and every name compared.

The check before training reads headers and takes seconds; this one reads all bytes and pixels.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb

from earn_plugin.data.folder_or_lmdb import LMDB, Folder, Problem, lmdb_header, open_source
from earn_plugin.data.image_headers import Header
from earn_plugin.data.pair_checks import NamedHeader, Pair, lq_name, pair_problems, with_lr_made
from earn_plugin.errors import UserError
from earn_plugin.prepare.decoder import Decoder, Inspection
from earn_plugin.prepare.resumable_folder import in_threads, read_manifest

FLAT = ('PairedImageDataset', 'BicubicPairDataset', 'SingleImageDataset')  # other types may have a folder for each clip


@dataclass
class AuditReport:
    """The problems of each data set, and warnings about what is not wrong."""

    problems: list[tuple[str, list[Problem]]]
    warnings: list[str]
    images: int
    pairs: int

    @property
    def count(self) -> int:
        return sum(len(problems) for _, problems in self.problems)

    def __str__(self):
        lines = []
        for name, problems in self.problems:
            if problems:
                width = max(len(problem.where) for problem in problems)
                rows = (f'  {problem.where:<{width}}  {problem.what}' for problem in sorted(problems))
                lines += [f'{name}: {_number(len(problems), "problem")}', *rows, '']
        lines += [f'warning: {warning}' for warning in self.warnings]
        counts = (_number(self.images, 'image'), _number(self.pairs, 'pair'), _number(self.count, 'problem'))
        return '\n'.join([*lines, ', '.join(counts)])


@dataclass
class _Side:
    """The HR or the LR images of a data set."""

    source: Folder | LMDB
    names: list[str]
    inspected: dict[str, Inspection] = field(default_factory=dict)

    def header(self, name: str) -> NamedHeader:
        return NamedHeader(self.source.label(name), self.inspected[name].header)


@dataclass
class _DataSet:
    opt: dict[str, Any]
    sides: dict[str, _Side] = field(default_factory=dict)  # gt, lq
    pairs: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, where: object, what: str) -> None:
        self.problems.append(Problem(str(where), what))


def audit_datasets(options: list[dict[str, Any]]) -> AuditReport:
    """Check data sets by reading every image in full.

    Args:
        options: BasicSR's, of each data set: ``name``, ``type``, ``phase``, ``scale``, ``dataroot_gt``,
            ``dataroot_lq``, …. Without ``scale``, the scale of most pairs is taken. For types other than
            PairedImageDataset, the images of each root are checked separately.

    Raises:
        UserError: a folder does not exist, or is not an LMDB of BasicSR.
    """
    with ExitStack() as stack:
        sources: dict[Path, Folder | LMDB] = {}  # a root that two data sets share is opened and read once
        datasets = [_open(opt, sources, stack) for opt in options]
        inspected = _inspect_all([side for dataset in datasets for side in dataset.sides.values()])
    warnings = [f'{d.opt["name"]} has neither dataroot_gt nor dataroot_lq to check' for d in datasets if not d.sides]
    for dataset in datasets:
        for side in dataset.sides.values():
            side.inspected = {name: inspected[side.source.root, name] for name in side.names}
            dataset.problems += [*_image_problems(side), *_manifest_problems(side)]
        warnings += [*_check_sizes(dataset), *_repeated(dataset)]
    _find_leaks(datasets)
    pairs = sum(len(dataset.pairs) for dataset in datasets)
    return AuditReport([(d.opt['name'], d.problems) for d in datasets], warnings, len(inspected), pairs)


def _open(opt: dict[str, Any], sources: dict[Path, Folder | LMDB], stack: ExitStack) -> _DataSet:
    dataset = _DataSet(opt)
    is_flat = opt['type'] in FLAT
    for side in ('gt', 'lq'):
        if opt.get(f'dataroot_{side}') is None or (side == 'lq' and opt['type'] == 'BicubicPairDataset'):
            continue
        root = Path(opt[f'dataroot_{side}'])
        key = root.resolve()
        if key not in sources:
            sources[key] = open_source(root, recursive=not is_flat)
            if isinstance(sources[key], LMDB):
                stack.callback(sources[key].close)
        source = sources[key]
        backend = (opt.get('io_backend') or {}).get('type')
        if backend in ('disk', 'lmdb') and isinstance(source, LMDB) != (backend == 'lmdb'):
            what = 'an LMDB' if isinstance(source, LMDB) else 'a folder of files'
            raise UserError(f'data set {opt["name"]}: {root} is {what}, but io_backend is {backend}')
        dataset.sides[side] = _Side(source, source.names)
        if not source.names:
            dataset.add(root, 'is empty: it has no images')
    if is_flat and opt.get('meta_info_file') and not any(isinstance(s.source, LMDB) for s in dataset.sides.values()):
        _select(dataset)
    if opt['type'] == 'PairedImageDataset':
        _pair(dataset)
    for side in dataset.sides.values():
        dataset.problems += side.source.name_problems(side.names)
    return dataset


def _select(dataset: _DataSet) -> None:
    """Keep the names in the data set's meta_info_file, as BasicSR does."""
    file = Path(dataset.opt['meta_info_file'])
    try:
        lines = file.read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError as error:
        raise UserError(f'data set {dataset.opt["name"]}: {file} cannot be read: {error.strerror}') from error
    names = list(dict.fromkeys(line.strip().split(' ')[0] for line in lines))
    for side in dataset.sides.values():
        side.names = names
    if len(dataset.sides) == 2:
        template = dataset.opt.get('filename_tmpl', '{}')
        dataset.sides['lq'].names = [lq_name(name, template) for name in names]


def _pair(dataset: _DataSet) -> None:
    gt, lq = (dataset.sides[side] for side in ('gt', 'lq'))
    is_lmdb = isinstance(gt.source, LMDB)
    if is_lmdb != isinstance(lq.source, LMDB):
        raise UserError(f'{gt.source.root} and {lq.source.root} must both be folders, or both LMDBs')
    template = dataset.opt.get('filename_tmpl', '{}')
    wanted = {name: name if is_lmdb else lq_name(name, template) for name in gt.names}
    found = set(lq.names)
    dataset.pairs = [(name, its_lq) for name, its_lq in wanted.items() if its_lq in found]
    if gt.names and lq.names and not dataset.pairs:
        name = gt.names[0]
        hint = '' if is_lmdb else f' (filename_tmpl is {template!r})'
        what = f'{name} needs {wanted[name]}, but the names are like {lq.names[0]}'
        dataset.add(gt.source.root, f'has no pair in {lq.source.root}: {what}{hint}')
        return
    for name, its_lq in wanted.items():
        if its_lq not in found:
            dataset.add(lq.source.label(its_lq), f'is missing: {gt.source.label(name)} needs it')
    for name in sorted(found.difference(wanted.values())):
        dataset.add(lq.source.label(name), f'has no HR image in {gt.source.root}')


def _inspect_all(sides: Iterable[_Side]) -> dict[tuple[Path, str], Inspection]:
    """Every image once, even if several data sets have it."""
    sources = {(side.source.root, name): side.source for side in sides for name in side.names}

    def inspect(image: tuple[Path, str]) -> Inspection:
        source, name = sources[image], image[1]
        try:
            content = source.read(name)
        except FileNotFoundError:
            return Inspection('is missing: meta_info names it')
        except (OSError, lmdb.Error) as error:
            return Inspection(f'cannot be read: {error}')
        return decoder.inspect(content)

    with Decoder() as decoder:
        return dict(in_threads(sources, inspect, label='check', total=len(sources), bar_file=decoder.terminal))


def _image_problems(side: _Side) -> Iterator[Problem]:
    for name, image in side.inspected.items():
        label = side.source.label(name)
        if isinstance(image.header, str):
            yield Problem(label, image.header)
            continue
        if image.header.kind:
            yield Problem(label, f'is {image.header.kind}; BasicSR reads it as 8-bit RGB')
        if isinstance(side.source, LMDB):
            listed = lmdb_header(side.source.shapes[name])
            if listed[:2] != image.header[:2]:
                size = f'{image.header.height}×{image.header.width}'
                yield Problem(label, f'is {size}, but meta_info.txt says {listed.height}×{listed.width}')


def _manifest_problems(side: _Side) -> Iterator[Problem]:
    """Images that are missing, added or changed since a manifest was written."""
    source = side.source
    try:
        manifest = read_manifest(source.root)
    except UserError as error:
        yield Problem(str(source.root), str(error))
        return
    if manifest is None:
        return
    files = manifest['files']
    for name in sorted(set(files).union(source.names)):
        label, image = source.label(name), side.inspected.get(name)
        if name not in files:
            yield Problem(label, 'was added: it is not in the manifest')
        elif name not in source:
            yield Problem(label, 'is missing: it is in the manifest')
        elif image and image.sha256 and [image.size, image.sha256] != files[name]:
            now, then = (f'{size} bytes, SHA-256 {sha256[:8]}…' for size, sha256 in (image[2:], files[name]))
            yield Problem(label, f'was changed: {now}; in the manifest {then}')


def _check_sizes(dataset: _DataSet) -> Iterator[str]:
    """Add pairs that do not fit the scale; a warning names the scale if it was not given."""
    opt = dataset.opt
    gt, lq = (dataset.sides.get(side) for side in ('gt', 'lq'))
    if opt['type'] == 'BicubicPairDataset':
        pairs = [with_lr_made(gt.header(name), opt['scale']) for name in gt.names]
    else:
        pairs = [(gt.header(name), lq.header(its_lq)) for name, its_lq in dataset.pairs]
    readable = [pair for pair in pairs if all(isinstance(image.header, Header) for image in pair)]
    if not opt.get('scale') and readable:
        scale, fitting = _scale_of(readable)
        if not scale:
            dataset.add(gt.source.root, 'has no scale that fits most LR images: give the scale')
        else:
            yield f'{opt["name"]}: scale {scale}, which fits {fitting} of {_number(len(readable), "pair")}'
            opt = {**opt, 'scale': scale}
    for pair in readable:
        dataset.problems += pair_problems(pair, opt)


def _scale_of(pairs: list[Pair]) -> tuple[int, int]:
    """The scale of more than half of the pairs, and of how many; (0, 0) if there is none."""
    votes = Counter()
    for (_, gt), (_, lq) in pairs:
        scale, spare = divmod(gt.height, lq.height)
        if spare < scale and 0 <= gt.width - scale * lq.width < scale:  # LR of HR cropped to a multiple
            votes[scale] += 1
    scale, count = votes.most_common(1)[0] if votes else (0, 0)
    return (scale, count) if 2 * count > len(pairs) else (0, 0)


def _repeated(dataset: _DataSet) -> Iterator[str]:
    first: dict[bytes, str] = {}
    for side in [*dataset.sides.values()][:1]:  # HR if there are both
        for name, image in side.inspected.items():
            if image.pixels and first.setdefault(image.pixels, name) != name:
                yield f'{side.source.label(name)} is the same image as {first[image.pixels]}'


def _find_leaks(datasets: list[_DataSet]) -> None:
    """Add training images that are also test images; sub-images and changed copies are not recognised."""
    for_testing: dict[bytes, str] = {}
    for dataset in sorted(datasets, key=lambda dataset: dataset.opt['phase'] == 'train'):  # the training images last
        for side in dataset.sides.values():
            for name, image in side.inspected.items():
                label, same = side.source.label(name), for_testing.get(image.pixels)
                if dataset.opt['phase'] != 'train' and image.pixels:
                    for_testing.setdefault(image.pixels, label)
                elif same:
                    dataset.add(label, f'is also a test image{"" if same == label else f": {same}"}')


def _number(count: int, what: str) -> str:
    return f'{count:,} {what}{"" if count == 1 else "s"}'

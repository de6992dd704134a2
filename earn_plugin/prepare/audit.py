"""Everything that can be wrong with data sets, found at once: every image decoded, every pair and every name compared.

The check before training (``check``) reads headers and takes seconds; this reads all bytes and pixels.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb

from earn_plugin.data.folder_or_lmdb import LMDB, Folder, Problem, lmdb_header, open_source
from earn_plugin.data.image_headers import Header
from earn_plugin.data.pair_checks import PairHeaders, lq_name, pair_problems, pair_to_be_made
from earn_plugin.errors import UserError
from earn_plugin.prepare.decoder import Decoder, Look
from earn_plugin.prepare.manifest import manifest_problems
from earn_plugin.prepare.resumable_folder import each

FLAT = ('PairedImageDataset', 'BicubicPairDataset', 'SingleImageDataset')  # others may have a folder for each clip


@dataclass
class AuditReport:
    """What was found, by data set, and what is worth knowing but not wrong."""

    findings: list[tuple[str, list[Problem]]]
    notes: list[str]
    images: int
    pairs: int
    seconds: float

    @property
    def count(self) -> int:
        return sum(len(findings) for _, findings in self.findings)

    def __str__(self):
        lines = []
        for name, findings in self.findings:
            if findings:
                width = max(len(finding.where) for finding in findings)
                rows = (f'  {finding.where:<{width}}  {finding.what}' for finding in sorted(findings))
                lines += [f'{name}: {_number(len(findings), "finding")}', *rows, '']
        lines += [f'note: {note}' for note in self.notes]
        speed = f'{self.images / max(self.seconds, 1e-3):.0f} images/s'
        lines.append(
            f'{_number(self.images, "image")}, {_number(self.pairs, "pair")}, {self.seconds:.1f} s ({speed}): '
            + _number(self.count, 'finding')
        )
        return '\n'.join(lines)


@dataclass
class _Side:
    """The HR or the LR images of a data set."""

    source: Folder | LMDB
    names: list[str]
    looks: dict[str, Look] = field(default_factory=dict)


@dataclass
class _DataSet:
    opt: dict[str, Any]
    sides: dict[str, _Side] = field(default_factory=dict)  # gt, lq
    pairs: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Problem] = field(default_factory=list)


def audit_datasets(options: list[dict[str, Any]]) -> AuditReport:
    """Check data sets by reading every image in full.

    Args:
        options: of each data set, as BasicSR has them: ``name``, ``type``, ``phase``, ``scale``, ``dataroot_gt``,
            ``dataroot_lq``, …. Without ``scale`` the one that fits most pairs is taken. Where the type is not
            PairedImageDataset, the images of each root are checked on their own.

    Raises:
        UserError: a folder does not exist, or is no LMDB of BasicSR.
    """
    start = time.monotonic()
    with ExitStack() as stack:
        sources: dict[Path, Folder | LMDB] = {}  # a root that two data sets share is opened and read once
        datasets = [_open(opt, sources, stack) for opt in options]
        looks = _look_at_all([side for dataset in datasets for side in dataset.sides.values()])
    notes = [f'{d.opt["name"]} has neither dataroot_gt nor dataroot_lq to check' for d in datasets if not d.sides]
    for dataset in datasets:
        for side in dataset.sides.values():
            side.looks = {name: looks[side.source.root, name] for name in side.names}
            dataset.findings += _image_problems(side)
            dataset.findings += manifest_problems(side.source, side.looks)
        notes += _check_sizes(dataset)
        notes += _repeated(dataset)
    _find_leaks(datasets)
    return AuditReport(
        [(dataset.opt['name'], dataset.findings) for dataset in datasets],
        notes,
        len(looks),
        sum(len(dataset.pairs) for dataset in datasets),
        time.monotonic() - start,
    )


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
            dataset.findings.append(Problem(str(root), 'is empty: there is no image in it'))
    if is_flat and opt.get('meta_info_file') and not any(isinstance(s.source, LMDB) for s in dataset.sides.values()):
        _select(dataset)
    if opt['type'] == 'PairedImageDataset':
        _pair(dataset)
    for side in dataset.sides.values():
        dataset.findings += side.source.findings(side.names)
    return dataset


def _select(dataset: _DataSet) -> None:
    """Keep what the data set's meta_info_file names, as BasicSR does."""
    file = Path(dataset.opt['meta_info_file'])
    try:
        lines = file.read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError as error:
        raise UserError(f'data set {dataset.opt["name"]}: {file} cannot be read: {error.strerror}') from error
    names = list(dict.fromkeys(line.strip().split(' ')[0] for line in lines))
    template = dataset.opt.get('filename_tmpl', '{}')
    for which, side in dataset.sides.items():
        is_lq_of_pair = which == 'lq' and 'gt' in dataset.sides
        side.names = [lq_name(name, template) for name in names] if is_lq_of_pair else names


def _pair(dataset: _DataSet) -> None:
    gt, lq = (dataset.sides[side] for side in ('gt', 'lq'))
    if isinstance(gt.source, LMDB) != isinstance(lq.source, LMDB):
        raise UserError(f'{gt.source.root} and {lq.source.root} must both be folders, or both LMDBs')
    template = '{}' if isinstance(gt.source, LMDB) else dataset.opt.get('filename_tmpl', '{}')
    wanted = {name: name if isinstance(gt.source, LMDB) else lq_name(name, template) for name in gt.names}
    there = set(lq.names)
    dataset.pairs = [(name, lq_of_it) for name, lq_of_it in wanted.items() if lq_of_it in there]
    if gt.names and lq.names and not dataset.pairs:
        name = gt.names[0]
        what = f'pairs with nothing in {lq.source.root}: {name} asks for {wanted[name]}, and there is {lq.names[0]}'
        hint = '' if isinstance(gt.source, LMDB) else f' (filename_tmpl is {template!r})'
        dataset.findings.append(Problem(str(gt.source.root), what + hint))
        return
    for name, lq_of_it in wanted.items():
        if lq_of_it not in there:
            dataset.findings.append(Problem(lq.source.label(lq_of_it), f'is missing: {gt.source.label(name)} needs it'))
    for name in sorted(there.difference(wanted.values())):
        dataset.findings.append(Problem(lq.source.label(name), f'is the LR of no image in {gt.source.root}'))


def _look_at_all(sides: Iterable[_Side]) -> dict[tuple[Path, str], Look]:
    """Every image once, however many data sets have it."""
    sources = {(side.source.root, name): side.source for side in sides for name in side.names}

    def look(image: tuple[Path, str]) -> Look:
        source, name = sources[image], image[1]
        try:
            content = source.read(name)
        except FileNotFoundError:
            return Look('is missing: meta_info names it')
        except (OSError, lmdb.Error) as error:
            return Look(f'cannot be read: {error}')
        return decoder.look_at(content)

    with Decoder() as decoder:
        return dict(each(list(sources), look, 'check', bar_file=decoder.terminal))


def _image_problems(side: _Side) -> Iterator[Problem]:
    for name, look in side.looks.items():
        label = side.source.label(name)
        if isinstance(look.header, str):
            yield Problem(label, look.header)
            continue
        if look.header.kind:
            yield Problem(label, f'is {look.header.kind}; BasicSR reads it as 8-bit RGB')
        if isinstance(side.source, LMDB):
            told = lmdb_header(side.source.shapes[name])
            if told[:2] != look.header[:2]:
                size = f'{look.header.height}×{look.header.width}'
                yield Problem(label, f'is {size}, but meta_info.txt says {told.height}×{told.width}')


def _check_sizes(dataset: _DataSet) -> Iterator[str]:
    """Add what does not fit the scale; note the scale where it had to be found."""
    opt = dataset.opt
    gt, lq = (dataset.sides.get(side) for side in ('gt', 'lq'))
    if opt['type'] == 'BicubicPairDataset':
        pairs = [pair_to_be_made(gt.source.label(name), look.header, opt['scale']) for name, look in gt.looks.items()]
    else:
        pairs = [
            PairHeaders(
                gt.source.label(gt_name), lq.source.label(name), gt.looks[gt_name].header, lq.looks[name].header
            )
            for gt_name, name in dataset.pairs
        ]
    readable = [pair for pair in pairs if isinstance(pair.gt, Header) and isinstance(pair.lq, Header)]
    if not opt.get('scale') and readable:
        scale, fitting = scale_of(readable)
        if not scale:
            dataset.findings.append(Problem(str(gt.source.root), 'fits LR by no one scale: give the scale'))
        else:
            yield f'{opt["name"]}: scale {scale}, which fits {fitting} of {_number(len(readable), "pair")}'
            opt = {**opt, 'scale': scale}
    for pair in readable:
        dataset.findings += pair_problems(pair, opt)


def scale_of(pairs: list[PairHeaders]) -> tuple[int, int]:
    """The scale that more than half of the pairs have, and how many; (0, 0) if there is none."""
    votes = Counter()
    for pair in pairs:
        scale, spare = divmod(pair.gt.height, pair.lq.height)
        if spare < scale and 0 <= pair.gt.width - scale * pair.lq.width < scale:  # LR of HR cut to a multiple
            votes[scale] += 1
    scale, count = votes.most_common(1)[0] if votes else (0, 0)
    return (scale, count) if 2 * count > len(pairs) else (0, 0)


def _repeated(dataset: _DataSet) -> Iterator[str]:
    side = dataset.sides.get('gt') or dataset.sides.get('lq')
    first: dict[bytes, str] = {}
    for name, look in side.looks.items() if side else ():
        if look.pixels and first.setdefault(look.pixels, name) != name:
            yield f'{side.source.label(name)} is the same image as {first[look.pixels]}'


def _find_leaks(datasets: list[_DataSet]) -> None:
    """Add the images to train on that are images to test on, too; sub-images and changed copies are not seen."""
    for_testing: dict[bytes, str] = {}
    for training in (False, True):
        for dataset in datasets:
            if (dataset.opt['phase'] == 'train') != training:
                continue
            for side in dataset.sides.values():
                for name, look in side.looks.items():
                    label = side.source.label(name)
                    if look.pixels and not training:
                        for_testing.setdefault(look.pixels, label)
                    elif look.pixels in for_testing:
                        same = for_testing[look.pixels]
                        what = 'is' if same == label else f'is the same image as {same}, which is'
                        dataset.findings.append(Problem(label, f'{what} for testing, too'))


def _number(count: int, what: str) -> str:
    return f'{count:,} {what}{"" if count == 1 else "s"}'

"""A network put through a year's NTIRE protocol, image by image, as the organisers' script does it."""

import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch

from earn_plugin.convert.networks import ENDINGS, FoundNetwork, NetworkChoice, find_network
from earn_plugin.convert.weight_files import read_weights
from earn_plugin.errors import UsageError, UserError
from earn_plugin.measure import complexity
from earn_plugin.ntire import results
from earn_plugin.ntire.image_pairs import find_pair_paths, path_notes
from earn_plugin.ntire.official_run import RANGES, Settings, run_split
from earn_plugin.ntire.protocol import Year, protocol
from earn_plugin.ntire.standalone import OFFICIAL, extra_of, standalone
from earn_plugin.protocols import Fusible


class ValidationReport(NamedTuple):
    """A run: the official entry, and what else there is to say of it."""

    name: str
    form: str  # 'training form' or 'fused form'
    year: Year
    device: str
    images: dict[str, int]  # of each split
    entry: results.Entry  # as results.json has it
    notes: list[str]

    @property
    def runtime(self) -> float:
        """The official mean in ms, over both splits where the test set is in."""
        means = [self.entry[f'{split}_ave_runtime'] for split in self.images]
        return sum(means) / len(means)

    @property
    def passed(self) -> bool | None:
        """Whether the mean PSNRs pass the year's gate; None where the year has none."""
        gate = [self.entry[f'{split}_ave_psnr'] >= g for split, g in self.year.gate.items() if split in self.images]
        return all(gate) if gate else None

    @property
    def score(self) -> list[float] | None:
        """The parts of the year's score, of runtime, FLOPs and parameters; None where the year has none."""
        return self.year.score(self.runtime, self.entry['flops'], self.entry['num_parameters'])

    def text(self) -> str:
        """A table, the year's baseline beside, and the notes."""
        year, entry, base = self.year, self.entry, self.year.baseline
        rows: list[tuple[str, str, str]] = []
        channels = 'Y' if year.track == 'quality' else 'RGB'
        for split in self.images:
            gate = f'gate {year.gate[split]:.2f}' if split in year.gate else '–'
            rows.append((f'{split} PSNR, {channels} [dB]', f'{entry[f"{split}_ave_psnr"]:.4f}', gate))
            if f'{split}_ave_ssim' in entry:
                rows.append((f'{split} SSIM', f'{entry[f"{split}_ave_ssim"]:.4f}', '–'))
            times = entry[f'{split}_runtime']
            warm = times[1:]
            rows += [
                (f'{split} runtime, official mean [ms]', f'{entry[f"{split}_ave_runtime"]:.2f}', shown(base.runtime)),
                ('    without the first image', shown(statistics.fmean(warm) if warm else None), ''),
                ('    median', f'{statistics.median(times):.2f}', ''),
                (f'{split} memory [MiB]', f'{entry[f"{split}_memory"]:.2f}', '–'),
            ]
        counter = 'fvcore' if year.counter == 'fvcore' else 'module hooks'
        rows += [
            ('parameters [M]', f'{entry["num_parameters"]:.6f}', shown(base.params, 3)),
            (f'FLOPs, {counter} [G]', f'{entry["flops"]:.4f}', shown(base.flops)),
            ('activations [M]', f'{entry["activations"]:.4f}', shown(base.activations)),
            ('convs', str(entry['num_conv']), shown(base.convs, 0)),
        ]
        if self.passed is not None:
            rows.append(('PSNR gate', 'passed' if self.passed else 'missed', ''))
        if self.score is not None:
            of_base = year.score(base.runtime, base.flops, base.params)
            titles = ('runtime', 'FLOPs', 'parameters')
            rows.append(('score, lower is better', points(sum(self.score)), points(sum(of_base))))
            rows += [(f'    of {t}', points(a), points(b)) for t, a, b in zip(titles, self.score, of_base, strict=True)]
        counts = ', '.join(f'{number} images of {split}' for split, number in self.images.items())
        width, first = max(14, len(self.name) + 2), max(36, 2 + max(len(title) for title, *_ in rows))
        lines = [
            f'NTIRE {year.year}, {year.track} SR ×4: {self.name}, {self.form}, on {self.device}; {counts}',
            f'{"":{first}}{self.name:>{width}}{base.name + " (baseline)":>22}',
            *(f'{title:<{first}}{ours:>{width}}{theirs:>22}' for title, ours, theirs in rows),
            *(f'note: {note}' for note in self.notes),
        ]
        return '\n'.join(lines)


def shown(value: float | None, digits: int = 2) -> str:
    return '–' if value is None else f'{value:.{digits}f}'


def points(value: float) -> str:
    return f'{value:.4f}' if value < 1e6 else f'{value:.2e}'


def validate(
    model: str | FoundNetwork,
    year: int,
    data_dir: str | Path,
    *,
    arguments: dict[str, Any] | None = None,
    fused: bool = False,
    data_range: float = 1.0,
    track: str = 'efficient',
    include_test: bool = False,
    hybrid_test: bool = False,
    ssim: bool = False,
    limit: int | None = None,
    device: str | None = None,
    name: str | None = None,
    model_id: int | None = None,
    save_dir: str | Path | None = None,
    results_dir: str | Path = '.',
    arch: str | None = None,
) -> ValidationReport:
    """Measure a ×4 network as NTIRE's organisers do, and add it to results.json and results.txt.

    Each image goes through by itself, in float32, the first one cold; the output is clamped and rounded to uint8;
    PSNR leaves out a border of 4, on RGB or, for the quality track, Y. Complexity is counted at 3×256×256.

    Args:
        model: a checkpoint, a registered name, or what ``find_network`` gave.
        year: 2022 to 2026; its layout of data, counter, gate, score and baseline.
        data_dir: holds the year's folders, such as DIV2K_LSDIR_valid_HR and DIV2K_LSDIR_valid_LR.
        arguments: of the network, where the checkpoint does not tell them.
        fused: take the network in its fused form.
        data_range: of the network's input and output: 1, as all of ours, or 255.
        track: 'efficient' or 'quality'.
        include_test: the test set, too.
        hybrid_test: the hybrid test set of 2023, in place of the validation set.
        ssim: measure SSIM, too.
        limit: take the first images of each split only.
        device: 'cpu', 'cuda', …; the GPU where there is one.
        name: in the results; by default the network's.
        model_id: goes before the default name, as the official script has it: 07_LGVAN.
        save_dir: save the results there, as NAME/SPLIT/IMAGE.png; nowhere if None.
        results_dir: of results.json and results.txt.
        arch: the network that a checkpoint is of, where the file does not tell.

    Raises:
        UserError: what is wrong with the data, the network, or the results so far, before the run wherever that can
            be known. A data range that looks wrong is warned of, at the first image.
    """
    asked = protocol(year, track)
    splits = splits_asked(asked, include_test, hybrid_test)
    if data_range not in RANGES:
        raise UsageError(f'a data range is 1 or 255, got {data_range:g}')
    if limit is not None and limit < 1:
        raise UsageError(f'a limit must be at least 1, got {limit}')
    pairs, notes = {}, []
    for split in splits:
        pairs[split], found_notes = find_pair_paths(Path(data_dir), asked.splits[split], split, limit)
        notes += found_notes
    notes += path_notes(str(data_dir), asked, splits)
    on = complexity.find_device(device)
    if on.type == 'meta':
        raise UsageError('the meta device computes nothing, so there is nothing to validate; give another --device')
    choice = NetworkChoice(str(model), arguments or {}, arch, fused)
    found = model if isinstance(model, FoundNetwork) else find_network(choice)
    notes += network_notes(model, found)
    name = name or default_name(found, model_id)
    so_far = results.read(Path(results_dir) / 'results.json', name, splits)
    if name in so_far:
        notes.append(f'the earlier run of {name} in results.json is replaced')

    network = found.network.to(on).eval()
    if on.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(on)  # else it is that of whatever this process did before
    trained = isinstance(model, FoundNetwork) or model.endswith(ENDINGS)
    settings = Settings(on, data_range, track, ssim, trained)
    entry: results.Entry = {}
    for split in splits:
        folder = Path(save_dir) / name / split if save_dir is not None else None
        entry |= run_split(network, pairs[split], split, settings, folder, notes)
    counted = count(found, asked, on, notes)
    flops = counted.fvcore if asked.counter == 'fvcore' else counted.hooks
    unseen = counted.unseen_by_fvcore if asked.counter == 'fvcore' else counted.unseen_by_hooks
    notes.append(f'the FLOPs are without what the counter takes for 0: {complexity.listed(unseen)}')
    if on.type != 'cuda':
        notes.append('without CUDA, memory is the peak resident memory of the process, and runtime is that of the CPU')
        if asked.weights:
            notes.append("so the score's part of runtime has nothing to do with the organisers' GPU")
    entry |= {
        'activations': counted.activations / 1e6,
        'num_conv': counted.convs,
        'flops': flops / 1e9,
        'num_parameters': counted.params / 1e6,
    }
    results.write(Path(results_dir), {**so_far, name: entry})
    on_what = torch.cuda.get_device_name(on) if on.type == 'cuda' else f'the CPU ({torch.get_num_threads()} threads)'
    images = {split: len(found_pairs) for split, found_pairs in pairs.items()}
    return ValidationReport(name, found.form, asked, on_what, images, entry, notes)


def count(found: FoundNetwork, year: Year, device: torch.device, notes: list[str]) -> complexity.Complexity:
    """Complexity as the year's script will see it: fvcore counts what runs fused here, and is plain in an export."""
    counted = complexity.count(found, OFFICIAL, device, fvcore=year.counter == 'fvcore')
    if year.counter != 'fvcore':
        return counted
    try:
        extra = extra_of(found, standalone(found))(*OFFICIAL)
    except UserError as error:
        notes.append(f'the FLOPs are of the network as it is here, for it cannot be exported: {error}')
        return counted
    if extra:
        notes.append(f'{extra / 1e9:.4f} G of the FLOPs are of what runs fused here, and is plain in an export')
    return counted._replace(fvcore=counted.fvcore + extra)


def default_name(found: FoundNetwork, model_id: int | None) -> str:
    number = '' if model_id is None else f'{model_id:02}_'
    return number + found.arch + ('_fused' if found.form == 'fused form' else '')


def splits_asked(year: Year, include_test: bool, hybrid_test: bool) -> tuple[str, ...]:
    if hybrid_test and 'hybrid_test' not in year.splits:
        raise UsageError(f'NTIRE {year.year} has no hybrid test set (2023 has); leave --hybrid-test out')
    if hybrid_test and include_test:
        raise UsageError('--hybrid-test takes the place of the validation and test sets; leave --include-test out')
    if hybrid_test:
        return ('hybrid_test',)
    return ('valid', 'test') if include_test else ('valid',)


def network_notes(model: str | FoundNetwork, found: FoundNetwork) -> list[str]:
    notes = []
    if isinstance(model, str) and model.endswith(ENDINGS):
        within = read_weights(Path(model))[2]
        if within:
            notes.append(
                f'{model} has its weights nested in {within}; the plain load_state_dict of a submission fails on that, '
                '`basicsr ntire export` writes them flat'
            )
    elif isinstance(model, str):
        notes.append('no checkpoint: the weights are those that the network starts with, so PSNR and SSIM tell nothing')
    if found.form == 'training form' and isinstance(found.network, Fusible):
        notes.append(f'{found.arch} has an fused form, which computes the same with other counts: --fused')
    return notes

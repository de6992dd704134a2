"""A network put through a year's NTIRE protocol, image by image, as the organisers' script does it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from earn_plugin.convert.networks import FoundNetwork, NetworkChoice, find_network
from earn_plugin.convert.weight_files import read_weights
from earn_plugin.devices import describe_device, find_device
from earn_plugin.errors import UsageError
from earn_plugin.measure.complexity import count_complexity, list_calls
from earn_plugin.ntire.image_pairs import check_path, find_pairs
from earn_plugin.ntire.official_run import RANGES, RunSettings, run_split
from earn_plugin.ntire.results import Entry, mean_of_runs, read_results, write_results
from earn_plugin.ntire.validation_report import ValidationReport
from earn_plugin.ntire.years import Year, find_year
from earn_plugin.protocols import Fusible

OFFICIAL_SIZE = (256, 256)  # of the image for which complexity is counted


@dataclass(frozen=True)
class Validation:
    """What to measure, and how.

    Raises:
        UsageError: values that the year or the network cannot have.
    """

    year: int  # 2022 to 2026: layout of the data, counter, gate, score and baseline
    data_dir: Path  # contains the year's folders, such as DIV2K_LSDIR_valid_HR and DIV2K_LSDIR_valid_LR
    track: str = 'efficient'  # or 'quality'
    data_range: float = 1.0  # of the network's input and output: 1, as for all of ours, or 255
    include_test: bool = False  # also the test set
    hybrid_test: bool = False  # the hybrid test set of 2023, instead of the validation set
    ssim: bool = False  # also SSIM
    limit: int | None = None  # only the first images of each split
    runs: int = 1  # of which the mean is reported; the organisers' is that of five
    device: str | None = None  # 'cpu', 'cuda', …; the GPU by default, where there is one
    name: str | None = None  # in the results; by default the network's, after the model_id
    model_id: int | None = None  # of the team: 7 gives 07_LGVAN, as in the official script
    save_dir: Path | None = None  # where the upscaled images are saved, as NAME/SPLIT/IMAGE.png
    results_dir: Path = Path()  # of results.json and results.txt

    def __post_init__(self):
        if self.data_range not in RANGES:
            raise UsageError(f'the data range must be 1 or 255, got {self.data_range:g}')
        if self.limit is not None and self.limit < 1:
            raise UsageError(f'the limit must be at least 1, got {self.limit}')
        if self.runs < 1:
            raise UsageError(f'the number of runs must be at least 1, got {self.runs}')
        if self.hybrid_test and 'hybrid_test' not in self.protocol.splits:
            raise UsageError(f'NTIRE {self.year} has no hybrid test set (2023 has); omit --hybrid-test')
        if self.hybrid_test and self.include_test:
            raise UsageError('--hybrid-test replaces the validation and test sets; omit --include-test')

    @property
    def protocol(self) -> Year:
        return find_year(self.year, self.track)

    @property
    def splits(self) -> tuple[str, ...]:
        if self.hybrid_test:
            return ('hybrid_test',)
        return ('valid', 'test') if self.include_test else ('valid',)


def validate(network: NetworkChoice | FoundNetwork, validation: Validation) -> ValidationReport:
    """Measure a ×4 network as NTIRE's organisers do, and add it to results.json and results.txt.

    Images are processed one by one in float32, the first one cold (in later runs warm); the output is clamped and
    rounded to uint8; PSNR excludes a border of 4 pixels, on RGB or, for the quality track, Y. Complexity is counted at
    3×256×256.

    Raises:
        UserError: what is wrong with the data, the network, or earlier results, before the run wherever possible. A
            data range that looks wrong gives a warning at the first image.
    """
    year = validation.protocol
    pairs, warnings = {}, []
    for split in validation.splits:
        pairs[split], found_warnings = find_pairs(validation.data_dir, year.splits[split], split, validation.limit)
        warnings += found_warnings
    warnings += check_path(str(validation.data_dir), year, validation.splits)
    device = find_device(validation.device)
    if device.type == 'meta':
        raise UsageError('the meta device computes nothing, so there is nothing to validate; choose another --device')
    found = network if isinstance(network, FoundNetwork) else find_network(network)
    warnings = network_warnings(network, found) + warnings  # what matters most first
    number = '' if validation.model_id is None else f'{validation.model_id:02}_'
    name = validation.name or number + found.arch + ('_fused' if found.form == 'fused form' else '')
    earlier = read_results(validation.results_dir / 'results.json', name, validation.splits)
    if name in earlier:
        warnings.append(f'the earlier run of {name} in results.json is replaced')

    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)  # otherwise it includes what this process did before
    settings = RunSettings(
        device=device,
        data_range=validation.data_range,
        track=validation.track,
        ssim=validation.ssim,
        trained=isinstance(network, FoundNetwork) or network.is_checkpoint,
        save_dir=None if validation.save_dir is None else validation.save_dir / name,
    )
    of_runs: list[Entry] = []
    for run in range(validation.runs):
        if run == 1:
            settings = replace(settings, compares_ranges=False, save_dir=None)  # as the first run has done
        of_runs.append({})
        for split in validation.splits:
            of_split, found_warnings = run_split(found.network.to(device).eval(), pairs[split], split, settings)
            of_runs[run] |= of_split
            warnings += found_warnings
    entry = mean_of_runs(of_runs)
    if found.form == 'training form' and isinstance(type(found.network), Fusible):
        warnings.append(f'{found.arch} has a fused form, the same function with other counts: --fused')
    by_fvcore = year.counter == 'fvcore'
    counted = count_complexity(found, OFFICIAL_SIZE, device, fvcore=by_fvcore)
    uncounted = counted.uncounted_by_fvcore if by_fvcore else counted.uncounted_by_hooks
    warnings.append(f'the FLOPs do not include what the counter does not count: {list_calls(uncounted)}')
    if by_fvcore and counted.fused_attention:
        plain = f'{counted.fused_attention / 1e9:.4f} G'
        warnings.append(f'the FLOPs include {plain} of attention, which is fused here and plain in an export')
    if device.type != 'cuda':
        left_out = ', which is not part of the score' if year.weights else ''
        what = f'memory is the peak resident memory of the process, and runtime that of the CPU{left_out}'
        warnings.append(f'without CUDA, {what}')
    entry |= {
        'activations': counted.activations / 1e6,
        'num_conv': counted.convs,
        'flops': (counted.exported_fvcore if by_fvcore else counted.hooks) / 1e9,
        'num_parameters': counted.params / 1e6,
    }
    write_results(validation.results_dir, {**earlier, name: entry})
    images = {split: len(found_pairs) for split, found_pairs in pairs.items()}
    return ValidationReport(
        name,
        found.form,
        year,
        describe_device(device),
        images,
        entry,
        list(dict.fromkeys(warnings)),
        on_gpu=device.type == 'cuda',
        of_runs=[{split: run[f'{split}_ave_runtime'] for split in validation.splits} for run in of_runs],
    )


def network_warnings(network: NetworkChoice | FoundNetwork, found: FoundNetwork) -> list[str]:
    warnings = []
    if isinstance(network, NetworkChoice) and not network.is_checkpoint:
        warnings.append('not a checkpoint: these are initial weights, so PSNR and SSIM mean nothing')
    elif isinstance(network, NetworkChoice) and (nested := read_weights(Path(network.model))[2]):
        warnings.append(
            f'{network.model} has its weights nested in {nested}, where load_state_dict of a submission would not find '
            'them; `basicsr ntire export` writes them flat'
        )
    return warnings

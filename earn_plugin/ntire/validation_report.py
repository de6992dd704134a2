"""What a run of a year's protocol found: the official entry, gate, score, and the baseline next to it."""

from dataclasses import dataclass, field
from statistics import fmean, median

from earn_plugin.ntire.official_run import WRONG_RANGE
from earn_plugin.ntire.results import Entry
from earn_plugin.ntire.years import RANKINGS, Year


@dataclass(frozen=True)
class ValidationReport:
    name: str
    form: str  # of the network: 'training form' or 'fused form'
    year: Year
    device: str
    images: dict[str, int]  # split → number of images
    entry: Entry  # as in results.json
    warnings: list[str]
    on_gpu: bool = True  # without, the runtime is not part of the score
    of_runs: list[dict[str, float]] = field(default_factory=list)  # split → mean runtime in ms, of each run

    @property
    def runtime(self) -> float:
        """The official mean in ms, over both splits where the test set is included."""
        return fmean(self.entry[f'{split}_ave_runtime'] for split in self.images)

    @property
    def passed(self) -> bool | None:
        """Whether the mean PSNRs pass the year's gate; None if the year has none."""
        gate = [self.entry[f'{split}_ave_psnr'] >= g for split, g in self.year.gate.items() if split in self.images]
        return all(gate) if gate else None

    @property
    def score(self) -> list[float] | None:
        """The terms of the year's score, of runtime, FLOPs and parameters; None if the year has none."""
        return self.year.score(self.runtime, self.entry['flops'], self.entry['num_parameters'])

    def __str__(self) -> str:
        rows = [row for split in self.images for row in self._split_rows(split)] + self._network_rows()
        counts = ', '.join(f'{number} images of {split}' for split, number in self.images.items())
        width, first = max(14, len(self.name) + 2), max(36, 2 + max(len(title) for title, *_ in rows))
        title = f'NTIRE {self.year.year}, {self.year.track} SR ×4: {self.name}, {self.form}, on {self.device}; {counts}'
        lines = [
            title,
            f'{"":{first}}{self.name:>{width}}{self.year.baseline.name + " (baseline)":>22}',
            *(f'{title:<{first}}{ours:>{width}}{baseline:>22}' for title, ours, baseline in rows),
            *(f'eligible, {ranking}: {answer}' for ranking, answer in self.eligibility.items()),
            *(f'warning: {warning}' for warning in self.warnings if not warning.startswith(WRONG_RANGE)),  # printed
        ]
        return '\n'.join(lines)

    @property
    def eligibility(self) -> dict[str, str]:
        """Ranking → 'yes', or why not, by what was measured; empty for a year without a gate.

        Figures are compared at the precision of the official table.
        """
        if self.passed is None:
            return {}
        figures = {
            'runtime': self.runtime if self.on_gpu else None,
            'FLOPs': self.entry['flops'],
            'parameters': self.entry['num_parameters'],
        }
        worse, answers = {}, {}
        for name, (limit, unit, digits) in self.year.limits().items():
            if figures[name] is not None and round(figures[name], digits) > limit:
                worse[name] = f'{name} {figures[name]:.{digits}f} {unit} > {limit:g} {unit}'
        for ranking, needed in RANKINGS.items():
            reasons = [] if self.passed else ['the PSNR misses the gate']
            reasons += [worse[name] for name in needed if name in worse]
            answers[ranking] = f'no, {"; ".join(reasons)}' if reasons else 'yes'
            if not reasons and 'runtime' in needed and not self.on_gpu:
                answers[ranking] = f"if the runtime on the organisers' GPU is at most {self.year.baseline.runtime:g} ms"
        return answers

    def _split_rows(self, split: str) -> list[tuple[str, str, str]]:
        entry, gate = self.entry, self.year.gate
        channels = 'Y' if self.year.track == 'quality' else 'RGB'
        required = f'gate {gate[split]:.2f}' if split in gate else '–'
        rows = [(f'{split} PSNR, {channels} [dB]', f'{entry[f"{split}_ave_psnr"]:.4f}', required)]
        if f'{split}_ave_ssim' in entry:
            rows.append((f'{split} SSIM', f'{entry[f"{split}_ave_ssim"]:.4f}', '–'))
        times, official = entry[f'{split}_runtime'], entry[f'{split}_ave_runtime']
        return [
            *rows,
            (f'{split} runtime, official mean [ms]', f'{official:.2f}', _number(self.year.baseline.runtime)),
            *self._runs_row(split),
            ('    without the first image', _number(fmean(times[1:]) if len(times) > 1 else None), ''),
            ('    median', f'{median(times):.2f}', ''),
            (f'{split} memory [MiB]', f'{entry[f"{split}_memory"]:.2f}', '–'),
        ]

    def _runs_row(self, split: str) -> list[tuple[str, str, str]]:
        means = [run[split] for run in self.of_runs]
        if len(means) < 2:
            return []
        return [(f'    of {len(means)} runs, lowest to highest', f'{min(means):.2f}–{max(means):.2f}', '')]

    def _network_rows(self) -> list[tuple[str, str, str]]:
        entry, base = self.entry, self.year.baseline
        counter = 'fvcore' if self.year.counter == 'fvcore' else 'module hooks'
        rows = [
            ('parameters [M]', f'{entry["num_parameters"]:.6f}', _number(base.params, 3)),
            (f'FLOPs, {counter} [G]', f'{entry["flops"]:.4f}', _number(base.flops)),
            ('activations [M]', f'{entry["activations"]:.4f}', _number(base.activations)),
            ('convs', str(entry['num_conv']), _number(base.convs, 0)),
        ]
        if self.passed is not None:
            rows.append(('PSNR gate', 'passed' if self.passed else 'missed', ''))
        if self.score is not None:
            of_base = self.year.score(base.runtime, base.flops, base.params)
            score = [_points(term) for term in (sum(self.score), *self.score)]
            if not self.on_gpu:
                score[:2] = '––'
            titles = ('score, lower is better', '    of runtime', '    of FLOPs', '    of parameters')
            rows += zip(titles, score, map(_points, (sum(of_base), *of_base)), strict=True)
            equal = self.year.equal_runtime(entry['flops'], entry['num_parameters'])
            rows.append(
                ('    equal at a runtime of [ms]', 'none' if equal is None else f'{equal:.2f}', f'{base.runtime}')
            )
        return rows


def _number(value: float | None, digits: int = 2) -> str:
    return '–' if value is None else f'{value:.{digits}f}'


def _points(value: float) -> str:
    return f'{value:.4f}' if value < 1e6 else f'{value:.2e}'

"""What a run of a year's protocol found: the official entry, gate, score, and the baseline next to it."""

from dataclasses import dataclass
from statistics import fmean, median

from earn_plugin.ntire.results import Entry
from earn_plugin.ntire.years import Year


@dataclass(frozen=True)
class ValidationReport:
    name: str
    form: str  # of the network: 'training form' or 'fused form'
    year: Year
    device: str
    images: dict[str, int]  # split → number of images
    entry: Entry  # as in results.json
    warnings: list[str]

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
            *(f'warning: {warning}' for warning in self.warnings),
        ]
        return '\n'.join(lines)

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
            ('    without the first image', _number(fmean(times[1:]) if len(times) > 1 else None), ''),
            ('    median', f'{median(times):.2f}', ''),
            (f'{split} memory [MiB]', f'{entry[f"{split}_memory"]:.2f}', '–'),
        ]

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
            rows.append(('score, lower is better', _points(sum(self.score)), _points(sum(of_base))))
            for title, ours, baseline in zip(('runtime', 'FLOPs', 'parameters'), self.score, of_base, strict=True):
                rows.append((f'    of {title}', _points(ours), _points(baseline)))
        return rows


def _number(value: float | None, digits: int = 2) -> str:
    return '–' if value is None else f'{value:.{digits}f}'


def _points(value: float) -> str:
    return f'{value:.4f}' if value < 1e6 else f'{value:.2e}'

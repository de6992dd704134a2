"""What each year of the NTIRE challenge on efficient super-resolution (×4) requires: data, counter, gate, packages.

Source: the official repositories and reports of the years. The quality track is the ×4 image SR challenge.
"""

import math
from typing import NamedTuple

from earn_plugin.errors import UsageError


class Layout(NamedTuple):
    """Where a split's images are in the data folder: HR/NAME.png and LR/NAME + suffix + .png."""

    hr: str
    lr: str
    suffix: str
    numbers: range | None = None  # of the official images, where they are numbered: 0801.png, …
    images: int = 0  # officially; 0 if not published

    def belongs(self, stem: str) -> bool:
        return self.numbers is None or (len(stem) == 4 and stem.isdecimal() and int(stem) in self.numbers)


class Baseline(NamedTuple):
    """Model 0 of a year; its figures have the units of the official table, None if not published."""

    name: str
    runtime: float | None = None  # ms
    flops: float | None = None  # G, by the year's counter
    params: float | None = None  # M
    activations: float | None = None  # M
    convs: int | None = None


# What a submission may import in addition to the standard library: what the organisers' own scripts import, and from
# 2024 on also what a network may need of the packages in their requirements.txt.
SCRIPTS_IMPORT = ('torch', 'torchvision', 'numpy', 'cv2', 'matplotlib')
REQUIRED = (
    *('PIL', 'einops', 'fvcore', 'h5py', 'huggingface_hub', 'imageio', 'lpips', 'networkx', 'pandas', 'pywt', 'scipy'),
    *('skimage', 'sympy', 'timm', 'torchmetrics', 'torchsummary', 'tqdm', 'triton', 'typing_extensions', 'yaml'),
)
REQUIRED_FOR_QUALITY = ('PIL', 'einops', 'lmdb', 'scipy', 'sklearn', 'timm', 'tqdm', 'yaml')


# Of a year with a gate. Ranking → what must be no worse than the baseline's, in addition to the gate's PSNR.
RANKINGS = {
    'overall': (),
    'runtime sub-track': ('FLOPs', 'parameters'),
    'FLOPs sub-track': ('runtime', 'parameters'),
    'parameters sub-track': ('runtime', 'FLOPs'),
}


class Year(NamedTuple):
    year: int
    track: str
    baseline: Baseline
    splits: dict[str, tuple[Layout, ...]]  # valid, test, hybrid_test; the first layout that exists is used
    counter: str  # 'hooks' or 'fvcore'
    gate: dict[str, float] = {}  # split → required PSNR in dB
    weights: tuple[float, float, float] | None = None  # of runtime, FLOPs and parameters in the score
    packages: tuple[str, ...] = SCRIPTS_IMPORT  # that a submission may import

    def score(self, runtime: float, flops: float, params: float) -> list[float] | None:
        """The terms of the score: w·exp(2·m/m_base); lower is better. None for a year without a score.

        Args:
            runtime, flops, params: in ms, G and M.
        """
        if self.weights is None:
            return None
        base = self.baseline.runtime, self.baseline.flops, self.baseline.params
        figures = (runtime, flops, params)
        return [w * math.exp(min(2 * m / b, 700)) for w, m, b in zip(self.weights, figures, base, strict=True)]

    def limits(self) -> dict[str, tuple[float | None, str, int]]:
        """The baseline's figures: name → value, unit, decimals in the official table."""
        base = self.baseline
        return {
            'runtime': (base.runtime, 'ms', 2),
            'FLOPs': (base.flops, 'G', 2),
            'parameters': (base.params, 'M', 3),
        }

    def equal_runtime(self, flops: float, params: float) -> float | None:
        """The runtime in ms with which the score equals the baseline's; None if the other two terms exceed that."""
        left = math.e**2 - sum(self.score(0, flops, params)[1:])
        return self.baseline.runtime / 2 * math.log(left / self.weights[0]) if left > self.weights[0] else None


DIV2K_VALID = Layout('DIV2K_valid_HR', 'DIV2K_valid_LR', 'x4', range(801, 901), 100)
DIV2K_TEST = Layout('DIV2K_test_HR', 'DIV2K_test_LR', '', range(901, 1001), 100)
HYBRID_TEST = Layout('LSDIR_DIV2K_test_HR', 'LSDIR_DIV2K_test_LR', 'x4')
MIXED_VALID = Layout('DIV2K_LSDIR_valid_HR', 'DIV2K_LSDIR_valid_LR', 'x4', images=200)
MIXED_TEST = Layout('DIV2K_LSDIR_test_HR', 'DIV2K_LSDIR_test_LR', 'x4')
LSDIR_VALID = Layout('LSDIR_DIV2K_valid_HR', 'LSDIR_DIV2K_valid_LR', 'x4', images=200)  # in scripts of 2024

DIV2K = {'valid': (DIV2K_VALID,), 'test': (DIV2K_TEST,)}
MIXED = {'valid': (MIXED_VALID,), 'test': (MIXED_TEST,)}
EITHER = {'valid': (MIXED_VALID, LSDIR_VALID), 'test': (MIXED_TEST, HYBRID_TEST)}
QUALITY = {'valid': (DIV2K_VALID, MIXED_VALID, Layout('HR', 'LQ', 'x4')), 'test': (DIV2K_TEST, MIXED_TEST)}
GATE = {'valid': 26.90, 'test': 26.99}

RFDN = Baseline('RFDN', None, 27.10262256, 0.433448, 112.03424, 64)
RLFN = Baseline('RLFN', 13.54, 19.67, 0.317)
EFDN = Baseline('EFDN', 16.69, 16.70, 0.276)
SPAN = Baseline('SPAN', 7.74, 9.83, 0.151)

YEARS = [
    Year(2022, 'efficient', RFDN, DIV2K, 'hooks'),
    Year(2023, 'efficient', RFDN, {**DIV2K, 'hybrid_test': (HYBRID_TEST,)}, 'hooks'),
    Year(2024, 'efficient', RLFN, EITHER, 'fvcore', GATE, (0.7, 0.15, 0.15), SCRIPTS_IMPORT + REQUIRED),
    Year(2025, 'efficient', EFDN, MIXED, 'fvcore', GATE, (0.7, 0.15, 0.15), SCRIPTS_IMPORT + REQUIRED),
    Year(2026, 'efficient', SPAN, MIXED, 'fvcore', GATE, (0.8, 0.1, 0.1), SCRIPTS_IMPORT + REQUIRED),
    Year(2025, 'quality', Baseline('DAT'), QUALITY, 'hooks', packages=SCRIPTS_IMPORT + REQUIRED_FOR_QUALITY),
    Year(2026, 'quality', Baseline('DAT'), QUALITY, 'hooks', packages=SCRIPTS_IMPORT + REQUIRED_FOR_QUALITY),
]


def find_year(year: int, track: str = 'efficient') -> Year:
    """What a year requires.

    Raises:
        UsageError: an unknown year; names those that are known.
    """
    for known in YEARS:
        if (known.year, known.track) == (year, track):
            return known
    listed = ', '.join(f'{known.year} ({known.track})' for known in YEARS)
    raise UsageError(f'the protocol of {year}, {track} track, is not known; known: {listed}')

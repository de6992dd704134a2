"""What the sections of a report share: the run, its network on a device, and its validation sets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from earn_plugin.convert.networks import FoundNetwork, NetworkChoice
from earn_plugin.errors import UserError
from earn_plugin.figures.run_log import RunLog, read_run
from earn_plugin.inference.layout import faster_layout
from earn_plugin.inference.padding import for_any_size
from earn_plugin.inference.upscaling import measure_scale
from earn_plugin.report.recorded_run import RecordedRun
from earn_plugin.report.validation_pictures import MeasuredImage, ValidationComparison
from earn_plugin.training.validation import explain

T = TypeVar('T')


@dataclass
class ReportedRun:
    """A run, and what is computed of it once for all sections.

    ``count``: images that are shown of each set; ``file``: that of the network, once it is found.
    """

    run: RecordedRun
    device: torch.device
    count: int
    file: Path | None = None

    @cached_property
    def values(self) -> RunLog:
        return read_run(str(self.run.folder))

    @cached_property
    def found(self) -> FoundNetwork | UserError:
        """The latest network on the device, or why there is none."""
        return attempt(self._find)

    def _find(self) -> FoundNetwork:
        self.file = self.run.network_file()
        found = self.run.network(self.file)
        faster_layout(found.network.to(self.device))
        return found

    @cached_property
    def channels_and_scale(self) -> tuple[int, int]:
        """Of the network; without one, RGB and what the options say."""
        measured = attempt(lambda: measure_scale(needed(self.found).network))
        return (3, self.run.options.get('scale') or 1) if isinstance(measured, UserError) else measured

    @property
    def scale(self) -> int:
        return self.channels_and_scale[1]

    def choice(self) -> NetworkChoice:
        """The same network, for what loads it again; also if the run has written another one meanwhile.

        Raises:
            UserError: there is none.
        """
        found = needed(self.found)
        return NetworkChoice(str(self.file), found.arguments, found.arch)

    @cached_property
    def compared(self) -> list[tuple[ValidationComparison, list[MeasuredImage]]] | UserError:
        """The validation sets with the metrics of their images, or why there are none."""
        return attempt(self._compare)

    def _compare(self) -> list[tuple[ValidationComparison, list[MeasuredImage]]]:
        network = None
        if isinstance(self.found, FoundNetwork):
            network = for_any_size(self.found.network, *self.channels_and_scale)
        if not (options := self.run.validation_sets()):
            what = 'has no validation set' if self.run.options else 'has recorded no options'
            raise UserError(f'{self.run.folder} {what}')
        sets = [ValidationComparison(opt, self.metrics, self.scale, network) for opt in options]
        return [(one, one.compare()) for one in sets]

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Those of the run's validation; also PSNR and SSIM on Y as papers print them, if it has none of that type."""
        own = (self.run.options.get('val') or {}).get('metrics') or {}
        types = {metric['type'] for metric in own.values()}
        usual = {'crop_border': self.scale, 'test_y_channel': True}
        added = {
            name: {'type': f'calculate_{name}', **usual}
            for name in ('psnr', 'ssim')
            if f'calculate_{name}' not in types
        }
        return own | {name: metric for name, metric in added.items() if name not in own}


def attempt(make: Callable[[], T]) -> T | UserError:
    """What a function returns, or why it fails."""
    try:
        return make()
    except Exception as error:  # networks, metrics and data sets may raise anything
        return UserError(explain(error))


def needed(found: T | UserError) -> T:
    """What ``attempt`` has returned; raises the UserError that it may be."""
    if isinstance(found, UserError):
        raise found
    return found

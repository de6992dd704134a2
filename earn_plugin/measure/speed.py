"""The speed of a network's forms, measured interleaved: training form and fused form, by memory format and dtype."""

import copy
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from earn_plugin.atomic_files import write_file
from earn_plugin.convert.networks import FoundNetwork, NetworkChoice, find_network, fuse_network, output_of
from earn_plugin.devices import describe_device, find_device, to_channels_last
from earn_plugin.errors import UsageError, UserError
from earn_plugin.measure.memory import peak_bytes

PARTS = {
    'trained': 'training form',
    'fused': 'fused form',
    'channels_last': 'channels_last',
    'bf16': 'bf16',
    'compiled': 'compiled',
}
FORMS = ('trained', 'channels_last', 'bf16', 'fused', 'fused+bf16', 'compiled')
MEMORY = 'tensors that a run creates, without weights and input'
Row = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """What to measure.

    Raises:
        UsageError: a number below 1, or an unknown form.
    """

    size: Sequence[int] = (256, 256)  # height and width of the input, in pixels
    batch: int = 1  # images at a time
    repeats: int = 7  # timed runs of each form
    device: str | None = None  # cpu or cuda; None for cuda where there is one
    forms: Sequence[str] = FORMS  # parts joined by +, such as fused+bf16; ratios are relative to the first that runs
    threads: int | None = None  # of the CPU; None for torch's own choice
    json: Path | None = None  # where to write the table

    def __post_init__(self):
        if min(*self.size, self.batch, self.repeats, 1 if self.threads is None else self.threads) < 1:
            raise UsageError('size, batch, repeats and threads must be at least 1')
        for part in {part for form in self.forms for part in form.split('+')}:
            if part not in PARTS:
                raise UsageError(f'no form {part!r}; possible: {", ".join(PARTS)}, and several joined by +')


class Form:
    """One form of a network on a device; calling it runs it once and waits for the result.

    Args:
        name: some of PARTS, joined by +; the training form unless ``fused`` is among them.

    Raises:
        UserError: the network has no such form.
    """

    def __init__(self, found: FoundNetwork, name: str, x: Tensor):
        self.parts = name.split('+')
        if 'fused' in self.parts:
            found = fuse_network(found)
        elif found.form == 'fused form':
            raise UserError('there is only the fused form')
        network = copy.deepcopy(found.network).to(x.device)
        self.x = x
        if 'bf16' in self.parts:
            network, self.x = network.bfloat16(), self.x.bfloat16()
        if 'channels_last' in self.parts:
            self.x = self.x.contiguous(memory_format=torch.channels_last)
            to_channels_last(network)
        self.network: nn.Module = torch.compile(network) if 'compiled' in self.parts else network

    @torch.inference_mode()
    def __call__(self) -> Tensor:
        out = output_of(self.network, self.x)
        if out.is_cuda:
            torch.cuda.synchronize()
        return out

    def peak_bytes(self) -> int | None:
        """Most bytes of the tensors that a run creates, at one time; None if compiled code hides them."""
        return None if 'compiled' in self.parts and not self.x.is_cuda else peak_bytes(self, self.x.device)


def interleaved_medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turn ``repeats`` times after a first round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in tqdm(range(repeats + 1), desc='interleaved', unit='round', disable=None):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure_rows(
    names: Sequence[str], build: Callable[[str, Row], Callable[[], object]], repeats: int, what: str
) -> list[Row]:
    """Median time of what is built by each name, interleaved, relative to the first; a reason for each that fails.

    Args:
        build: returns what is to be run, which it has run once, and may add to the row.
        what: the names, for the message: 'form of LGVAN'.

    Raises:
        UserError: none of them can run.
    """
    built, failure, rows = {}, None, {name: {what.split()[0]: name} for name in names}
    for name, row in tqdm(rows.items(), desc='build', unit=what.split()[0], disable=None):
        try:
            built[name] = build(name, row)
        except Exception as error:  # a compiler may fail in any way; the others can still run
            if not isinstance(error, (UserError, RuntimeError)) and 'compile' not in name:
                raise
            line = next(iter(str(error).strip().splitlines()), '')
            failure = failure or error
            row['failure'] = line if isinstance(error, UserError) else f'{type(error).__name__}: {line:.100}'
    if not built:
        kind = UsageError if isinstance(failure, UsageError) else UserError
        raise kind(f'no {what} runs: {rows[names[0]]["failure"]}')
    seconds = interleaved_medians(built, repeats)
    first = next(iter(seconds.values()))
    for name, median in seconds.items():
        rows[name] |= {'median_ms': median * 1000, 'ratio': first / median}
    return list(rows.values())


def measure_forms(found: FoundNetwork, forms: Sequence[str], x: Tensor, repeats: int) -> list[Row]:
    """Median time, speed and peak memory of each form, interleaved; a reason for each that cannot run.

    Args:
        x: N×C×H×W in [0, 1], on the device.

    Raises:
        UserError: none of the forms can run.
    """

    def build(name: str, row: Row) -> Form:
        form = Form(found, name, x)
        out = form()
        row['megapixels'] = out.shape[0] * out.shape[2:].numel() / 1e6
        row['peak_memory_bytes'] = form.peak_bytes()
        return form

    rows = measure_rows(forms, build, repeats, f'form of {found.arch}')
    for row in rows:
        if 'failure' not in row:
            row['megapixels_per_second'] = row.pop('megapixels') / row['median_ms'] * 1000
    return rows


def print_forms(rows: list[Row]) -> None:
    print(f'{"form":<24}{"median ms":>10}{"peak MiB":>10}{"MP/s":>9}{"ratio":>8}')
    for row in rows:
        title = ', '.join(PARTS[part] for part in row['form'].split('+'))
        if 'failure' in row:
            print(f'{title:<24}{row["failure"]}')
            continue
        peak = row['peak_memory_bytes']
        memory = '–' if peak is None else f'{peak / 2**20:.1f}'
        speed = f'{row["megapixels_per_second"]:>9.2f}{row["ratio"]:>8.2f}'
        print(f'{title:<24}{row["median_ms"]:>10.1f}{memory:>10}{speed}')


def benchmark_network(choice: NetworkChoice, benchmark: Benchmark) -> None:
    """Print a table of a network's forms on this machine, and write it as JSON where a file is given.

    Raises:
        UserError: no such network or device, or no form that runs.
    """
    device = find_device(benchmark.device)
    if benchmark.threads is not None:
        torch.set_num_threads(benchmark.threads)
    found = find_network(choice)
    x = torch.rand(benchmark.batch, found.arguments.get('num_in_ch', 3), *benchmark.size, device=device)
    about = {
        'network': str(found),
        'input': list(x.shape),
        'machine': describe_device(device),
        'torch': torch.__version__,
        'repeats': benchmark.repeats,
        'memory': MEMORY,
    }
    rows = measure_forms(found, list(dict.fromkeys(benchmark.forms)), x, benchmark.repeats)
    print(f'{about["network"]}, {"×".join(map(str, x.shape))}\n{about["machine"]}, torch {about["torch"]}')
    print(f'medians of {benchmark.repeats} interleaved runs; memory: {MEMORY}')
    print_forms(rows)
    if benchmark.json is not None:
        write_file(benchmark.json, json.dumps({**about, 'forms': rows}, indent=2, ensure_ascii=False).encode())

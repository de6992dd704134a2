"""A network's forms, measured side by side: as trained, in its fused form, and each by memory format and dtype."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from earn_plugin.atomic_files import atomic_file
from earn_plugin.convert.networks import FoundNetwork, find_network, fused_form, output_of
from earn_plugin.errors import UsageError, UserError
from earn_plugin.measure.memory import machine, medians, peak_memory

PARTS = {
    'trained': 'as trained',
    'fused': 'fused form',
    'channels_last': 'channels_last',
    'bf16': 'bf16',
    'compiled': 'compiled',
}
FORMS = ('trained', 'channels_last', 'bf16', 'fused', 'fused+bf16', 'compiled')
Row = dict[str, Any]


class Form:
    """One form of a network on a device; calling it runs it once, to the end.

    Args:
        name: some of PARTS, joined by +; without fused it is the network as trained.

    Raises:
        UserError: the network has no such form.
    """

    def __init__(self, found: FoundNetwork, name: str, x: torch.Tensor):
        self.parts = name.split('+')
        if 'fused' in self.parts:
            found = fused_form(found)
        elif found.form == 'fused form':
            raise UserError('there is only the fused form')
        layout = torch.channels_last if 'channels_last' in self.parts else torch.contiguous_format
        dtype = torch.bfloat16 if 'bf16' in self.parts else torch.float32
        network = copy.deepcopy(found.network).to(x.device, dtype, memory_format=layout)
        self.network: nn.Module = torch.compile(network) if 'compiled' in self.parts else network
        self.x = x.to(dtype, memory_format=layout)

    @torch.inference_mode()
    def __call__(self) -> torch.Tensor:
        out = output_of(self.network, self.x)
        if out.is_cuda:
            torch.cuda.synchronize()
        return out

    def peak_memory(self) -> int | None:
        """Bytes of the tensors that a run makes, when they are the most; None where no one sees them."""
        if self.x.is_cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self()
            return torch.cuda.max_memory_allocated() - before
        return None if 'compiled' in self.parts else peak_memory(self)


def measure_network(found: FoundNetwork, forms: Sequence[str], x: torch.Tensor, repeats: int) -> list[Row]:
    """Median time, speed and peak memory of each form, the forms by turns; a note where one cannot run.

    Args:
        x: N×C×H×W in [0, 1], on the device.

    Raises:
        UserError: none of the forms can run.
    """
    built, rows, pixels = {}, {}, 0
    with tqdm(total=len(forms) * (repeats + 1), unit='run', desc='build and warm up', disable=None) as bar:
        for name in forms:
            bar.set_description(f'build {name}')
            rows[name] = {'form': name}
            try:
                form = Form(found, name, x)
                out = form()
                rows[name]['peak_memory_bytes'] = form.peak_memory()
            except Exception as error:  # a compiler may fail in any way; the other forms can run all the same
                if not isinstance(error, (UserError, RuntimeError)) and 'compiled' not in name:
                    raise
                rows[name]['note'] = note_of(error)
                bar.total -= repeats + 1
                continue
            pixels = out.shape[0] * out.shape[2:].numel() / 1e6
            built[name] = form
        if not built:
            raise UserError(f'no form of {found.arch} runs: {next(iter(rows.values()))["note"]}')
        bar.set_description('by turns')
        seconds = medians(built, repeats, after=bar.update)
    first = next(iter(seconds.values()))
    for name, median in seconds.items():
        rows[name] |= {
            'median_ms': median * 1000,
            'megapixels_per_second': pixels / median,
            'ratio': first / median,
        }
    return list(rows.values())


def note_of(error: Exception) -> str:
    """The first sentence of an error, with its kind where it is none of ours."""
    line = next(iter(str(error).strip().splitlines()), '')[:100]
    return line if isinstance(error, UserError) else f'{type(error).__name__}: {line}'


def show(rows: list[Row]) -> None:
    print(f'{"form":<24}{"median ms":>10}{"peak MiB":>10}{"MP/s":>9}{"ratio":>8}')
    for row in rows:
        title = ', '.join(PARTS[part] for part in row['form'].split('+'))
        if 'note' in row:
            print(f'{title:<24}{row["note"]}')
            continue
        peak = row['peak_memory_bytes']
        memory = '–' if peak is None else f'{peak / 2**20:.1f}'
        speed = f'{row["megapixels_per_second"]:>9.2f}{row["ratio"]:>8.2f}'
        print(f'{title:<24}{row["median_ms"]:>10.1f}{memory:>10}{speed}')


def benchmark_network(
    what: str,
    arguments: dict[str, Any],
    size: Sequence[int] = (256, 256),
    batch: int = 1,
    repeats: int = 7,
    device: str | None = None,
    forms: Sequence[str] = FORMS,
    threads: int | None = None,
    file: Path | None = None,
    arch: str | None = None,
) -> None:
    """Print a table of a network's forms on this machine, and write it as JSON where a file is given.

    Args:
        what: a checkpoint or a registered name, with ``arguments`` as far as it does not tell them.
        size: height and width of the input, in pixels.
        device: cpu or cuda; None is cuda where there is one.
        forms: what to measure, parts joined by +; ratios are to the first that runs.
        threads: of the CPU; None leaves torch's own choice.
        arch: the network that a checkpoint is of, where the file does not tell.

    Raises:
        UserError: no such network or device, no such form, or none that runs.
    """
    if min(*size, batch, repeats, 1 if threads is None else threads) < 1:
        raise UsageError('size, batch, repeats and threads must be at least 1')
    for part in {part for form in forms for part in form.split('+')}:
        if part not in PARTS:
            raise UsageError(f'no form {part!r}; possible: {", ".join(PARTS)}, and several joined by +')
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if device == 'cuda' and not torch.cuda.is_available():
        raise UsageError('there is no CUDA device that torch can use; `basicsr doctor` tells more')
    if threads is not None:
        torch.set_num_threads(threads)
    found = find_network(what, arguments, arch=arch)
    x = torch.rand(batch, found.arguments.get('num_in_ch', 3), *size, device=device)
    listed = ', '.join(f'{name}={value}' for name, value in found.arguments.items())
    about = {
        'network': f'{found.arch}({listed})',
        'input': list(x.shape),
        'machine': machine(device),
        'torch': torch.__version__,
        'repeats': repeats,
        'memory': 'tensors that a run makes, without weights and input',
    }
    rows = measure_network(found, list(dict.fromkeys(forms)), x, repeats)
    print(f'{about["network"]}, {"×".join(map(str, x.shape))}\n{about["machine"]}, torch {about["torch"]}')
    print(f'medians of {repeats} runs by turns; memory: {about["memory"]}')
    show(rows)
    if file is not None:
        try:
            with atomic_file(file) as opened:
                opened.write(json.dumps({**about, 'forms': rows}, indent=2, ensure_ascii=False).encode())
        except OSError as error:
            raise UserError(f'cannot write {file}: {error}') from error

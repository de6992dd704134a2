"""results.json, to which each run adds its network, and results.txt, its table: both in the official format."""

import json
from pathlib import Path
from typing import Any

from earn_plugin.atomic_files import write_file
from earn_plugin.errors import UserError

Entry = dict[str, Any]
SPLITS = ('valid', 'test', 'hybrid_test')
WITHOUT_TEST = '{:20s}\t{:10s}\t{:14s}\t{:10s}\t{:10s}\t{:8s}\t{:8s}\t{:8s}\n'
WITH_TEST = '{:20s}\t{:10s}\t{:10s}\t{:14s}\t{:14s}\t{:14s}\t{:10s}\t{:10s}\t{:8s}\t{:8s}\t{:8s}\n'
COUNTS = ('Params [M]', 'FLOPs [G]', 'Acts [M]', 'Mem [M]', 'Conv')


def split_entry(split: str, runtime: list[float], psnr: list[float], ssim: list[float], memory: float) -> Entry:
    """What the official script records of a split. Runtimes are in ms and include the first image."""
    entry: Entry = {f'{split}_runtime': runtime, f'{split}_psnr': psnr}
    if ssim:
        entry[f'{split}_ssim'] = ssim
    entry[f'{split}_memory'] = memory
    for what in ('runtime', 'psnr', 'ssim'):
        if values := entry.get(f'{split}_{what}'):
            entry[f'{split}_ave_{what}'] = sum(values) / len(values)
    return entry


def splits_in(entry: Entry) -> tuple[str, ...]:
    return tuple(split for split in SPLITS if f'{split}_ave_psnr' in entry)


def read_results(path: Path, name: str, splits: tuple[str, ...]) -> dict[str, Entry]:
    """The earlier runs, to which one of ``name`` on ``splits`` can be added.

    Raises:
        UserError: the file is not NTIRE's, or its runs do not fit into one table with this one: they are on other
            splits, or lack figures.
    """
    try:
        results = json.loads(path.read_text(encoding='utf-8'))
        others = {other: splits_in(entry) for other, entry in results.items() if other != name}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f'{path} is not a results.json of NTIRE ({error}); move it, or set --results-dir') from error
    for other, other_splits in others.items():
        if other_splits != splits:
            raise UserError(
                f'{path} has {other} on {" and ".join(other_splits) or "nothing"}, but this run is on '
                f'{" and ".join(splits)}, and one table cannot hold both. Use the same --include-test and '
                '--hybrid-test, or another folder by --results-dir'
            )
    if others:
        official_table({other: results[other] for other in others})
    return results


def write_results(folder: Path, results: dict[str, Entry]) -> None:
    """Write results.json and results.txt.

    Raises:
        UserError: an entry lacks a figure of the table, or a file cannot be written.
    """
    for name, content in {'results.json': json.dumps(results), 'results.txt': official_table(results)}.items():
        write_file(folder / name, content.encode())


def official_table(results: dict[str, Entry]) -> str:
    """The official table; all entries must have the same splits."""
    splits = splits_in(next(iter(results.values())))
    if 'test' in splits:
        times = ('Val Time [ms]', 'Test Time [ms]', 'Ave Time [ms]')
        text = WITH_TEST.format('Model', 'Val PSNR', 'Test PSNR', *times, *COUNTS)
    else:
        text = WITHOUT_TEST.format('Model', 'Val PSNR', 'Val Time [ms]', *COUNTS)
    for name, entry in results.items():
        try:
            text += _row(name, entry, splits)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'results.json: {name} has no valid {error}; remove the entry, or run it again') from error
    return text


def _row(name: str, entry: Entry, splits: tuple[str, ...]) -> str:
    main = splits[0]
    psnr, time = f'{entry[f"{main}_ave_psnr"]:2.2f}', f'{entry[f"{main}_ave_runtime"]:3.2f}'
    counts = (
        f'{entry["num_parameters"]:2.3f}',
        f'{entry["flops"]:2.2f}',
        f'{entry["activations"]:2.2f}',
        f'{entry[f"{main}_memory"]:2.2f}',
        f'{entry["num_conv"]:4d}',
    )
    if 'test' not in splits:
        return WITHOUT_TEST.format(name, psnr, time, *counts)
    average = (entry['valid_ave_runtime'] + entry['test_ave_runtime']) / 2
    times = (time, f'{entry["test_ave_runtime"]:3.2f}', f'{average:3.2f}')
    return WITH_TEST.format(name, psnr, f'{entry["test_ave_psnr"]:2.2f}', *times, *counts)

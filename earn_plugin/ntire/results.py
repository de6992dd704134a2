"""results.json, to which each run adds its network, and results.txt, its table: both in the official format."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from earn_plugin.atomic_files import write_file
from earn_plugin.errors import UserError

Entry = dict[str, Any]
SPLITS = ('valid', 'test', 'hybrid_test')


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


def mean_of_runs(runs: list[Entry]) -> Entry:
    """One entry of several runs on the same images: the mean runtimes, the largest memory, the PSNR of the first."""
    mean = dict(runs[0])
    for key in mean:
        if key.endswith('_memory'):
            mean[key] = max(run[key] for run in runs)
        elif key.endswith('_ave_runtime'):
            mean[key] = fmean(run[key] for run in runs)
        elif key.endswith('_runtime'):
            mean[key] = [fmean(times) for times in zip(*(run[key] for run in runs), strict=True)]
    return mean


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
    main = splits[0]
    columns = [  # title, width, key, format
        ('Val PSNR', 10, f'{main}_ave_psnr', '.2f'),
        ('Test PSNR', 10, 'test_ave_psnr', '.2f'),
        ('Val Time [ms]', 14, f'{main}_ave_runtime', '.2f'),
        ('Test Time [ms]', 14, 'test_ave_runtime', '.2f'),
        ('Ave Time [ms]', 14, 'ave_runtime', '.2f'),
        ('Params [M]', 10, 'num_parameters', '.3f'),
        ('FLOPs [G]', 10, 'flops', '.2f'),
        ('Acts [M]', 8, 'activations', '.2f'),
        ('Mem [M]', 8, f'{main}_memory', '.2f'),
        ('Conv', 8, 'num_conv', '4d'),
    ]
    if 'test' not in splits:
        columns = [column for column in columns if not column[0].startswith(('Test', 'Ave'))]
    rows = [['Model', *(title for title, *_ in columns)]]
    for name, entry in results.items():
        try:
            times = [entry[f'{split}_ave_runtime'] for split in splits]
            figures = {**entry, 'ave_runtime': sum(times) / len(times)}
            rows.append([name, *(f'{figures[key]:{form}}' for _, _, key, form in columns)])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'results.json: {name} has no valid {error}; remove the entry, or run it again') from error
    widths = [20, *(width for _, width, *_ in columns)]
    return ''.join('\t'.join(map(str.ljust, row, widths)) + '\n' for row in rows)

"""Runs an ablation: each variant with each seed is a training of its own; then a table, its numbers and curves."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from threading import Event
from typing import Any

import yaml

from earn_plugin.atomic_files import write_file
from earn_plugin.errors import UserError
from earn_plugin.figures.ablation_file import Variant, read_ablation
from earn_plugin.figures.curves import choose_values, draw_curves
from earn_plugin.figures.run_log import mean_run, read_run
from earn_plugin.figures.style import drawing, save_figure
from earn_plugin.prepare.demo import make_missing_demo
from earn_plugin.signals import Stopped, signal_number


@dataclass
class Run:
    """A training of a variant with a seed. ``file`` has its options, and the name of its experiment."""

    variant: Variant
    seed: int
    file: Path

    def __str__(self) -> str:
        return f'{self.variant.title}, seed {self.seed}'

    @property
    def experiment(self) -> Path:
        return Path('experiments', self.file.stem)

    def options(self) -> bytes:
        options = self.variant.options | {'name': self.file.stem, 'manual_seed': self.seed}
        return yaml.safe_dump(options, sort_keys=False, allow_unicode=True).encode()

    def has_begun(self) -> bool:
        """Whether the experiment exists and has these options; a training copies its file into its folder."""
        copy = self.experiment / self.file.name
        return copy.is_file() and copy.read_bytes() == self.options()

    def metrics(self) -> dict[str, float]:
        """'SET METRIC' → its value at the last iteration; none if the training has not ended with these options."""
        if not self.has_begun() or not (self.experiment / 'models/net_g_latest.pth').is_file():
            return {}
        last, logged = int(self.variant.options['train']['total_iter']), read_run(str(self.experiment)).values
        names = [name for name in self.variant.options['val']['metrics'] if name in logged]
        sets = {f'{s} {name}': series for name in names for s, series in logged[name].items()}
        return {name: series[last].value for name, series in sets.items() if last in series}


def ablate(given: str, target: Path | None = None, processes: int = 1, own_code: Sequence[str] = ()) -> None:
    """Train all variants of an ablation with all seeds, and compare them with the first variant.

    Trainings that have ended are not repeated, and interrupted ones continue, if their options have not changed.
    Otherwise they are trained again, and the folder of the earlier run is renamed, as `basicsr train` does.

    Args:
        given: as ``read_ablation`` takes it.
        target: a folder for results.json, results.csv, curves.png and options; by default ablations/NAME.
        processes: trainings at a time, which divide the cores between them.
        own_code: arguments of `basicsr train` that register own code.

    Raises:
        UsageError: lists all mistakes of the file and of the options of all variants, before anything is run.
        Stopped: on Ctrl-C or SIGTERM, after the trainings have saved checkpoints.
        UserError: trainings failed; the others have ended and are in the table.
    """
    ablation = read_ablation(given)
    folder = target or Path('ablations', ablation.file.stem)
    runs = [  # the variants of one seed after another, so that all can be compared early
        Run(variant, seed, folder / f'options/{variant.name}_seed{seed}.yml')
        for seed, variant in product(ablation.seeds, ablation.variants)
    ]
    for variant in ablation.variants:
        make_missing_demo(variant.options)
    waiting = [run for run in runs if not run.metrics()]
    if len(waiting) < len(runs):
        print(f'{len(runs) - len(waiting)} of {len(runs)} trainings have ended before', flush=True)
    if waiting:
        print(f'{len(waiting)} trainings; the first is {waiting[0].experiment}', flush=True)
    failures = train_runs(waiting, processes, own_code)
    ended = [run for run in runs if run.metrics()]
    if ended:
        rows = compare_variants(ended)
        about = {'ablation': str(given), 'recipe': ablation.recipe.name, 'seeds': ablation.seeds, 'variants': rows}
        write_file(folder / 'results.json', json.dumps(about, indent=1).encode())
        write_file(folder / 'results.csv', as_csv(rows).encode())
        print(ablation_table(rows))
        spread = f'mean ± standard deviation over {len(ablation.seeds)} seeds; ' if len(ablation.seeds) > 1 else ''
        print(f'{spread}differences are from the first row')
        with drawing():  # last, because matplotlib may be missing
            save_figure(draw_ablation(ended), folder / 'curves.png')
        print(f'results.json, results.csv and curves.png are in {folder}')
    if failures:
        raise UserError(f'{len(failures)} of {len(runs)} trainings failed:\n' + '\n'.join(failures))


def train_runs(runs: list[Run], processes: int, own_code: Sequence[str]) -> list[str]:
    """Train, several at a time, each in a process of its own; returns a line for each that failed.

    Raises:
        Stopped: on Ctrl-C or SIGTERM, after the trainings have saved checkpoints.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    environment = {'OMP_NUM_THREADS': str(max(1, cores // processes)), **os.environ}
    started: list[subprocess.Popen] = []
    stopping = Event()

    def stop() -> None:
        stopping.set()
        for process in started:
            process.terminate()  # without effect on those that have ended

    def train_run(run: Run) -> tuple[float, str]:
        start = time.monotonic()
        write_file(run.file, run.options())
        resume = ['--auto_resume'] if run.has_begun() else []
        command = [sys.executable, '-m', 'earn_plugin', 'train', '-opt', str(run.file), *resume, *own_code]
        streams = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
        # Ctrl-C does not reach its session, so that it gets one signal only, from below
        process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
        started.append(process)
        if stopping.is_set():
            process.terminate()
        output = process.communicate()[0].decode(errors='replace')
        return time.monotonic() - start, '' if process.returncode == 0 else reason_in(output)

    failures = []
    with ThreadPoolExecutor(processes) as pool:
        try:
            for number, (run, result) in enumerate(zip(runs, pool.map(train_run, runs), strict=True), 1):
                seconds, failure = result
                metrics = {} if failure else run.metrics()
                text = ', '.join(f'{name} {value:.4f}' for name, value in metrics.items())
                if not metrics:
                    text = failure or f'it has no metrics at its last iteration; see the log in {run.experiment}'
                    failures.append(f'  {run}: {text}')
                print(f'{number} of {len(runs)}, {seconds:.0f} s: {run}: {text}', flush=True)
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            if not isinstance(error, KeyboardInterrupt):
                raise
            print('the trainings finish their iteration and save; repeat to stop at once', file=sys.stderr, flush=True)
            try:
                pool.shutdown()
            except KeyboardInterrupt:
                stop()
            raise Stopped(signal_number(error), 'stopped; the same command continues from the checkpoints') from None
    return failures


def reason_in(output: str) -> str:
    """The message with which a training ended: what follows the name of the command, or else the last line."""
    _, command, message = output.rpartition('basicsr train: ')
    return message.strip() if command else next(reversed(output.strip().splitlines()), 'it was killed')


def compare_variants(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For each variant its parameters and metrics: means and standard deviations over the seeds, differences to the
    first variant's means, and the values by seed."""
    rows: list[dict[str, Any]] = []
    for variant in {run.variant.title: run.variant for run in runs}.values():
        found = {run.seed: run.metrics() for run in runs if run.variant is variant}
        metrics = {}
        for name in dict.fromkeys(name for values in found.values() for name in values):
            values = {seed: each[name] for seed, each in found.items() if name in each}
            metrics[name] = {
                'mean': fmean(values.values()),
                'standard_deviation': stdev(values.values()) if len(values) > 1 else None,
                'difference': None,
                'seeds': values,
            }
            if rows and name in rows[0]['metrics']:
                metrics[name]['difference'] = metrics[name]['mean'] - rows[0]['metrics'][name]['mean']
        rows.append({'name': variant.title, 'parameters': variant.parameters, 'metrics': metrics})
    return rows


def as_csv(rows: list[dict[str, Any]]) -> str:
    """A line for each variant; empty where there is no value."""
    figures = ('mean', 'standard_deviation', 'difference')
    names = list(dict.fromkeys(name for row in rows for name in row['metrics']))
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow(['variant', 'parameters', 'seeds', *(f'{name} {figure}' for name in names for figure in figures)])
    for row in rows:
        seeds = max(len(metric['seeds']) for metric in row['metrics'].values())
        cells = [row['metrics'].get(name, {}).get(figure) for name in names for figure in figures]
        table.writerow([row['name'], row['parameters'], seeds, *('' if c is None else f'{c:.6g}' for c in cells)])
    return text.getvalue()


def ablation_table(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown, aligned."""
    names = list(dict.fromkeys(name for row in rows for name in row['metrics']))
    table = [['variant', 'parameters', *(heading for name in names for heading in (name, 'difference'))]]
    for row in rows:
        cells = [row['name'], f'{row["parameters"]:,}']
        for name in names:
            metric = row['metrics'].get(name)
            if metric is None:
                cells += ['–', '–']
                continue
            digits = 3 if abs(metric['mean']) >= 10 else 4
            spread, difference = metric['standard_deviation'], metric['difference']
            cells.append(f'{metric["mean"]:.{digits}f}' + ('' if spread is None else f' ± {spread:.{digits}f}'))
            cells.append('' if difference is None else f'{difference:+.{digits}f}')
        table.append(cells)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ['| ' + ' | '.join(map(str.ljust, cells, widths)) + ' |' for cells in table]
    return '\n'.join([lines[0], '|' + '|'.join('-' * (width + 2) for width in widths) + '|', *lines[1:]])


def draw_ablation(runs: Sequence[Run]):
    """Losses and metrics of each variant: the mean over the seeds with a band of the standard deviation."""
    logs: dict[str, list] = {}
    for run in runs:
        logs.setdefault(run.variant.title, []).append(read_run(str(run.experiment)))
    means = [mean_run(title, found) for title, found in logs.items()]
    names = [name for name in choose_values(means) if name != 'lr' and not name.startswith('grad_norm')]
    return draw_curves(means, names, columns=2)

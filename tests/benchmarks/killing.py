"""Kills trainings at random moments and compares the weights that they end with to those of an uninterrupted run.

python -m tests.benchmarks.killing [--kills 25] [--only plain,bf16,gan,processes] [--seed 0]
"""

import argparse
import contextlib
import copy
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from earn_plugin.prepare.lmdb import make_lmdb
from tests.helpers.images import write_pairs
from tests.helpers.options import TINY, write_options
from tests.helpers.runs import same

LAUNCH = {1: ('-m', 'earn_plugin'), 2: ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')}


def options_of(kind: str, data: Path) -> dict[str, Any]:
    """Options of a training of some ten seconds."""
    opt = copy.deepcopy(TINY)
    for dataset in opt['datasets'].values():
        dataset.update(dataroot_gt=str(data / 'HR.lmdb'), dataroot_lq=str(data / 'LR.lmdb'))
    opt['datasets']['train']['num_worker_per_gpu'] = 1
    opt['train'].update(total_iter=240, scheduler={'type': 'MultiStepLR', 'milestones': [90, 170], 'gamma': 0.5})
    opt['logger'].update(print_freq=10, save_checkpoint_freq=7)
    opt['val']['val_freq'] = 40
    if kind == 'bf16':
        opt['train'].update(accum_iter=2, precision='bf16', memory_format='channels_last')
    elif kind == 'gan':
        opt['model_type'] = 'EARNGANModel'
        opt['network_d'] = {'type': 'SRGANDiscriminator', 'num_feat': 4}
        opt['train']['optim_d'] = {'type': 'Adam', 'lr': 1e-3}
        opt['train']['gan_opt'] = {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1}
    return opt


def start(folder: Path, processes: int) -> subprocess.Popen:
    launch = (*LAUNCH[processes], *(('-m', 'earn_plugin') if processes > 1 else ()))
    with (folder / 'output.txt').open('a') as output:
        return subprocess.Popen(
            [sys.executable, *launch, 'train', '-opt', 'options.yml', '--auto_resume'],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def family(pid: int) -> list[int]:
    """A process and all that it started, itself or through others."""
    try:
        children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    except OSError:
        return []
    return [pid, *(below for child in children for below in family(int(child)))]


def kill(process: subprocess.Popen, processes: int) -> None:
    """Kill all processes of a run at once; of several, sometimes one of them or the launcher."""
    victims = family(process.pid)
    alone = processes > 1 and random.random() < 0.5
    for pid in [random.choice(victims)] if alone else victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    while any(Path(f'/proc/{pid}/cmdline').exists() and Path(f'/proc/{pid}/cmdline').read_bytes() for pid in victims):
        time.sleep(0.05)  # they end once they notice


def weights(folder: Path) -> dict[str, Any]:
    files = sorted((folder / 'experiments/tiny/models').glob('*_latest.pth'))
    return {path.name: torch.load(path, weights_only=True) for path in files}


def kill_and_compare(kind: str, kills: int, data: Path, folder: Path) -> None:
    processes = 2 if kind == 'processes' else 1
    for name in ('whole', 'run0'):
        (folder / name).mkdir(parents=True)
        write_options(folder / name, options_of(kind, data))
    began = time.monotonic()
    assert start(folder / 'whole', processes).wait() == 0, (folder / 'whole/output.txt').read_text()
    longest = time.monotonic() - began
    expected = weights(folder / 'whole')
    assert expected
    done, runs, run = 0, 0, folder / 'run0'
    while True:
        process = start(run, processes)
        try:
            process.wait(random.uniform(0, longest) if done < kills else None)
        except subprocess.TimeoutExpired:
            kill(process, processes)
            done += 1
            continue
        text = (run / 'output.txt').read_text()
        assert process.returncode == 0, text
        assert same(expected, weights(run)), f'{run} has other weights than an uninterrupted run:\n{text}'
        runs += 1
        if done >= kills:
            break
        run = folder / f'run{runs}'
        run.mkdir()
        write_options(run, options_of(kind, data))
    print(f'{kind}: {done} kills, {runs} runs, all with the weights of an uninterrupted run', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=25, help='of each kind')
    parser.add_argument('--only', default='plain,bf16,gan,processes', help='kinds, joined by commas')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory() as name:
        data = write_pairs(Path(name) / 'data', 6)
        for folder in ('HR', 'LR'):
            make_lmdb(data / folder, data / f'{folder}.lmdb')
        for kind in args.only.split(','):
            kill_and_compare(kind, args.kills, data, Path(name) / kind)


if __name__ == '__main__':
    main()

"""From a checkpoint to a submission: one Python file, flat weights, and a branch in the organisers' script."""

import contextlib
import re
import shutil
import tempfile
from pathlib import Path

from tqdm import tqdm

import earn_plugin
from earn_plugin.atomic_files import write_file
from earn_plugin.convert.networks import FoundNetwork, NetworkChoice, find_network
from earn_plugin.convert.weight_files import read_weights, write_weights
from earn_plugin.errors import UsageError, UserError
from earn_plugin.metrics.ntire_metrics import SCALE
from earn_plugin.ntire.factsheet import CHECKLIST, factsheet_files
from earn_plugin.ntire.network_checks import check_network
from earn_plugin.ntire.organisers_script import MARK, Submission, branch, find_script, patch_script, script_diff
from earn_plugin.ntire.self_check import check_submission
from earn_plugin.ntire.single_file import single_file
from earn_plugin.ntire.years import find_year
from earn_plugin.protocols import Fusible

BRANCH = 'select_model.txt'
STEPS = 7  # of the progress bar: the network is checked and written, four checks of the files, the factsheet
MAIN = '''

DATA_RANGE = {data_range}


def load(model_path: str) -> {arch}:
    """The network with its weights; model_path is their file, or the folder that contains it."""
    path = Path(model_path)
    model = {arch}({arguments})
    weights = torch.load(path / {file!r} if path.is_dir() else path, map_location='cpu')
    model.load_state_dict(weights, strict=True)
    return model.eval()


def main(model_dir: str, input_path: str, output_path: str, device: torch.device) -> None:
    """Upscale every image of a folder."""
    upscale_folder(load(model_dir), DATA_RANGE, input_path, output_path, device)
'''  # of the quality track; upscale_folder imports Path and torch


def export(
    choice: NetworkChoice,
    *,
    year: int,
    team: int,
    name: str,
    track: str = 'efficient',
    data_range: float = 1.0,
    out: Path | None = None,
    repo: Path | None = None,
    size: tuple[int, int] = (256, 256),
) -> str:
    """Write a submission into ``out``, and into a checkout of the organisers' repository if one is given.

    Everything is written to a temporary folder and checked there; files are moved to their places only after that.

    Args:
        choice: the network.
        name: of the network, as it will be in the organisers' tables.
        track: 'efficient' or 'quality'.
        data_range: of the network's input and output: 1 or 255.
        out: a folder; ntireYEAR_teamTEAM_NAME by default, with _quality appended for the quality track.
        repo: the checkout whose script gets the branch.
        size: of the image that the factsheet's figures are for; the organisers' is 256×256.

    Returns:
        What was done and found.

    Raises:
        UserError: why the submission would fail, and what to do.
    """
    find_year(year, track)
    check_names(team, name)
    found = find_network(choice)
    network = found.network.float()
    submission = Submission(year, team, name, type(network).__name__, found.arguments, data_range, track)
    out = out or Path(f'ntire{year}_{submission.module}' + ('_quality' if track == 'quality' else ''))
    check_targets(out, repo, submission)

    try:
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(tqdm(desc='export', total=STEPS, unit='step', disable=None))
            check_network(network, data_range, choice.is_checkpoint)
            bar.update()
            out.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent)))
            write_network(folder, submission, found)
            bar.update()
            checked = check_submission(folder, submission, network, bar.update)
            for path, text in {BRANCH: branch(submission), **factsheet_files(submission, found, size)}.items():
                (folder / path).write_bytes(text.encode())
            bar.update()
            earlier = earlier_files(out, submission)
            written = [path.relative_to(folder) for path in sorted(folder.rglob('*')) if path.is_file()]
            for path in sorted(written, key=lambda path: path.suffix != '.pth'):
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(folder / path, out / path)
            removed = remove_earlier(out, earlier, submission)
    except OSError as error:
        raise UserError(f'cannot write into {out}: {error}; choose another --out') from error
    is_fusible = isinstance(type(network), Fusible) and found.form == 'training form'
    report = [
        f'{choice.model}: {submission.arch}, {found.form}{describe_weights(choice)}',
        *([f'{found.arch} has a fused form with other figures; --fused exports it'] if is_fusible else []),
        *(f'checked: {line}' for line in checked),
        f'written to {out}: {", ".join(map(str, written))}',
        *removed,
        *(write_into_repo(repo, out, submission) if repo else []),
    ]
    return '\n'.join([*report, f'left for you to do: {out / CHECKLIST}'])


def check_names(team: int, name: str) -> None:
    if not 1 <= team <= 999:
        raise UsageError(
            f'--team-id {team}: use the number that the organisers gave you, such as 18; 0 is the baseline'
        )
    if not re.fullmatch(r'[A-Za-z]\w*', name, re.ASCII):
        valid = re.sub(r'\W+', '_', re.sub(r'^\W*(team)?[\d_]*', '', name), flags=re.ASCII).strip('_') or 'Net'
        raise UsageError(
            f'--name {name}: the file models/team{team:02}_NAME.py is imported by its name, so NAME must be a letter '
            f'followed by letters, digits and _; the team id is put before it (models.18_X is not a Python name, '
            f'models.team18_X is). Try --name {valid}'
        )


def check_targets(out: Path, repo: Path | None, submission: Submission) -> None:
    """Raise UserError if files that no export wrote are where the submission would be."""
    if out.exists() and not out.is_dir():
        raise UserError(f'{out} is not a folder; choose another --out')
    for place in filter(None, (out, repo)):
        code, weights = place / submission.code, place / submission.weights
        is_exported = code.exists() and MARK in code.read_text(encoding='utf-8', errors='replace')
        for path in (code, weights):
            if path.exists() and not is_exported:
                raise UserError(f'{path} exists and was not written by an export; remove it, or choose another --name')
    if repo:
        patch_script(find_script(repo, submission.track), submission)


def earlier_files(place: Path, submission: Submission) -> list[Path]:
    """The files of the team's earlier exports: their code, which is marked, and its weights."""
    codes = place.glob(submission.code.replace(submission.module, f'team{submission.team:02}_*'))
    found = [code for code in codes if MARK in code.read_text(encoding='utf-8', errors='replace')]
    for code in found[:]:
        module = code.relative_to(place).with_suffix('').parts[1]
        weights = [place / submission.weights.replace(submission.module, stem) for stem in (module, module.lower())]
        found += [path for path in weights if path.exists()][:1]  # the lower-case names are of version 0.1.0
    return found


def remove_earlier(place: Path, earlier: list[Path], submission: Submission) -> list[str]:
    """Remove the earlier files that the submission has not replaced; says which."""
    current = [place / submission.code, place / submission.weights]
    removed = [path for path in earlier if not any(map(path.samefile, current))]
    for path in removed:
        try:
            path.unlink()
        except OSError as error:
            raise UserError(
                f'{path}, of your earlier export, cannot be removed: {error}; remove it yourself'
            ) from error
        with contextlib.suppress(OSError):  # not empty, or not of the quality track
            path.parent.rmdir()
    listed = ', '.join(str(path.relative_to(place)) for path in removed)
    return [f'removed from {place}, as your earlier export: {listed}'] if removed else []


def write_network(folder: Path, submission: Submission, found: FoundNetwork) -> None:
    """Write the two files that the organisers run: the weights and the Python file."""
    write_weights(folder / submission.weights, found.network.state_dict(), {})
    is_quality = submission.track == 'quality'
    text = (
        f'"""{submission.name}, team {submission.team} of the NTIRE {submission.year} challenge, ×{SCALE}.\n\n'
        f'N×3×H×W, RGB in [0, {submission.data_range:g}] → N×3×{SCALE}H×{SCALE}W. {submission.arch}, {found.form}; '
        f'{MARK} (earn_plugin {earn_plugin.__version__}).\n"""\n\n'
    )
    helpers = ['upscale_folder'] if is_quality else []
    text += single_file(type(found.network), *helpers, packages=submission.protocol.packages)
    if is_quality:
        text += MAIN.format(
            data_range=submission.data_range,
            arch=submission.arch,
            file=Path(submission.weights).name,
            arguments=', '.join(f'{name}={value!r}' for name, value in submission.arguments.items()),
        )
    write_file(folder / submission.code, text.encode())


def describe_weights(choice: NetworkChoice) -> str:
    if not choice.is_checkpoint:
        return ', with its initial weights: choose a checkpoint to submit'
    nested = read_weights(Path(choice.model))[2]
    return f', weights from {nested}{", the moving average" if nested.endswith("ema") else ""}' if nested else ''


def write_into_repo(repo: Path, out: Path, submission: Submission) -> list[str]:
    """Copy the two files and patch the script; returns the diff."""
    path = find_script(repo, submission.track)
    new = patch_script(path, submission)
    difference = script_diff(path, new)
    earlier = earlier_files(repo, submission)
    for name in (submission.weights, submission.code):
        write_file(repo / name, (out / name).read_bytes())
    removed = remove_earlier(repo, earlier, submission)
    if difference:
        mode = path.stat().st_mode
        write_file(path, new.encode())
        path.chmod(mode)
    written = f'written to {repo}: {submission.code}, {submission.weights}'
    return [written, *removed, difference or f'{path} already has the branch']

"""From a checkpoint to what the organisers take: one file of Python, flat weights, a branch in their script."""

import io
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import earn_plugin
from earn_plugin.atomic_files import atomic_file
from earn_plugin.convert.networks import ENDINGS, FoundNetwork, NetworkChoice, find_network, output_of
from earn_plugin.convert.weight_files import read_weights
from earn_plugin.errors import UsageError, UserError
from earn_plugin.metrics.ntire_metrics import SCALE
from earn_plugin.ntire import factsheet
from earn_plugin.ntire import organisers_script as script
from earn_plugin.ntire import self_check as selfcheck
from earn_plugin.ntire import single_file as source
from earn_plugin.ntire.official_run import as_image
from earn_plugin.ntire.organisers_script import MARK, Submission
from earn_plugin.ntire.protocol import protocol
from earn_plugin.protocols import Fusible

CREDIBLE, FAR_BETTER = 40, 6  # dB: what trained weights reach with the right range, and by how much it wins
LOAD = '''

DATA_RANGE = {data_range}


def load(model_path: str) -> {arch}:
    """The network with its weights; model_path is their file, or the folder that has it."""
    if os.path.isdir(model_path):
        model_path = os.path.join(model_path, {file!r})
    model = {call}
    model.load_state_dict(torch.load(model_path, map_location='cpu'), strict=True)
    return model.eval()


def main(model_dir: str, input_path: str, output_path: str, device: torch.device) -> None:
    """Upscale every image of a folder."""
    upscale_folder(load(model_dir), DATA_RANGE, input_path, output_path, device)
'''


def export(
    model: str,
    year: int,
    team: int,
    name: str,
    arguments: dict[str, Any] | None = None,
    track: str = 'efficient',
    fused: bool = False,
    data_range: float = 1.0,
    out: Path | None = None,
    repo: Path | None = None,
    size: tuple[int, int] = (256, 256),
    arch: str | None = None,
) -> str:
    """Write a submission into ``out``, and into a checkout of the organisers' repository where one is given.

    Everything is made and checked in a folder aside; nothing is where it belongs before the check has passed.

    Args:
        model: a checkpoint, or a registered name.
        arguments: of the network, where the checkpoint does not tell them.
        track: 'efficient' or 'quality'.
        fused: take the network in its fused form.
        out: a folder; by default ntireYEAR_teamTEAM_NAME, for the quality track with _quality behind it.
        repo: the checkout, whose script gets the branch.
        arch: the network that a checkpoint is of, where the file does not tell.
        name: of the network, as the organisers' tables will have it.
        data_range: what the network takes and gives: images in [0, 1] or in [0, 255].
        size: of the image that the factsheet's figures are for; the organisers' is 256×256.

    Returns:
        What was done and found.

    Raises:
        UserError: says what the submission would fail by, and what to do.
    """
    protocol(year, track)
    check_names(team, name)
    found = find_network(NetworkChoice(model, arguments or {}, arch, fused))
    cls = type(found.network)
    submission = Submission(year, team, name, cls.__name__, found.arguments, data_range, track)
    network = found.network.float()
    check_scale(network, data_range)
    if model.endswith(ENDINGS):
        check_data_range(network, data_range)
    out = out or Path(f'ntire{year}_{submission.module}' + ('_quality' if track == 'quality' else ''))
    check_targets(out, repo, submission)

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent) as aside:
            folder = Path(aside)
            write(folder / submission.weights, weights_of(network))
            write(folder / submission.code, code(submission, cls, found).encode())
            checked = selfcheck.check(folder, submission, network)
            write(folder / 'select_model.txt', script.branch(submission).encode())
            for path, text in factsheet.files(submission, found, checked.extra, size).items():
                write(folder / path, text.encode())
            made = [path.relative_to(folder) for path in sorted(folder.rglob('*')) if path.is_file()]
            for path in sorted(made, key=lambda path: path.suffix != '.pth'):
                move(folder / path, out / path)
    except OSError as error:
        raise UserError(f'cannot write into {out}: {error}; take another --out') from error
    report = [
        f'{model}: {cls.__name__}, {found.form}' + weights_taken(model),
        *(f'checked: {line}' for line in checked.lines),
        f'written to {out}: {", ".join(map(str, made))}',
    ]
    return '\n'.join([*report, *(into_repo(repo, out, submission) if repo else []), *hints(found, out)])


def check_names(team: int, name: str) -> None:
    if not 1 <= team <= 999:
        raise UsageError(f'--team-id {team}: give the number that the organisers gave, such as 18; 0 is the baseline')
    if not re.fullmatch(r'[A-Za-z]\w*', name, re.ASCII):
        able = re.sub(r'\W+', '_', re.sub(r'^\W*(team)?[\d_]*', '', name), flags=re.ASCII).strip('_') or 'Net'
        raise UsageError(
            f'--name {name}: the file models/team{team:02}_NAME.py is imported by its name, so NAME has a letter, then '
            f'letters, digits and _; the team id is put before it (models.18_X is not a Python name, models.team18_X '
            f'is). Try --name {able}'
        )


def check_scale(network: nn.Module, data_range: float) -> None:
    """Raises: UserError: it does not make RGB images of any size four times as large."""
    for height, width in selfcheck.SIZES:
        try:
            with torch.no_grad():
                shape = tuple(output_of(network, as_image(torch.rand(height, width, 3)) * data_range).shape)
        except UserError as error:
            raise UserError(
                f'the network does not take an RGB image of {height}×{width} as the organisers pass it ({error}); the '
                'test images have any size: let it pad its input and crop its output; in memory they are H×W×3: let '
                'it `reshape` where a `view` fails'
            ) from error
        if shape != (1, 3, SCALE * height, SCALE * width):
            raise UserError(
                f'the network makes {"×".join(map(str, shape))} of 1×3×{height}×{width}: it is one for '
                f'×{shape[-1] / width:g}, and the challenge is ×{SCALE} in RGB; export one that was trained for it'
            )


def check_data_range(network: nn.Module, data_range: float) -> None:
    """Raises: UserError: fed by the other range, trained weights do far better."""
    y, x = torch.meshgrid(torch.linspace(0, 6, 48), torch.linspace(0, 5, 40), indexing='ij')
    image = torch.stack([0.5 + 0.3 * torch.sin(x + k) * torch.cos(y - k) for k in range(3)])[None]
    enlarged = F.interpolate(image, scale_factor=SCALE, mode='bicubic')  # of so smooth an image that is the truth

    def psnr(scale: float) -> float:
        with torch.no_grad():
            output = (network(image * scale) / scale).clamp(0, 1)
        return -10 * ((output - enlarged) ** 2).mean().clamp(min=1e-10).log10().item()

    other = 1.0 if data_range == 255 else 255.0
    here, there = psnr(data_range), psnr(other)
    if there > max(CREDIBLE, here + FAR_BETTER):
        raise UserError(
            f'the data range is wrong: an image comes out at {here:.1f} dB with [0, {data_range:g}], and at '
            f'{there:.1f} dB with [0, {other:g}]; give --data-range {other:g}'
        )


def check_targets(out: Path, repo: Path | None, submission: Submission) -> None:
    """Raises: UserError: something of another's stands where the submission would."""
    if out.exists() and not out.is_dir():
        raise UserError(f'{out} is no folder; give another --out')
    for place in filter(None, (out, repo)):
        code, weights = place / submission.code, place / submission.weights
        exported = code.exists() and MARK in code.read_text(encoding='utf-8', errors='replace')
        for path in (code, weights):
            if path.exists() and not exported:
                raise UserError(f'{path} is there and not from an export; remove it, or take another --name')
    if repo:
        script.patched(script.find_script(repo, submission.track), submission)


def weights_of(network: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save({key: value.detach().cpu().clone() for key, value in network.state_dict().items()}, buffer)
    return buffer.getvalue()


def code(submission: Submission, cls: type, found: FoundNetwork) -> str:
    """The file with the network."""
    quality = submission.track == 'quality'
    extracted = source.extract(cls, *(['upscale_folder'] if quality else []))
    header = (
        f'"""{submission.name}, team {submission.team} of the NTIRE {submission.year} challenge, ×{SCALE}.\n\n'
        f'N×3×H×W, RGB in [0, {submission.data_range:g}] → N×3×{SCALE}H×{SCALE}W. {submission.arch}, {found.form}; '
        f'{MARK} (earn_plugin {earn_plugin.__version__}).\n"""\n\n'
    )
    text = header + extracted.text
    if quality:
        arguments = ', '.join(f'{key}={value!r}' for key, value in submission.arguments.items())
        text += LOAD.format(
            data_range=submission.data_range,
            arch=submission.arch,
            file=Path(submission.weights).name,
            call=f'{submission.arch}({arguments})',
        )
        for module in ('torch', 'os'):
            if not re.search(rf'^import {module}$', text, re.MULTILINE):
                text = text.replace('annotations\n\n', f'annotations\n\nimport {module}\n', 1)
    return text


def weights_taken(model: str) -> str:
    if not model.endswith(ENDINGS):
        return ', with the weights that it starts with: name a checkpoint to submit'
    within = read_weights(Path(model))[2]
    return f', its weights from {within}' + (', the moving average' if within.endswith('ema') else '') if within else ''


def into_repo(repo: Path, out: Path, submission: Submission) -> list[str]:
    """Copy the two files and patch the script; returns the diff."""
    path = script.find_script(repo, submission.track)
    new = script.patched(path, submission)
    difference = script.diff(path, new)
    for name in (submission.weights, submission.code):
        write(repo / name, (out / name).read_bytes())
    if difference:
        write(path, new.encode(), path.stat().st_mode)
    written = f'written to {repo}: {submission.code}, {submission.weights}'
    return [written, difference or f'{path} has the branch already']


def hints(found: FoundNetwork, out: Path) -> list[str]:
    lines = [f'still to do by a human: {out / factsheet.CHECKLIST}']
    if isinstance(found.network, Fusible) and not found.arguments.get('fused'):
        lines.insert(0, f'{found.arch} has an fused form; --fused exports that, with other figures')
    return lines


def write(path: Path, content: bytes, mode: int | None = None) -> None:
    try:
        with atomic_file(path) as file:
            file.write(content)
        if mode is not None:
            path.chmod(mode & 0o777)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error}') from error


def move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)

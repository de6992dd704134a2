"""The factsheet's figures, as text and as a LaTeX table, and the checklist of what people have to write."""

from earn_plugin.convert.networks import FoundNetwork
from earn_plugin.measure.complexity import count_complexity
from earn_plugin.ntire.organisers_script import MARK, SCRIPTS, Submission
from earn_plugin.ntire.years import RANKINGS

CHECKLIST = 'CHECKLIST.md'


def factsheet_files(submission: Submission, found: FoundNetwork, size: tuple[int, int]) -> dict[str, str]:
    """File name → text of the factsheet's files, for an input of 3×H×W."""
    figures = count_figures(submission, found, size)
    return {
        'factsheet.txt': as_text(submission, found.form, figures, size),
        'factsheet.tex': as_latex(submission, figures, size),
        CHECKLIST: checklist(submission, figures),
    }


def count_figures(submission: Submission, found: FoundNetwork, size: tuple[int, int]) -> dict[str, str]:
    """Title → figure, counted as the organisers of the year do: by module hooks until 2023, then by fvcore."""
    by_fvcore = submission.protocol.counter == 'fvcore'
    counted = count_complexity(found, size, fvcore=by_fvcore)
    found.network.cpu()
    flops = counted.exported_fvcore if by_fvcore else counted.hooks
    return {
        'Parameters [M]': f'{counted.params / 1e6:.3f}',
        'FLOPs [G]': f'{flops / 1e9:.2f}',
        'Activations [M]': f'{counted.activations / 1e6:.2f}',
        'Conv2d': f'{counted.convs}',
    }


def as_text(submission: Submission, form: str, figures: dict[str, str], size: tuple[int, int]) -> str:
    lines = [
        f'{submission.label}: {submission.arch}, {form}, NTIRE {submission.year}; {MARK}',
        f'input 3×{size[0]}×{size[1]}; multiply-adds counted as one each, by {submission.protocol.counter}',
        '',
        *(f'{title:<16}{figure}' for title, figure in figures.items()),
    ]
    return '\n'.join(lines) + '\n'


def as_latex(submission: Submission, figures: dict[str, str], size: tuple[int, int]) -> str:
    name = submission.name.replace('_', r'\_')
    titles = ' & '.join(figures).replace('Conv2d', r'\#Conv2d')
    lines = [
        f'% {MARK}; multiply-adds counted as one each, by {submission.protocol.counter}',
        r'\begin{table}[t]',
        r'  \centering',
        rf'  \caption{{{name}, $\times 4$, for an input of $3 \times {size[0]} \times {size[1]}$.}}',
        rf'  \begin{{tabular}}{{l{"r" * len(figures)}}}',
        r'    \hline',
        rf'    Model & {titles} \\',
        r'    \hline',
        rf'    {name} & {" & ".join(figures.values())} \\',
        r'    \hline',
        r'  \end{tabular}',
        r'\end{table}',
    ]
    return '\n'.join(lines) + '\n'


def rankings(submission: Submission, figures: dict[str, str]) -> list[str]:
    """What each ranking of the year needs, and what the network has; nothing for a year without a gate."""
    year, found = submission.protocol, dict(zip(('parameters', 'FLOPs'), figures.values(), strict=False))
    psnr = ' and '.join(f'{gate:.2f} dB on {split}' for split, gate in year.gate.items())

    def at_most(name: str) -> str:
        limit, unit, _ = year.limits()[name]
        return f', {name} at most {limit:g} {unit}' + (f' (here {found[name]})' if name in found else '')

    needs = {ranking: ''.join(map(at_most, names)) for ranking, names in RANKINGS.items()} if year.gate else {}
    return [f'eligible, {ranking}: PSNR at least {psnr}{limits}' for ranking, limits in needs.items()]


def checklist(submission: Submission, figures: dict[str, str] | None = None) -> str:
    """What people have to write and send, as the factsheet templates of 2023 and 2026 and the repositories ask."""
    run = f'python {SCRIPTS[submission.track]} … --model_id {submission.team}'
    challenge = 'Efficient SR' if submission.track == 'efficient' else 'Image Super-Resolution (×4)'
    items = [
        *rankings(submission, figures or {}),
        'team name, team leader with address, telephone number and e-mail address, the other members, affiliations, '
        'website; whether any of you is affiliated with a sponsor of the workshop',
        "user names on the challenge server, the team's entries in both phases and the best of them",
        'title and description of the method in your own words; what is new, and which works it builds on',
        'a figure of the network',
        'training data (every set, and whether any of it is extra data), patch size, augmentation',
        'which pre-trained or external networks were used, at any stage',
        'losses, optimiser, learning rates, iterations of every stage; pretraining and fine-tuning',
        'hardware and hours of training',
        f"PSNR, runtime and memory of the organisers' own run: `{run}` in their checkout, on a GPU like theirs",
        'whether a self-ensemble or several models are used (here: neither)',
        'comparisons with other networks, results on other benchmarks, references; whether it was published before',
        'whether you plan a paper at the workshop; remarks on the challenge',
        f'`{submission.code}` and `{submission.weights}` are in your fork or pull request, with the branch of '
        '`select_model.txt` in the script',
        'the upload: `basicsr ntire zip`, with the test images of this year',
        'the factsheet as a PDF, and its LaTeX sources as a zip',
        'two separate links that stay available, as commands (`git clone …`, `wget …`): one to the code, the weights '
        'and the factsheet, the other to the results; no LR and SR images in the repository; a licence',
        f'the e-mail: to all organisers, cc your team, subject “NTIRE {submission.year} {challenge} Challenge - '
        f'TEAM_NAME - TEAM_ID” (TEAM_ID {submission.team:02}); in it: a) team name, b) leader with e-mail address, '
        'c) other members, d) user names on the challenge server, e) the link to the code, the weights and the '
        'factsheet, f) the link to the results',
        'the rules of this year, which may have changed since this was written',
    ]
    head = f'# {submission.label}, NTIRE {submission.year}: what is left for you to do\n\n'
    figures = 'The figures are in `factsheet.txt` and, for LaTeX, in `factsheet.tex`.\n\n'
    return head + figures + ''.join(f'- [ ] {item}\n' for item in items)

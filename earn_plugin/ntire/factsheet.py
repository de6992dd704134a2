"""The factsheet's figures, as text and as a LaTeX table, and what a human has still to write."""

from typing import NamedTuple

from earn_plugin.convert.networks import FoundNetwork
from earn_plugin.measure.complexity import count
from earn_plugin.ntire.organisers_script import MARK, SCRIPTS, Submission
from earn_plugin.ntire.protocol import protocol
from earn_plugin.ntire.standalone import Extra

CHECKLIST = 'CHECKLIST.md'


class Row(NamedTuple):
    """A figure: what it is called in text and in LaTeX, and its value."""

    title: str
    unit: str
    value: str


def files(submission: Submission, found: FoundNetwork, extra: Extra, size: tuple[int, int]) -> dict[str, str]:
    """Name → text of the files; ``extra`` is what the file counts beside the network."""
    rows = figures(submission, found, extra, size)
    return {
        'factsheet.txt': as_text(submission, found.form, rows, size),
        'factsheet.tex': as_latex(submission, rows, size),
        CHECKLIST: checklist(submission),
    }


def figures(submission: Submission, found: FoundNetwork, extra: Extra, size: tuple[int, int]) -> list[Row]:
    """Counted as the organisers of the year count: by module hooks until 2023, then by fvcore."""
    by_fvcore = counter_of(submission) == 'fvcore'
    counted = count(found, size, fvcore=by_fvcore)
    found.network.cpu()
    flops = counted.fvcore + extra(*size) if by_fvcore else counted.hooks
    return [
        Row('Parameters', 'M', f'{counted.params / 1e6:.3f}'),
        Row('FLOPs', 'G', f'{flops / 1e9:.2f}'),
        Row('Activations', 'M', f'{counted.activations / 1e6:.2f}'),
        Row('Conv2d', '', f'{counted.convs}'),
    ]


def counter_of(submission: Submission) -> str:
    return protocol(submission.year, submission.track).counter


def as_text(submission: Submission, form: str, rows: list[Row], size: tuple[int, int]) -> str:
    counter = counter_of(submission)
    lines = [f'{row.title + (f" [{row.unit}]" if row.unit else ""):<16}{row.value}' for row in rows]
    return '\n'.join(
        [
            f'{submission.label}: {submission.arch}, {form}, NTIRE {submission.year}; {MARK}',
            f'input 3×{size[0]}×{size[1]}; multiply-adds counted as one each, by {counter}',
            '',
            *lines,
            '',
        ]
    )


def as_latex(submission: Submission, rows: list[Row], size: tuple[int, int]) -> str:
    counter = counter_of(submission)
    name = submission.name.replace('_', r'\_')
    titles = ' & '.join(f'{row.title} [{row.unit}]' if row.unit else f'\\#{row.title}' for row in rows)
    return '\n'.join(
        [
            f'% {MARK}; multiply-adds counted as one each, by {counter}',
            r'\begin{table}[t]',
            r'  \centering',
            rf'  \caption{{{name}, $\times 4$, for an input of $3 \times {size[0]} \times {size[1]}$.}}',
            rf'  \begin{{tabular}}{{l{"r" * len(rows)}}}',
            r'    \hline',
            rf'    Model & {titles} \\',
            r'    \hline',
            rf'    {name} & {" & ".join(row.value for row in rows)} \\',
            r'    \hline',
            r'  \end{tabular}',
            r'\end{table}',
            '',
        ]
    )


def checklist(submission: Submission) -> str:
    run = f'python {SCRIPTS[submission.track]} … --model_id {submission.team}'
    items = [
        'team name, members, affiliations, the contact and its address',
        'title and description of the method, in your own words; what is new in it, and which works it builds on',
        'a figure of the network',
        'training data (every set, and whether any of it is extra data), patch size, augmentation',
        'losses, optimiser, learning rates, iterations of every stage; pretraining and fine-tuning',
        'hardware and hours of training',
        f"PSNR, runtime and memory of the organisers' own run: `{run}` in their checkout, on a GPU like theirs",
        'whether a self-ensemble or several models are used (here: neither)',
        'links to the code and to the weights that stay open; a licence',
        f'`{submission.code}` and `{submission.weights}` are in your fork or pull request, with the branch of '
        '`select_model.txt` in the script',
        'the upload: `basicsr ntire zip`, with the test images of this year',
        'the rules of this year: they change, also after this was written',
    ]
    head = f'# {submission.label}, NTIRE {submission.year}: what a human has still to do\n\n'
    figures = 'Figures are in `factsheet.txt` and, for LaTeX, in `factsheet.tex`.\n\n'
    return head + figures + ''.join(f'- [ ] {item}\n' for item in items)

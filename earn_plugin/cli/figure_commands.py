"""basicsr plot | report | ablate | compare | attention | attribution | results: figures and tables of papers."""

import argparse
import json
from pathlib import Path

from earn_plugin.cli.network_commands import (
    add_checkpoint_arguments,
    add_import_arguments,
    add_network_arguments,
    given_arguments,
    settings_of,
)
from earn_plugin.errors import UsageError

COMPARISON = """A SOURCE is a network, as `upscale --model` takes it; a folder of results, such as
results/NAME/visualization/Set5, in which baby.png, babyx4.png and baby_NAME.png belong to baby.png; or an image.
Below the crops stand PSNR and SSIM on Y of the whole images, without a border of S pixels, as papers print them.
--arch and --set are for all checkpoints; where these differ, `basicsr convert` records them in the files."""

RESULTS = """Each table has the figures of one protocol (channel, border, HR and LR images), which `basicsr test`
records. -o replaces what is between the two marks of the page, and creates a page that does not exist."""


def add_commands(commands) -> None:
    add_plot(commands)
    add_report(commands)
    add_ablate(commands)
    add_compare(commands)
    add_attention(commands)
    add_attribution(commands)
    add_results(commands)


def add_plot(commands) -> None:
    about = 'draw losses, learning rate, PSNR and SSIM of one or several experiments'
    plot = commands.add_parser('plot', help=about, description=about)
    what = 'a name under experiments, a folder or a log file, or of TensorBoard'
    plot.add_argument('experiments', nargs='+', metavar='EXPERIMENT', help=what)
    add = plot.add_argument
    add('-o', dest='target', type=Path, default=Path('curves.png'), metavar='FILE', help='PNG, SVG or PDF; curves.png')
    add('--x', choices=('iterations', 'time'), default='iterations', help='horizontal axis; time is that of training')
    add('--values', nargs='+', default=[], metavar='VALUE', help='as in the log: l_pix psnr lr … (default: all)')
    add('--smooth', type=int, default=1, metavar='N', help='draw means of N logged values; not of metrics')
    add('--columns', type=int, choices=(1, 2), default=1, help='width of the figure in columns of a paper')
    add('--json', type=Path, metavar='FILE', help='also write the numbers to this file')
    plot.set_defaults(run=run_plot)


def run_plot(args: argparse.Namespace) -> None:
    if args.smooth < 1:
        raise UsageError(f'--smooth must be 1 or more, got {args.smooth}')
    from earn_plugin.figures.curves import plot_runs

    settings = {'values': args.values, 'smooth': args.smooth, 'columns': args.columns, 'numbers': args.json}
    names = plot_runs(args.experiments, args.target, args.x, **settings)
    print(f'{args.target}: {", ".join(names)}')


def add_report(commands) -> None:
    about = 'write what a training has given as one HTML file: curves, metrics, before and after, attentions, cost'
    note = 'It works while the run trains. What cannot be shown is explained in its section; the rest is complete.'
    report = commands.add_parser('report', help=about, description=about, epilog=note)
    add = report.add_argument
    add('experiment', metavar='EXPERIMENT', help='a name under experiments, or a folder')
    where = "default: report.html in the experiment's folder, experiments/NAME/report.html"
    add('-o', '--output', type=Path, metavar='FILE', help=where)
    shown = 'images of each validation set to show, from the largest gain over bicubic to the smallest; default 8'
    add('--images', type=int, default=8, metavar='N', help=shown)
    add('--device', help='cpu, cuda, cuda:1, … (default: cuda if available)')
    add_import_arguments(report)
    report.set_defaults(run=run_report)


def run_report(args: argparse.Namespace) -> None:
    if args.images < 0:
        raise UsageError(f'--images must be 0 or more, got {args.images}')
    from earn_plugin.report.report import write_report

    print(write_report(args.experiment, args.output, args.images, args.device))


def add_ablate(commands) -> None:
    about = 'train the variants of an ablation with several seeds, and compare them in a table'
    again = 'The same command resumes: trainings that have ended are not repeated, interrupted ones continue.'
    ablation = commands.add_parser('ablate', help=about, description=about, epilog=again)
    ablation.add_argument('file', metavar='FILE', help='an ablation, or the name of one of ours: ablate_EARN_x4')
    add = ablation.add_argument
    where = 'for results.json, results.csv and curves.png; default ablations/NAME'
    add('-o', dest='target', type=Path, metavar='DIR', help=where)
    add('--processes', type=int, default=1, metavar='N', help='trainings at a time, which divide the cores; default 1')
    add_import_arguments(ablation)
    ablation.set_defaults(run=run_ablate)


def run_ablate(args: argparse.Namespace) -> None:
    if args.processes < 1:
        raise UsageError(f'--processes must be 1 or more, got {args.processes}')
    from earn_plugin.figures.ablation import ablate

    own_code = ['--import', *args.modules] if args.modules else []
    own_code += ['--arch-file', str(args.arch_file)] if args.arch_file else []
    ablate(args.file, args.target, args.processes, own_code)


def add_compare(commands) -> None:
    compare = commands.add_parser('compare', help='draw a comparison sheet of methods on images', epilog=COMPARISON)
    add = compare.add_argument
    add('images', type=Path, nargs='+', metavar='HR_IMAGE', help='an image; several give several rows')
    sources = 'what to compare with bicubic; NAME= gives the label'
    add('--with', dest='sources', nargs='+', action='extend', required=True, metavar='[NAME=]SOURCE', help=sources)
    scale = 'HR divided by LR (default: that of the networks)'
    add('--scale', '--upscale', dest='upscale', type=int, metavar='S', help=scale)
    add('--lr', type=Path, metavar='FILE', help="the LR image, or a folder of them (default: made by MATLAB's bicubic)")
    region = 'in HR pixels: X Y W H; W H, or auto (default), are placed where the methods differ most'
    add('--region', nargs='+', default=['auto'], metavar='N', help=region)
    add('-o', dest='output', type=Path, default=Path('sheet.png'), metavar='FILE', help='.png, .svg or .pdf')
    add('--columns', type=int, choices=(1, 2), default=2, help='width of the sheet, in columns of a paper (default: 2)')
    add('--json', type=Path, metavar='FILE', help='also write the numbers to this file')
    add('--device', help='cpu, cuda, cuda:1, … (default: cuda if available)')
    add_network_arguments(compare, form=False)
    compare.set_defaults(run=run_compare)


def run_compare(args: argparse.Namespace) -> None:
    region = region_of(args.region)
    sources = [split_label(text, '--with') for text in args.sources]
    from earn_plugin.figures.compared_methods import method_of
    from earn_plugin.figures.comparison import compare_methods, comparison_table

    given = {'arguments': settings_of(args.set), 'arch': args.arch, 'scale': args.upscale, 'device': args.device}
    methods = [method_of(label, source, **given) for label, source in sources]
    settings = {'scale': args.upscale, 'lr': args.lr, 'region': region, 'columns': args.columns}
    print(comparison_table(compare_methods(args.images, methods, output=args.output, report=args.json, **settings)))
    print(f'{args.output} written')


def region_of(texts: list[str]) -> list[int] | None:
    """The numbers of --region; None for auto."""
    if texts == ['auto']:
        return None
    if len(texts) not in (2, 4) or not all(text.isdecimal() for text in texts):
        raise UsageError(f'--region {" ".join(texts)}: write X Y W H or W H in pixels of HR, or auto')
    return [int(text) for text in texts]


def split_label(text: str, flag: str) -> tuple[str, Path]:
    """NAME=SOURCE taken apart; NAME is empty if it is not given, and in a file's own name = is nothing special."""
    label, equals, source = text.partition('=')
    if not equals or Path(text).exists():
        label, source = '', text
    if not source or (equals and source != text and not label.strip()):
        raise UsageError(f'{flag} {text}: write SOURCE or NAME=SOURCE')
    return label.strip(), Path(source).expanduser()


def add_attention(commands) -> None:
    about = "maps and weights of a network's attentions for pictures"
    attention = commands.add_parser('attention', help=about, description=f'Draw {about}.')
    add = attention.add_argument
    add('model', metavar='MODEL', help='a checkpoint, an included network or a registered name, in the training form')
    images = 'LR pictures, folders or patterns; several give means and deviations as well'
    add('images', type=Path, nargs='+', metavar='IMAGE', help=images)
    target = (
        'a folder, for a figure of each kind (default: attention), or a .png, .svg or .pdf file, for one figure, which '
        'for several pictures has no maps'
    )
    add('-o', '--output', type=Path, default=Path('attention'), metavar='OUT', help=target)
    pixel = 'column and row of the pixel whose non-local attention is shown (default: the middle)'
    add('--pixel', type=int, nargs=2, metavar=('X', 'Y'), help=pixel)
    add('--columns', type=int, choices=(1, 2), default=2, help='of a paper, whose width the figures have; default 2')
    add('--format', choices=('png', 'svg', 'pdf'), default='png', help='of the figures in a folder')
    add('--json', type=Path, metavar='FILE', help='also write the numbers to this file')
    add('--device', help='cpu, cuda, cuda:1, … (default: cuda if available)')
    add_checkpoint_arguments(attention)
    attention.set_defaults(run=run_attention)


def run_attention(args: argparse.Namespace) -> None:
    from earn_plugin.convert.networks import NetworkChoice
    from earn_plugin.figures.attention_report import draw_attention

    choice = NetworkChoice(args.model, given_arguments(args), args.arch)
    names = ('pixel', 'columns', 'format', 'device')
    settings = {name: getattr(args, name) for name in names}
    print(draw_attention(choice, args.images, args.output, json_path=args.json, **settings))


def add_attribution(commands) -> None:
    what = 'local attribution maps: which pixels networks use for a window of their result, and the diffusion index'
    attribution = commands.add_parser('attribution', help=what)
    add = attribution.add_argument
    add('picture', type=Path, metavar='IMAGE', help="the networks' input, of the size that they enlarge; see --hr")
    models = 'a checkpoint, an included network or a registered name, all of one scale; NAME= gives the label'
    add('--model', nargs='+', action='extend', required=True, metavar='MODEL', help=models)
    add('--hr', action='store_true', help="IMAGE is the HR image: reduce it by MATLAB's bicubic first")
    place = 'left column, top row and side, in pixels of the result (default: 16×16 in its centre)'
    add('--window', type=int, nargs=3, metavar=('X', 'Y', 'SIZE'), help=place)
    steps = 'of the integral, by the midpoint rule (default: 10, or up to 80 until it is complete to 1 %%)'
    add('--steps', type=int, metavar='N', help=steps)
    add('--as-published', action='store_true', help="the authors' rule instead: 50 steps, gradients at their ends")
    add('-o', '--output', type=Path, metavar='FILE', help='the figure: .png, .svg or .pdf')
    add('--columns', type=int, choices=(1, 2), default=2, help="width of the figure in a paper's columns; default 2")
    add('--json', type=Path, metavar='FILE', help='also write the numbers and the maps to this file')
    add('--device', help='cpu, cuda, cuda:1, … (default: cuda if available)')
    add('--fused', action='store_true', help="use the networks' fused form")
    add_checkpoint_arguments(attribution)
    attribution.set_defaults(run=run_attribution)


def run_attribution(args: argparse.Namespace) -> None:
    from earn_plugin.atomic_files import write_file
    from earn_plugin.convert.networks import ENDINGS, NetworkChoice
    from earn_plugin.figures.attribution import AS_PUBLISHED, MIDPOINT
    from earn_plugin.figures.attribution_figure import check_attribution_figure, draw_attribution
    from earn_plugin.figures.attribution_table import attribute_networks

    if args.as_published and args.steps not in (None, AS_PUBLISHED.steps):
        raise UsageError(f'--as-published takes {AS_PUBLISHED.steps} steps: omit --steps {args.steps}')
    if args.steps is not None and args.steps < 1:
        raise UsageError(f'--steps must be at least 1, got {args.steps}')
    if replacing := [path for path in (args.output, args.json) if path and path.resolve() == args.picture.resolve()]:
        raise UsageError(f'{replacing[0]} would replace the picture: choose another name')
    choices = {}
    for model in args.model:
        label, source = split_label(model, '--model')
        label = label or (source.stem if model.endswith(ENDINGS) else model)
        if label in choices:
            raise UsageError(f'--model {model}: each network needs a label of its own, as NAME=SOURCE')
        choices[label] = NetworkChoice(str(source), given_arguments(args), args.arch, args.fused)
    if args.output is not None:
        check_attribution_figure(args.output, len(choices), args.columns)
    midpoint = MIDPOINT._replace(steps=args.steps) if args.steps else None
    rule = AS_PUBLISHED if args.as_published else midpoint
    settings = {'window': args.window, 'rule': rule, 'hr': args.hr, 'device': args.device}
    table = attribute_networks(args.picture, choices, **settings)
    print(table)
    if args.json is not None:
        write_file(args.json, json.dumps(table.as_json()).encode())
    if args.output is not None:
        draw_attribution(table, args.output, args.columns)


def add_results(commands) -> None:
    about = (
        'tables of what `basicsr test` measured, next to the published figures, or two tests compared image by image'
    )
    results = commands.add_parser('results', help=about, description=f'Print {about}.', epilog=RESULTS)
    what = 'a results.json, also of `basicsr ablate` or `ntire validate`; or a folder of them, such as results'
    results.add_argument('places', nargs='+', type=Path, metavar='FILE_OR_FOLDER', help=what)
    add = results.add_argument
    add('-o', '--output', type=Path, metavar='FILE', help='a page in Markdown, whose tables are replaced')
    add('--csv', type=Path, metavar='FILE', help='also write the figures of every image to this file')
    difference = 'of two: the mean difference, first minus second, with its 95 %% confidence interval'
    add('--compare', action='store_true', help=difference)
    results.set_defaults(run=run_results)


def run_results(args: argparse.Namespace) -> None:
    if args.compare:
        from earn_plugin.results.paired import compare_results

        if args.output or args.csv:
            raise UsageError('--compare prints its lines; -o and --csv are for tables')
        print(compare_results(args.places))
        return
    from earn_plugin.results.results_page import write_page

    text = write_page(args.places, args.output, args.csv)
    print(text if args.output is None else f'{args.output} written')

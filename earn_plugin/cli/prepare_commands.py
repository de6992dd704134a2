"""basicsr prepare: what makes and checks data."""

import argparse
from pathlib import Path


def add_commands(commands) -> None:
    prepare = commands.add_parser('prepare', help="make LR images, sub-images, LMDBs, the recipes' data; check data")
    what = prepare.add_subparsers(dest='what', required=True, metavar='WHAT')

    demo = what.add_parser('demo', help='make datasets/demo from the photographs that scikit-image ships; no download')
    demo.set_defaults(run=run_demo)

    lr = what.add_parser('lr', help="make LR images to the byte as MATLAB's bicubic does")
    lr.add_argument('hr_folder', type=Path, metavar='HR_DIR')
    lr.add_argument('lr_folder', type=Path, metavar='LR_DIR')
    lr.add_argument('--scale', type=int, required=True, help='2, 3, 4, …')
    lr.add_argument(
        '--border',
        choices=('replicate', 'symmetric'),
        default='replicate',
        help='replicate: as the LR files of RCAN (the default); symmetric: as those of the EDSR benchmark',
    )
    lr.add_argument('--suffix', default='', help='x4: 0001.png becomes 0001x4.png; the same name by default')
    lr.add_argument('--cropped', type=Path, metavar='DIR', help='write the HR images cut to a multiple of the scale')
    add_jobs(lr)
    lr.set_defaults(run=run_lr)

    sub = what.add_parser('subimages', help='cut images into squares')
    sub.add_argument('folder', type=Path, metavar='DIR')
    sub.add_argument('sub_folder', type=Path, metavar='SUB_DIR')
    add_cutting(sub, size=480, step=240)
    add_jobs(sub)
    sub.set_defaults(run=run_subimages)

    lmdb = what.add_parser('lmdb', help='make an LMDB of images, or of their sub-images')
    lmdb.add_argument('folder', type=Path, metavar='DIR')
    lmdb.add_argument('lmdb', type=Path, metavar='X.lmdb')
    add_cutting(lmdb)
    lmdb.add_argument(
        '--encoding', choices=('png', 'bmp'), default='png', help='bmp: more room, hardly any time to decode'
    )
    add_jobs(lmdb)
    lmdb.set_defaults(run=run_lmdb)

    check = what.add_parser(
        'check',
        help='read every image of data sets, and list all that is wrong with them',
        description='Read every image and list all that is wrong: names, pairs, sizes, damage, channels, bit depth, '
        'and images to train on that are to test on, too. The exit code is 1 if there is anything.',
    )
    check.add_argument(
        'data', metavar='DATA', help='an options file or recipe, or else a folder or LMDB of (HR) images'
    )
    check.add_argument('lr', metavar='LR', nargs='?', help='the folder or LMDB of their LR images')
    check.add_argument('--scale', type=int, help='HR by LR; without it the scale that most pairs have')
    check.add_argument('--filename_tmpl', metavar='TEMPLATE', help="names in LR, for example '{}x4'; without it '{}'")
    check.add_argument(
        '--phase', choices=('train', 'val'), help='in val HR may have some pixels more than the scale says'
    )
    check.add_argument('--against', metavar='DIR', nargs='+', default=[], help='images to test on, not to be in DATA')
    check.set_defaults(run=run_check)

    for name, scales, archives in (
        ('div2k', (2, 3, 4, 8), "DIV2K's zips"),
        ('flickr2k', (2, 3, 4), "Flickr2K.tar and DIV2K's zips"),
        ('benchmark', (2, 3, 4, 8), 'benchmark.tar, or any of Set5, Set14, B100 and Urban100'),
        ('voc2012', (2, 3, 4), 'VOCtrainval_11-May-2012.tar'),
    ):
        add_data_set(what, name, scales, archives)


def add_cutting(command: argparse.ArgumentParser, size: int | None = None, step: int | None = None) -> None:
    cut = f'{size} and {step}' if size else 'whole images'
    command.add_argument('--size', type=int, default=size, help=f'side of the squares in HR ({cut} by default)')
    command.add_argument('--step', type=int, default=step, help='from one square to the next in HR')
    command.add_argument('--scale', type=int, default=1, help='DIR holds LR of this scale: all sizes shrink by it')
    command.add_argument('--suffix', default='', help='that the names end in and those of the sub-images shall not: x4')
    command.add_argument('--multiple', type=int, default=1, help='cut images to a multiple first: 12 for ×2 ×3 ×4')
    command.add_argument('--skip-small', action='store_true', help='leave out images smaller than the size')


def add_data_set(what, name: str, scales: tuple[int, ...], archives: str) -> None:
    command = what.add_parser(name, help=f'make what the recipes read from {archives}')
    command.add_argument('place', type=Path, metavar='DIR', help=f'holds {archives}, packed or unpacked')
    command.add_argument('--out', type=Path, default=Path('datasets'), help='root of the tree (default: %(default)s)')
    command.add_argument('--scales', type=int, nargs='+', choices=scales, default=[2, 3, 4], help='default: 2 3 4')
    command.add_argument(
        '--border', choices=('replicate', 'symmetric'), default='replicate', help='of LR images that are made (see lr)'
    )
    if name in ('div2k', 'flickr2k'):
        command.add_argument('--make-lr', action='store_true', help='make LR images where their archive is missing')
    command.add_argument('--allow-missing', action='store_true', help='where images are missing, go on with the others')
    add_jobs(command)
    command.set_defaults(run=run_data_set)


def add_jobs(command: argparse.ArgumentParser) -> None:
    command.add_argument('--jobs', type=int, metavar='N', help='threads; all cores by default')


def run_demo(args: argparse.Namespace) -> None:
    from earn_plugin.prepare import demo

    tell(demo.ROOT, demo.make_demo())


def run_lr(args: argparse.Namespace) -> None:
    from earn_plugin.data.image_files import images_in
    from earn_plugin.prepare.lmdb import make_cropped, make_lr

    if args.cropped:
        tell(args.cropped, make_cropped(args.hr_folder, args.cropped, args.scale, args.jobs))
    made = make_lr(args.hr_folder, args.lr_folder, args.scale, args.border, args.suffix, args.jobs)
    tell(args.lr_folder, made)
    others = [path.name for path in images_in(args.hr_folder) if path.suffix != '.png']
    if others and not args.cropped:
        print(
            f'note: LR images are PNG, {others[0]} is not; BasicSR pairs files of the same ending: '
            'with --cropped DIR the HR images are written as PNG, too'
        )


def run_subimages(args: argparse.Namespace) -> None:
    from earn_plugin.prepare.lmdb import make_subimages

    tell(args.sub_folder, make_subimages(args.folder, args.sub_folder, **cutting(args), jobs=args.jobs))


def run_lmdb(args: argparse.Namespace) -> None:
    from earn_plugin.prepare.lmdb import make_lmdb

    made = make_lmdb(args.folder, args.lmdb, **cutting(args), encoding=args.encoding, jobs=args.jobs)
    tell(args.lmdb, made)


def run_data_set(args: argparse.Namespace) -> None:
    from earn_plugin.prepare import benchmarks
    from earn_plugin.prepare import div2k as sets
    from earn_plugin.prepare.data_tree import preparing

    module = benchmarks if args.what == 'benchmark' else sets
    bicubic = [args.make_lr] if 'make_lr' in args else []
    archives = module.ARCHIVES[args.what]
    with preparing(args.place, args.out, archives, args.border, args.allow_missing, args.jobs) as work:
        getattr(module, args.what)(work, sorted(set(args.scales)), *bicubic)


def cutting(args: argparse.Namespace) -> dict:
    from earn_plugin.errors import UsageError

    for name, value in (('--scale', args.scale), ('--multiple', args.multiple)):
        if value < 1:
            raise UsageError(f'{name} must be at least 1, got {value}')
    for name, value in (('--size', args.size), ('--step', args.step), ('--multiple', args.multiple)):
        if value not in (None, 1) and value % args.scale:
            raise UsageError(f'{name} {value} is that of HR, and no multiple of --scale {args.scale}')
    return {
        'size': args.size and args.size // args.scale,
        'step': args.step and args.step // args.scale,
        'suffix': args.suffix,
        'multiple': max(1, args.multiple // args.scale),
        'skip_small': args.skip_small,
    }


def tell(path: Path, made: bool) -> None:
    print(f'{path} is {"made" if made else "there already"}')


def run_check(args: argparse.Namespace) -> int:
    from earn_plugin.prepare.audit import audit_datasets

    report = audit_datasets([*datasets_of(args), *(images_to_test_on(folder) for folder in args.against)])
    print(report)
    return 1 if report.count else 0


def datasets_of(args: argparse.Namespace) -> list[dict]:
    """BasicSR's options of the data sets to check: those of an options file, or made for folders.

    Raises:
        UsageError: neither an options file nor a folder, or arguments that do not go together.
    """
    from earn_plugin.errors import UsageError

    if args.scale is not None and args.scale < 1:
        raise UsageError(f'--scale must be 1 or more, got {args.scale}')
    if Path(args.data).is_dir():
        if args.lr is None:
            if args.scale or args.filename_tmpl:
                raise UsageError('--scale and --filename_tmpl are of pairs: give the LR folder, too')
            return [{**images_to_test_on(args.data), 'phase': 'train'}]
        pairs = {'name': f'{args.data} and {args.lr}', 'type': 'PairedImageDataset', 'phase': args.phase or 'train'}
        roots = {'dataroot_gt': args.data, 'dataroot_lq': args.lr}
        return [{**pairs, **roots, 'scale': args.scale, 'filename_tmpl': args.filename_tmpl or '{}'}]
    if args.lr is not None:
        raise UsageError(f'there is no folder {args.data}')
    if args.scale or args.filename_tmpl or args.phase:
        raise UsageError('--scale, --filename_tmpl and --phase are of folders; an options file says its own')

    from earn_plugin.options.defaults import fill_dataset_defaults
    from earn_plugin.options.option_checks import check_dataset_options
    from earn_plugin.options.options_file import find_options_file, read_options
    from earn_plugin.prepare.demo import make_missing_demo

    try:
        options = read_options(find_options_file(args.data))
    except UsageError as error:
        raise UsageError(
            f'{error}' if Path(args.data).is_file() else f'there is no folder {args.data}, {error}'
        ) from None
    check_dataset_options(options)
    make_missing_demo(options.data)
    return fill_dataset_defaults(options.data)


def images_to_test_on(folder: str) -> dict:
    return {'name': folder, 'type': 'SingleImageDataset', 'phase': 'test', 'dataroot_lq': folder}

"""basicsr prepare: what makes and checks data."""

import argparse
import os
from pathlib import Path

from earn_plugin.cli.network_commands import add_import_arguments
from earn_plugin.errors import UsageError

DATA_SETS = (  # name, scales, archives
    ('div2k', (2, 3, 4, 8), "DIV2K's zips"),
    ('flickr2k', (2, 3, 4), "Flickr2K.tar and DIV2K's zips"),
    ('benchmark', (2, 3, 4, 8), 'benchmark.tar, or any of Set5, Set14, B100 and Urban100'),
    ('voc2012', (2, 3, 4), 'VOCtrainval_11-May-2012.tar'),
)


def add_commands(commands) -> None:
    prepare = commands.add_parser('prepare', help="make LR images, sub-images, LMDBs, the recipes' data; check data")
    what = prepare.add_subparsers(dest='what', required=True, metavar='WHAT')

    demo = what.add_parser('demo', help="make datasets/demo from scikit-image's photographs; no download")
    demo.set_defaults(run=run_demo)

    lr = what.add_parser('lr', help="make LR images, byte for byte as MATLAB's bicubic")
    lr.add_argument('hr_folder', type=Path, metavar='HR_DIR', help='a folder of HR images')
    lr.add_argument('lr_folder', type=Path, metavar='LR_DIR', help='the folder to create')
    lr.add_argument('--scale', type=int, required=True, help='2, 3, 4, …')
    add_border(lr, 'replicate: as the LR files of RCAN (default); symmetric: as those of the EDSR benchmark')
    lr.add_argument('--suffix', default='', help='suffix to append to the file names, e.g. x4: 0001.png → 0001x4.png')
    lr.add_argument(
        '--cropped', type=Path, metavar='DIR', help='also write the HR images, cropped to the scale, as PNG'
    )
    add_jobs(lr)
    lr.set_defaults(run=run_lr)

    sub = what.add_parser('subimages', help='cut images into square sub-images')
    sub.add_argument('folder', type=Path, metavar='DIR', help='a folder of images')
    sub.add_argument('sub_folder', type=Path, metavar='SUB_DIR', help='the folder to create')
    add_sub_image_settings(sub, size=480, step=240)
    add_jobs(sub)
    sub.set_defaults(run=run_subimages)

    lmdb = what.add_parser('lmdb', help='make an LMDB of images, or of their sub-images')
    lmdb.add_argument('folder', type=Path, metavar='DIR', help='a folder of images')
    lmdb.add_argument('lmdb', type=Path, metavar='X.lmdb', help='the LMDB to create')
    add_sub_image_settings(lmdb)
    lmdb.add_argument('--encoding', choices=('png', 'bmp'), default='png', help='bmp: larger, but faster to decode')
    add_jobs(lmdb)
    lmdb.set_defaults(run=run_lmdb)

    about = 'names, pairs, sizes, damage, channels, bit depth, training images that are also test images'
    check = what.add_parser('check', help='read every image of data sets and list all problems', description=about)
    check.add_argument('data', metavar='DATA', help='a recipe, an options file, or a folder or LMDB of (HR) images')
    check.add_argument('lr', type=Path, metavar='LR', nargs='?', help='the folder or LMDB of their LR images')
    check.add_argument('--scale', type=int, help='HR divided by LR (default: the scale of most pairs)')
    check.add_argument('--filename_tmpl', metavar='TEMPLATE', help="the names in LR, e.g. '{}x4' (default: '{}')")
    check.add_argument('--phase', choices=('train', 'val'), help='val: HR need not be a multiple of the scale')
    against = 'test images that must not be in DATA'
    check.add_argument('--against', type=Path, metavar='DIR', nargs='+', default=[], help=against)
    add_import_arguments(check)
    check.set_defaults(run=run_check)

    for name, scales, archives in DATA_SETS:
        command = what.add_parser(name, help=f'make what the recipes read from {archives}')
        command.add_argument('place', type=Path, metavar='DIR', help=f'contains {archives}, packed or unpacked')
        command.add_argument(
            '--out', type=Path, default=Path('datasets'), help='root of the tree (default: %(default)s)'
        )
        command.add_argument('--scales', type=int, nargs='+', choices=scales, default=[2, 3, 4], help='default: 2 3 4')
        add_border(command, 'of LR images that are made, see prepare lr')
        if name in ('div2k', 'flickr2k'):
            command.add_argument('--make-lr', action='store_true', help='make LR images if their archive is missing')
        command.add_argument('--allow-missing', action='store_true', help='continue if images are missing')
        add_jobs(command)
        command.set_defaults(run=run_data_set, make_lr=False)


def add_sub_image_settings(command: argparse.ArgumentParser, size: int | None = None, step: int | None = None) -> None:
    default = '%(default)s' if size else 'complete images'
    command.add_argument('--size', type=int, default=size, help=f'side of the sub-images in HR (default: {default})')
    default = '%(default)s by default' if step else 'given with --size'
    command.add_argument('--step', type=int, default=step, help=f'distance between sub-images in HR, {default}')
    command.add_argument('--scale', type=int, default=1, help='DIR contains LR of this scale: divide all sizes by it')
    command.add_argument('--suffix', default='', help='suffix to strip from the file names, e.g. x4')
    command.add_argument('--multiple', type=int, default=1, help='first crop to a multiple, e.g. 12 for ×2, ×3 and ×4')
    command.add_argument('--skip-small', action='store_true', help='skip images smaller than the size')


def add_border(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument('--border', choices=('replicate', 'symmetric'), default='replicate', help=text)


def add_jobs(command: argparse.ArgumentParser) -> None:
    command.add_argument('--jobs', type=int, metavar='N', help='threads (default: all cores)')


def run_demo(args: argparse.Namespace) -> None:
    from earn_plugin.prepare import demo

    report(demo.ROOT, demo.make_demo())


def run_lr(args: argparse.Namespace) -> None:
    from earn_plugin.data.image_files import images_in
    from earn_plugin.prepare.lr import make_lr
    from earn_plugin.prepare.subimages import SubImages, make_subimages

    hr, lr = args.hr_folder, args.lr_folder
    report(lr, make_lr(hr, lr, args.scale, border=args.border, suffix=args.suffix, jobs=args.jobs))
    if args.cropped:
        report(args.cropped, make_subimages(hr, args.cropped, SubImages(multiple=args.scale), args.jobs))
    others = [path.name for path in images_in(hr) if path.suffix != '.png']
    if others and not args.cropped:
        hint = 'with --cropped DIR the HR images are also written as PNG'
        print(f'warning: LR images are PNG, {others[0]} is not, and BasicSR pairs only files of the same type: {hint}')


def run_subimages(args: argparse.Namespace) -> None:
    from earn_plugin.prepare.subimages import make_subimages

    report(args.sub_folder, make_subimages(args.folder, args.sub_folder, sub_image_settings(args), args.jobs))


def run_lmdb(args: argparse.Namespace) -> None:
    from earn_plugin.prepare.lmdb import make_lmdb

    settings = sub_image_settings(args)
    report(args.lmdb, make_lmdb(args.folder, args.lmdb, settings, encoding=args.encoding, jobs=args.jobs))


def run_data_set(args: argparse.Namespace) -> None:
    from earn_plugin.prepare import benchmark_sets, div2k, flickr2k, voc2012
    from earn_plugin.prepare.data_tree import data_tree

    modules = {'div2k': div2k, 'flickr2k': flickr2k, 'benchmark': benchmark_sets, 'voc2012': voc2012}
    module = modules[args.what]
    settings = {name: getattr(args, name) for name in ('border', 'make_lr', 'allow_missing', 'jobs')}
    with data_tree(args.place, args.out, module.ARCHIVES, **settings) as tree:
        getattr(module, f'make_{args.what}')(tree, sorted(set(args.scales)))


def sub_image_settings(args: argparse.Namespace):
    """The settings for the images in DIR, from sizes in HR."""
    from earn_plugin.prepare.subimages import SubImages

    scale = args.scale
    if scale < 1:
        raise UsageError(f'--scale must be at least 1, got {scale}')
    for name, value in (('--size', args.size), ('--step', args.step), ('--multiple', args.multiple)):
        if value not in (None, 1) and value % scale:
            raise UsageError(f'{name} is in HR pixels and must be a multiple of --scale {scale}, got {value}')
    size, step = args.size and args.size // scale, args.step and args.step // scale
    multiple = 1 if args.multiple == 1 else args.multiple // scale
    return SubImages(size, step, args.suffix, multiple, args.skip_small)


def report(path: Path, is_new: bool) -> None:
    print(f'{path} {"created" if is_new else "already exists"}')


def run_check(args: argparse.Namespace) -> int:
    from earn_plugin.prepare.audit import audit_datasets

    result = audit_datasets([*options_to_check(args), *map(images_only, map(str, args.against))])
    print(result)
    return 1 if result.count else 0


def options_to_check(args: argparse.Namespace) -> list[dict]:
    """BasicSR's options of the data sets: from an options file, or for folders."""
    if args.scale is not None and args.scale < 1:
        raise UsageError(f'--scale must be at least 1, got {args.scale}')
    if os.path.isdir(args.data):  # noqa: PTH112 (Path's raises if the name is too long)
        if args.lr is None:
            if args.scale or args.filename_tmpl or args.phase:
                raise UsageError('--scale, --filename_tmpl and --phase are for pairs: also pass the LR folder')
            return [{**images_only(args.data), 'phase': 'train'}]
        pairs = {'name': f'{args.data} and {args.lr}', 'type': 'PairedImageDataset', 'phase': args.phase or 'train'}
        roots = {'dataroot_gt': args.data, 'dataroot_lq': str(args.lr)}
        return [{**pairs, **roots, 'scale': args.scale, 'filename_tmpl': args.filename_tmpl or '{}'}]
    if args.lr is not None:
        raise UsageError(f'there is no folder {args.data}')
    if args.scale or args.filename_tmpl or args.phase:
        raise UsageError('--scale, --filename_tmpl and --phase are for folders; an options file has its own')

    from earn_plugin.options.defaults import fill_dataset_defaults
    from earn_plugin.options.option_checks import check_dataset_options
    from earn_plugin.options.options_file import find_options_file, read_options
    from earn_plugin.prepare.demo import make_missing_demo

    try:
        options = read_options(find_options_file(args.data))
    except UsageError as error:
        no_folder = '' if os.path.isfile(args.data) else f'there is no folder {args.data:.200}; '  # noqa: PTH113
        raise UsageError(f'{no_folder}{error}') from None
    check_dataset_options(options)
    make_missing_demo(options.data)
    return fill_dataset_defaults(options.data)


def images_only(folder: str) -> dict:
    return {'name': folder, 'type': 'SingleImageDataset', 'phase': 'test', 'dataroot_lq': folder}

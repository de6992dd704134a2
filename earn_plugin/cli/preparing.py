"""basicsr prepare: what makes and checks data."""

import argparse


def add_commands(commands) -> None:
    prepare = commands.add_parser('prepare', help='prepare data')
    what = prepare.add_subparsers(dest='what', required=True, metavar='WHAT')

    demo = what.add_parser('demo', help='make datasets/demo from the photographs that scikit-image ships; no download')
    demo.set_defaults(run=run_demo)


def run_demo(args: argparse.Namespace) -> None:
    from earn_plugin.data import demo

    made = demo.make_demo()
    print(f'{demo.ROOT} is {"made" if made else "there already"}')

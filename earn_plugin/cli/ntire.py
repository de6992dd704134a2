"""basicsr ntire: from a checkpoint to a submission."""


def add_commands(commands) -> None:
    ntire = commands.add_parser('ntire', help='prepare a submission to the NTIRE challenge on efficient SR')
    ntire.add_subparsers(dest='what', required=True, metavar='WHAT')

import io
import sys

import numpy as np
import pytest
from tqdm import tqdm

from earn_plugin import cli
from earn_plugin.data.image_files import encode
from earn_plugin.errors import PrintableStream, printable
from earn_plugin.training import run_logs
from tests.helpers.command import close_log, command


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('plain ä × 漢\n\tand more', 'plain ä × 漢\n\tand more'),
        ('\x1b[31mred\x9b0m', '\\x1b[31mred\\x9b0m'),
        ('a\rb\x07\x7f\u202e\udcff', 'a\\rb\\x07\\x7f\\u202e\\udcff'),
    ],
)
def test_printable(text, expected):
    assert printable(text) == expected
    stream = io.StringIO()
    print(text, file=PrintableStream(stream))
    assert stream.getvalue() == expected + '\n'


def test_progress_bars_are_written_as_before():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def bars(stream):
        for _ in tqdm(range(2), file=stream, bar_format='{desc} {n}', desc='outer', mininterval=0):
            for _ in tqdm(
                range(2), file=stream, bar_format='{desc} {n}', desc='in\x1b[31mner', mininterval=0, leave=False
            ):
                pass

    written, plain = Terminal(), Terminal()
    bars(PrintableStream(written, has_bars=True))
    bars(plain)
    assert '\x1b[A' in plain.getvalue()
    assert written.getvalue().replace('\\x1b[31m', '').replace(' ', '') == plain.getvalue().replace(
        '\x1b[31m', ''
    ).replace(' ', '')


def test_only_the_stream_of_bars_moves_the_cursor():
    stream = io.StringIO()
    print('\rname', '\x1b[A', file=PrintableStream(stream))
    assert stream.getvalue() == '\\rname \\x1b[A\n'


@pytest.mark.slow
def test_no_command_prints_an_escape_of_a_name(tmp_path):
    red = '\x1b[31mred'
    (tmp_path / red).mkdir()
    (tmp_path / red / f'{red}.png').write_bytes(encode(np.zeros((8, 8), np.uint8)))
    (tmp_path / 'o.yml').write_text(f'"{red!s}": 1\nname: x\nmodel_type: SRModel\n'.replace('\x1b', '\\e'))
    for arguments, code in (
        (['prepare', 'check', red], 1),
        (['prepare', 'subimages', red, 'sub'], 1),
        (['convert', f'{red}/{red}.png', 'x.pth'], 1),
        (['complexity', red], 2),
        (['train', '-opt', 'o.yml'], 2),
        (['train', '-opt', red], 2),
        ([red], 2),
    ):
        printed = command(*arguments, cwd=tmp_path, expect=code)
        assert '\\x1b[31mred' in printed
        assert '\x1b' not in printed


def test_the_log_file_has_no_escapes_either(tmp_path, capsys):
    close_log()
    opt = {'rank': 0, 'name': 'x', 'path': {'log': str(tmp_path)}, 'datasets': {'val': {'dataroot_gt': 'a\x1b[31m'}}}
    run_logs.start_log(opt)
    run_logs.open_log(opt, 'train', ['a name\x1b[31m \udcff'])
    close_log()
    (log,) = tmp_path.glob('train_x_*.log')
    text = log.read_text(encoding='utf-8')
    assert 'dataroot_gt: a\\x1b[31m\n' in text
    assert 'a name\\x1b[31m \\udcff' in text
    assert '\x1b' not in text


def test_streams_are_wrapped_once(capsys):
    for _ in range(2):
        with pytest.raises(SystemExit):
            cli.main(['--version'])
    assert not isinstance(sys.stdout._stream, PrintableStream)

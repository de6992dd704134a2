import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from earn_plugin.errors import UserError
from earn_plugin.figures.result_images import find_result, read_as_basicsr
from tests.helpers.images import photograph


def files(folder: str, *names: str) -> Path:
    for name in names:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, name).touch()
    return Path(folder)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    'names, expected',
    [
        (['baby.png', 'babyx4.png', 'baby_net.png'], 'baby.png'),
        (['babyx4.png', 'baby_net.png'], 'babyx4.png'),
        (['baby_test_EARN_x4.png', 'bird_test_EARN_x4.png'], 'baby_test_EARN_x4.png'),
        (['babyx4_test_EARN_x4.png', 'babyx2.png'], 'babyx4_test_EARN_x4.png'),
        (['baby.jpg', 'babysitter.png'], 'baby.jpg'),
        (['baby_2_net.png', 'baby_net.png'], 'baby_net.png'),  # the first is baby_2's
        (['birdx4_net.png', 'babyx4_net.png'], 'babyx4_net.png'),
    ],
)
def test_names(names, expected):
    files('HR', 'baby.png', 'babyx4.png', 'baby_2.png', 'bird.png')
    assert find_result(files('results', *names), Path('HR/baby.png'), 4) == Path('results', expected)


def test_names_are_not_patterns():
    files('HR', 'a+b(1).png')
    assert (
        find_result(files('results', 'aab1_net.png', 'a+b(1)_net.png'), Path('HR/a+b(1).png'), 2).stem == 'a+b(1)_net'
    )


def test_folders_of_many_images():
    names = [f'{number:05}.png' for number in range(500)]
    files('HR', *names)
    files('results', *(name.replace('.', 'x4_net.') for name in names))
    start = time.process_time()
    assert find_result(Path('results'), Path('HR/00499.png'), 4).name == '00499x4_net.png'
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    'names, message',
    [
        (
            ['bird_net.png'],
            'results has no image for baby.png: .*baby, babyx4 or baby_ANYTHING; there are bird_net.png',
        ),
        (['baby_2_net.png'], 'results has no image for baby.png: baby_2_net.png belongs to another'),
        (['baby_a.png', 'baby_b.png'], 'results has several images for baby.png: baby_a.png, baby_b.png'),
    ],
)
def test_no_result_and_several(names, message):
    files('HR', 'baby.png', 'baby_2.png')
    with pytest.raises(UserError, match=message):
        find_result(files('results', *names), Path('HR/baby.png'), 4)


@pytest.mark.parametrize(
    'stored, kind',
    [
        (photograph(8, 9)[..., 0], 'grey'),
        (photograph(8, 9).astype(np.uint16) * 257, '16-bit RGB'),
        (np.dstack([photograph(8, 9), photograph(8, 9)[..., 0]]), 'RGBA'),
    ],
)
def test_all_kinds_are_read_as_basicsr_reads_them(stored, kind, capsys):
    cv2.imwrite('a.png', stored)
    np.testing.assert_array_equal(read_as_basicsr(Path('a.png')), cv2.imread('a.png'))
    assert capsys.readouterr().out == f'warning: a.png is {kind}: read as 8-bit RGB\n'


def test_what_is_no_image():
    Path('a.png').write_text('no image')
    with pytest.raises(UserError, match=re.escape('a.png')):
        read_as_basicsr(Path('a.png'))

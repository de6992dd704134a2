"""Flipped bits in LMDBs, read through BasicSR's backend as training does."""

import multiprocessing
import os
import random
import struct
import zlib
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from basicsr.utils import FileClient, imfrombytes

from earn_plugin.data.folder_or_lmdb import LMDB
from earn_plugin.data.image_files import encode
from earn_plugin.data.lmdb_damage import check_pages, with_checksum
from earn_plugin.data.loaders import build_checked
from earn_plugin.data.stream import Readable
from earn_plugin.errors import UserError
from earn_plugin.prepare.audit import audit_datasets
from earn_plugin.prepare.lmdb import make_lmdb
from tests.helpers.images import lmdb_values, pair_options, photograph, write_pairs

PAGE = 4096


def flip(file: Path, bit: int) -> None:
    with file.open('r+b') as opened:
        opened.seek(bit // 8)
        byte = opened.read(1)[0]
        opened.seek(bit // 8)
        opened.write(bytes([byte ^ 1 << bit % 8]))


def index_pages(data: bytes) -> list[int]:
    """The numbers of the pages that hold no values of their own."""
    found, page = [], 0
    while page < len(data) // PAGE:
        kind, count = struct.unpack_from('=10xHI', data, page * PAGE)
        found += [page] if kind != 4 else []
        page += count if kind == 4 else 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize('encoding', ['bmp', 'png'])
def test_no_flipped_bit_is_loaded_silently_or_ends_the_process(tmp_path, encoding):
    (tmp_path / 'HR').mkdir()
    images = {f'a_long_name_that_fills_the_pages_of_keys_{i:03d}': photograph(26, 28, i) for i in range(90)}
    for name, image in images.items():
        cv2.imwrite(str(tmp_path / f'HR/{name}.png'), image)
    make_lmdb(tmp_path / 'HR', root := tmp_path / 'HR.lmdb', encoding=encoding)
    file = root / 'data.mdb'
    data = file.read_bytes()
    pages = index_pages(data)
    assert len(pages) > 4  # the index has several levels
    chance = random.Random(0)
    bits = [chance.randrange(8 * len(data)) for _ in range(200)]
    bits += [8 * PAGE * chance.choice(pages[2:]) + chance.randrange(8 * PAGE) for _ in range(200)]
    bits += [8 * PAGE * page + bit for page in (0, 1) for bit in chance.sample(range(8 * 152), 100)]

    def read_all() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libpng's warnings
        found = 0
        for bit in bits:
            flip(file, bit)
            try:
                client = FileClient('lmdb', db_paths=[str(root)], client_keys=['gt'])
            except UserError:
                found += 1
            else:
                for name, image in images.items():
                    try:
                        read = imfrombytes(client.get(name, 'gt'))
                    except UserError:
                        found += 1
                    else:
                        assert (read is None and encoding == 'png') or np.array_equal(read, image)
                del client  # closes the LMDB
            flip(file, bit)
        os._exit(3 if found > 100 else 4)

    process = multiprocessing.get_context('fork').Process(target=read_all)
    process.start()
    process.join()
    assert process.exitcode == 3


def test_a_value_holds_the_crc_of_its_other_bytes(tmp_path):
    make_lmdb(write_pairs(tmp_path, 3) / 'HR', tmp_path / 'HR.lmdb', encoding='bmp')
    for value in lmdb_values(tmp_path / 'HR.lmdb').values():
        assert struct.unpack_from('<I', value, 6)[0] == zlib.crc32(value[:6] + value[10:])
    bmp = encode(photograph(8, 9), '.bmp')
    np.testing.assert_array_equal(imfrombytes(with_checksum(bmp)), photograph(8, 9))


def damaged_pairs(tmp_path: Path, encoding: str, at: bytes) -> Path:
    """Pairs whose HR.lmdb has a flipped bit in the pixels of im01, or after ``at``."""
    root = write_pairs(tmp_path, 3, size=(40, 40))
    for folder in ('HR', 'LR'):
        make_lmdb(root / folder, root / f'{folder}.lmdb', encoding=encoding)
    place = (root / 'HR.lmdb/data.mdb').read_bytes().index(at or lmdb_values(root / 'HR.lmdb')['im01'])
    flip(root / 'HR.lmdb/data.mdb', 8 * (place + (0 if at else 2000)))
    return root


def test_training_and_the_audit_name_the_lmdb_and_the_key(tmp_path):
    root = damaged_pairs(tmp_path, 'bmp', b'')
    dataset = Readable(build_checked(pair_options(root, 'val', 'lmdb'))[0])
    with pytest.raises(UserError, match=r'data set set: .*HR\.lmdb: the value of im01 is damaged.*create the LMDB'):
        dataset[1]
    assert dataset[0]['gt_path'] == 'im00'
    del dataset
    ((_, problems),) = audit_datasets([pair_options(root, 'val', 'lmdb')]).problems
    assert any('im01' in problem.where and 'checksum' in problem.what for problem in problems)


def test_a_key_that_is_lost_is_named(tmp_path):
    root = damaged_pairs(tmp_path, 'png', b'im02')
    dataset = Readable(build_checked(pair_options(root, 'val', 'lmdb'))[0])
    with pytest.raises(UserError, match=r'HR\.lmdb'):
        dataset[2]


def test_values_without_a_checksum_are_read(tmp_path):
    (root := tmp_path / 'X.lmdb').mkdir()
    with lmdb.open(str(root)) as environment, environment.begin(write=True) as writing:
        writing.put(b'a', encode(photograph(8, 9), '.bmp'))
    (root / 'meta_info.txt').write_text('a.png (8,9,3) 1\n')
    check_pages(root)
    opened = LMDB(root)
    np.testing.assert_array_equal(imfrombytes(opened.read('a')), photograph(8, 9))
    opened.close()


def test_an_lmdb_without_values(tmp_path):
    with lmdb.open(str(tmp_path / 'X.lmdb')) as environment, environment.begin(write=True) as writing:
        writing.put(b'a', b'b')
        writing.delete(b'a')
    check_pages(tmp_path / 'X.lmdb')

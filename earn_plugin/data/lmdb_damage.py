"""Damage to LMDBs: the pages that lead from keys to values, and checksums in decoded images.

LMDB itself verifies nothing: a flipped bit in a page can end the process or give the value of another key. PNG values
have checksums of their own, which cv2 verifies. A BMP value has four reserved bytes in its header, which no decoder
reads: ``prepare lmdb`` stores the CRC-32 of the other bytes there; 0 is no checksum.
"""

import struct
import zlib
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

from earn_plugin.errors import UserError

LMDB_MAGIC = 0xBEEFC0DE
HEADER = struct.Struct('=QHHHH')  # of a page: its number, unused, kind, end of the nodes' offsets, start of the nodes
BRANCH, LEAF, META = 1, 2, 8  # kinds of pages
NODE = struct.Struct('=HHHH')  # low and high bits of the value's length or the child's number, flags, length of the key
ELSEWHERE = 1  # flag of a node whose value has pages of its own
CHECKSUM = slice(6, 10)  # in a BMP file


def checksum(bmp: bytes) -> bytes:
    """The CRC-32 of a BMP file without the bytes that hold it; never 0."""
    view = memoryview(bmp)
    return struct.pack('<I', zlib.crc32(view[CHECKSUM.stop :], zlib.crc32(view[: CHECKSUM.start])) or 1)


def with_checksum(bmp: bytes) -> bytes:
    """A BMP file whose header holds its checksum; it decodes as before."""
    return bmp[: CHECKSUM.start] + checksum(bmp) + bmp[CHECKSUM.stop :]


def is_damaged(value: bytes) -> bool:
    """Whether a value has a checksum and differs from it."""
    return value[:2] == b'BM' and value[CHECKSUM] != b'\0\0\0\0' and value[CHECKSUM] != checksum(value)


def check_length(root: Path) -> None:
    """Check that an LMDB is as long as its first pages say: reading beyond its end kills a process (SIGBUS).

    Raises:
        UserError: it is cut off, or not an LMDB.
    """
    file = root / 'data.mdb'
    with file.open('rb') as opened:
        first, length = opened.read(2**17), opened.seek(0, 2)
    try:  # both meta pages: 16 bytes of a page's header, then magic, …, size of a page, …, last page, transaction
        magic, page = struct.unpack_from('=16xI20xI', first)
        last, _ = max((struct.unpack_from('=136xQQ', first, start) for start in (0, page)), key=lambda meta: meta[1])
    except struct.error:
        magic, page, last = 0, 0, 0
    if magic != LMDB_MAGIC:
        raise UserError(f'{root} cannot be read: {file.name} is cut off, or not an LMDB; create it again')
    if length < (last + 1) * page:
        raise UserError(f'{file} is cut off: it has {length:,} of {(last + 1) * page:,} bytes; copy or create it again')


def check_pages(root: Path) -> None:
    """Check all pages of an LMDB that are read to find a value.

    Raises:
        UserError: the LMDB is damaged or cut off.
    """
    check_length(root)
    with (root / 'data.mdb').open('rb') as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        try:
            is_valid = _has_valid_pages(data)
        except (struct.error, IndexError, RecursionError):
            is_valid = False
    if not is_valid:
        raise UserError(f'{root} is damaged: its index has invalid pages; create it again, or restore it from a copy')


def _has_valid_pages(data: mmap) -> bool:
    size, metas = struct.unpack_from('=I', data, 40)[0], []
    for number in (0, 1):
        at = number * size
        page, _, kind, *_ = HEADER.unpack_from(data, at)
        _, version, _, _, its_size = struct.unpack_from('=IIQQI', data, at + 16)
        flags, _, _, _, _, _, root, last, transaction = struct.unpack_from('=HHQQQQQQQ', data, at + 92)
        if (page, kind, version, its_size, flags) != (number, META, 1, size, 0):
            return False
        metas.append((transaction, -number, root, last))
    _, _, root, last = max(metas)
    if root == 2**64 - 1:  # no values
        return True
    runs = sorted(_runs(data, size, root, bytearray()))
    ends = [first + count for first, count in runs]
    return ends[-1] <= last + 1 and all(start >= end for (start, _), end in zip(runs, [2, *ends], strict=False))


def _runs(data: mmap, size: int, number: int, last_key: bytearray) -> Iterator[tuple[int, int]]:
    """First page and number of pages of all that is below a page. Raises IndexError for what cannot be followed."""
    page = data[number * size : (number + 1) * size]
    its_number, _, kind, lower, upper = HEADER.unpack_from(page)
    count = (lower - HEADER.size) // 2
    if (
        its_number != number
        or kind not in (BRANCH, LEAF)
        or lower % 2
        or not lower <= upper <= size
        or count < kind % 2 + 1
    ):
        raise IndexError
    yield number, 1
    for start in struct.unpack_from(f'={count}H', page, HEADER.size):
        low, high, flags, length = NODE.unpack_from(page, start)
        end = start + NODE.size + length
        key = page[start + NODE.size : end]
        if start < upper or end > size:
            raise IndexError
        if kind == BRANCH:
            yield from _runs(data, size, low | high << 16 | flags << 32, last_key)
            continue
        bytes_ = low | high << 16
        if flags not in (0, ELSEWHERE) or not last_key < key or (flags == 0 and end + bytes_ > size):
            raise IndexError
        last_key[:] = key
        if flags == ELSEWHERE:
            yield struct.unpack_from('=Q', page, end)[0], -(-(HEADER.size + bytes_) // size)

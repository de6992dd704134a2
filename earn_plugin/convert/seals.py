"""Checksums in the files that we write: torch and safetensors themselves load a file with a flipped bit without a word.

A torch file is a zip archive, and its comment, which torch ignores, is the seal: the SHA-256 of all bytes before it. A
safetensors file has the SHA-256 of its names, types, shapes, values and other metadata in its metadata.
"""

import hashlib
import json
import os
import zipfile
from typing import BinaryIO

import torch
from torch import Tensor

LABEL = b'sha256:'
SEAL_LENGTH = len(LABEL) + 64
END_RECORD = 22  # bytes of the record at the end of a zip archive; the last 2 are the length of the comment


def seal_archive(file: BinaryIO) -> None:
    """Seal what torch.save has written to a file that is open for reading and writing."""
    file.seek(-2, os.SEEK_END)
    file.write(SEAL_LENGTH.to_bytes(2, 'little'))
    file.write(_seal_of(file, file.tell()))


def damage_of_archive(file: BinaryIO) -> str:
    """What is wrong with a torch file: its seal or, without one, a checksum of the archive; '' if nothing is.

    The seal covers every byte. The checksums that torch itself writes cover the content, but torch never compares them.
    """
    file.seek(0)
    if file.read(2) != b'PK' and not zipfile.is_zipfile(file):
        return ''  # the format of torch before 1.6, which has no checksums
    try:
        with zipfile.ZipFile(file) as archive:
            length = len(archive.comment)
            size = file.seek(-length, os.SEEK_END)
            file.seek(size - END_RECORD)
            record = file.read(END_RECORD)
            if not record.startswith(b'PK\x05\x06') or int.from_bytes(record[-2:], 'little') != length:
                return 'its last record is not at the end'
            if length == SEAL_LENGTH:
                return '' if archive.comment == _seal_of(file, size) else 'its SHA-256 differs'
            name = archive.testzip()
            return f'the checksum of {name} differs' if name else ''
    except Exception as error:  # damage makes zipfile raise exceptions of many types
        return f'{type(error).__name__}: {error}'


def _seal_of(file: BinaryIO, size: int) -> bytes:
    """The seal of the first bytes of a file, which is left right after them."""
    digest = hashlib.sha256()
    file.seek(0)
    while size:
        chunk = file.read(min(size, 2**20))
        if not chunk:
            raise EOFError('the file ends early')
        digest.update(chunk)
        size -= len(chunk)
    return LABEL + digest.hexdigest().encode()


def digest_of(weights: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """The SHA-256 of weights on the CPU and of metadata, whatever their order in the file."""
    names = sorted(weights)
    tensors = [[name, str(weights[name].dtype), list(weights[name].shape)] for name in names]
    digest = hashlib.sha256(json.dumps([metadata, tensors], sort_keys=True).encode())
    for name in names:
        digest.update(weights[name].contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

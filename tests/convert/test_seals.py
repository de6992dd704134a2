"""A file that we wrote is refused if any of its bits is flipped; torch and others read it as any other."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from earn_plugin.convert.weight_files import load_torch_file, read_weights, write_weights
from earn_plugin.errors import UserError
from earn_plugin.training import checkpoint
from tests.helpers.command import command_here

WEIGHTS = {'a.weight': torch.arange(21.0).view(7, 3), 'b': torch.tensor(1.5).bfloat16(), 'c': torch.zeros(0, 2)}
DESCRIPTION = {'arch': 'LGVAN', 'arguments': {'upscale': 4}, 'scale': 4}
READ = {'net.pth': read_weights, 'net.safetensors': read_weights, '3.state': load_torch_file}


def write(folder: Path, name: str) -> Path:
    if name.endswith('.state'):
        checkpoint.save_file(folder / name, {'iter': 3, 'networks': {'net_g': WEIGHTS}})
    else:
        write_weights(folder / name, WEIGHTS, DESCRIPTION, ('params',))
    return folder / name


def places(content: bytes, name: str) -> list[int]:
    """60 bytes anywhere, and all of the headers: of the file, its first and its last entry, its end; the padding."""
    random = np.random.default_rng(0).integers(len(content), size=60)
    if name.endswith('.safetensors'):
        headers = range(8 + int.from_bytes(content[:8], 'little'))
    else:
        headers = [*range(200), *range(content.rindex(b'PK\x01\x02'), len(content))]
    return [*random, *headers]


@pytest.mark.parametrize('name', READ)
def test_a_flipped_bit_anywhere_is_refused(tmp_path, name):
    path = write(tmp_path, name)
    READ[name](path)
    content = path.read_bytes()
    random = np.random.default_rng(1)
    for place in places(content, name):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf'{path.name} cannot be loaded: it is damaged'):
            READ[name](path)


@pytest.mark.parametrize('name', READ)
@pytest.mark.parametrize('change', [lambda content: content[:-1], lambda content: content + b'\0'])
def test_a_file_of_another_length_is_refused(tmp_path, name, change):
    path = write(tmp_path, name)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match='it is damaged'):
        READ[name](path)


def test_a_bit_that_switches_the_seal_off_is_refused(tmp_path):
    """The length of the zip's comment; the two keys of the metadata."""
    path = write(tmp_path, 'net.pth')
    content = bytearray(path.read_bytes())
    for length in (0, 70, 72):
        content[-73] = length
        path.write_bytes(content)
        with pytest.raises(UserError, match='last record is not at the end'):
            read_weights(path)
    for metadata in ({'earn_plugin': '{}'}, {'sha256': '0' * 64}):
        save_file(WEIGHTS, tmp_path / 'x.safetensors', metadata)
        with pytest.raises(UserError, match='only one of earn_plugin and sha256'):
            read_weights(tmp_path / 'x.safetensors')


def test_other_readers_ignore_the_seal(tmp_path):
    path = write(tmp_path, 'net.pth')
    for settings in ({}, {'mmap': True}, {'weights_only': False}):
        assert torch.equal(torch.load(path, **settings)['params']['a.weight'], WEIGHTS['a.weight'])
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment == b'sha256:' + hashlib.sha256(content[:-71]).hexdigest().encode()
    assert torch.equal(load_file(write(tmp_path, 'net.safetensors'))['a.weight'], WEIGHTS['a.weight'])


def test_files_of_others_have_no_seal_but_checksums(tmp_path, capsys, monkeypatch):
    """Of the content, which torch does not compare; without a description, ours are as plain as theirs."""
    monkeypatch.chdir(tmp_path)
    write_weights(Path('plain.pth'), WEIGHTS, {})
    torch.save(WEIGHTS, 'theirs.pth')
    for name in ('plain.pth', 'theirs.pth'):
        content = bytearray(Path(name).read_bytes())
        assert zipfile.ZipFile(name).comment == b''
        content[content.index(WEIGHTS['a.weight'].numpy().tobytes()) + 50] ^= 1
        Path(name).write_bytes(content)
        torch.load(name)
        printed = command_here('convert', name, 'out.pth', '--arch', 'LGVAN', capsys=capsys, expect=1)
        assert f'{name} cannot be loaded: it is damaged, or not a checkpoint (the checksum of ' in printed
    assert not Path('out.pth').exists()


def test_the_format_before_torch_1_6_has_no_checksums(tmp_path):
    torch.save(WEIGHTS, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(tmp_path / 'old.pth')[0]['a.weight'], WEIGHTS['a.weight'])

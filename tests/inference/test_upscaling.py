"""Pictures enlarged from files to files, compared with the network applied to their pixels; failures and resuming."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import earn_plugin
from earn_plugin.archs.a2n_arch import A2N
from earn_plugin.archs.lgvan_arch import LGVAN
from earn_plugin.convert.weight_files import describe_network, write_weights
from earn_plugin.errors import UsageError, UserError
from earn_plugin.inference import result_array, upscale, upscaling
from tests.helpers.command import command, command_here, start, torchrun
from tests.helpers.pictures import Double, doubled, enlarge, opened, photo, save
from tests.helpers.places import ROOT


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A tiny LGVAN ×2."""
    torch.manual_seed(0)
    opt = {'network_g': {'type': 'LGVAN', 'num_feat': 16, 'num_block': 1, 'upscale': 2}, 'scale': 2}
    description = describe_network('net_g', opt)
    path = tmp_path / 'tiny.safetensors'
    write_weights(path, LGVAN(**description['arguments']).state_dict(), description)
    return path


@pytest.mark.parametrize('size', [(1, 1), (1, 300), (300, 1)])
def test_thin_pictures(size):
    pixels = photo(*size)
    np.testing.assert_array_equal(enlarge(pixels, 'a.png'), doubled(pixels))


def test_bad_files_are_listed_and_the_rest_is_done(capsys):
    names = ['a.png', 'with blanks and 🦊.png', 'sub/c.webp']
    for name in names:
        save(Path('in', name), photo())
    for name, content in {
        'text.png': b'This is not a picture.\n' * 9,
        'empty.jpg': b'',
        'cut.png': Path('in/a.png').read_bytes()[:-90],
        'cut16.png': save(Path('other/deep.png'), photo(deep=True)).read_bytes()[:-90],
    }.items():
        Path('in', name).write_bytes(content)
    save(Path('in/cut.jpg'), photo(64, 64))
    os.truncate('in/cut.jpg', Path('in/cut.jpg').stat().st_size * 3 // 4)
    Path('in/floats.tif').write_bytes(b'')
    Image.fromarray(photo()[..., 0].astype(np.float32)).save('in/floats.tif')
    Path('in/link.png').symlink_to('nowhere')
    with pytest.raises(UserError) as failure:
        upscale('in', 'out', Double())
    listed = [line.strip().partition(':')[0] for line in str(failure.value).splitlines()[1:]]
    bad = ['text.png', 'empty.jpg', 'cut.png', 'cut16.png', 'cut.jpg', 'floats.tif', 'link.png']
    assert sorted(listed) == sorted(f'in/{name}' for name in bad)
    assert str(failure.value).startswith('7 of 10 pictures failed')
    assert sorted(str(p.relative_to('out')) for p in Path('out').rglob('*') if p.is_file()) == sorted(names)
    assert '3 of 10 pictures written' in capsys.readouterr().out


def test_existing_results_are_skipped(capsys):
    for name in ('a.png', 'b.png'):
        save(Path('in', name), photo())
    Path('out').mkdir()
    Path('out/a.png').write_bytes(b'mine')
    assert upscale('in', 'out', Double()) == 1
    assert '1 exist already' in capsys.readouterr().out
    assert Path('out/a.png').read_bytes() == b'mine'
    assert upscale('in', 'out', Double(), overwrite=True) == 2
    np.testing.assert_array_equal(opened(Path('out/a.png')), doubled(photo()))


def test_a_large_result_is_assembled_in_a_file_that_vanishes(monkeypatch):
    monkeypatch.setattr(result_array, 'LARGE', 100)
    names = set()
    write = upscaling.write_picture

    def watch(path, *rest):
        names.update(p.name for p in Path('out').iterdir())
        write(path, *rest)

    monkeypatch.setattr(upscaling, 'write_picture', watch)
    np.testing.assert_array_equal(enlarge(photo(40, 50), 'a.png'), doubled(photo(40, 50)))
    assert names == set()  # a kill leaves nothing


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
def test_pictures_may_be_of_any_size(monkeypatch, name):
    save(Path('in', name), photo())
    with monkeypatch.context() as patch:
        patch.setattr(Image, 'MAX_IMAGE_PIXELS', 20)
        upscale('in', 'out', Double())
        assert Image.MAX_IMAGE_PIXELS == 20
    np.testing.assert_array_equal(opened(Path('out', name)), doubled(photo()))


def test_a_full_disk_ends_the_command_at_once(monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, 'No space left on device', 'a.png')

    monkeypatch.setattr(upscaling, 'write_picture', fail)
    for index in range(9):
        save(Path(f'in/{index}.png'), photo())
    with pytest.raises(OSError, match='No space left'):
        upscale('in', 'out', Double())


def test_each_process_has_its_gpu(monkeypatch):
    monkeypatch.setattr(upscaling, 'find_device', lambda name: torch.device(name or 'cuda'))
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('LOCAL_RANK', '3')
    names = (None, 'cuda', 'cuda:0', 'cpu')
    assert [str(upscaling.device_of_process(name)) for name in names] == ['cuda:1', 'cuda:1', 'cuda:0', 'cpu']


def test_a_result_too_large_for_its_format_is_refused_before_computing():
    class Fails(Double):
        def forward(self, x):
            assert x.shape[2:] == (16, 16)  # the size with which the scale is measured
            return super().forward(x)

    save(Path('in/a.webp'), photo(8200, 1))
    with pytest.raises(UserError, match=r'in/a.webp: .* 16,400 pixels, webp at most 16,383: --format png'):
        upscale('in', 'out', Fails())


def test_a_network_for_grey_pictures():
    save(Path('in/a.png'), photo()[..., 0])
    save(Path('in/b.png'), photo())
    with pytest.raises(UserError, match=r'1 of 2 pictures failed:\n  in/b.png: is in colour'):
        upscale('in', 'out', Double(channels=1))
    np.testing.assert_array_equal(opened(Path('out/a.png')), doubled(photo()[..., 0]))


def test_float16_is_refused_for_a_fused_network_of_range_255():
    with pytest.raises(UsageError, match='values up to 255'):
        upscale('.', 'out', A2N(num_feat=8, num_upfeat=4, num_block=1, fused=True), dtype='float16')


def test_float16_is_refused_for_networks_of_range_255():
    network = Double()
    network.img_range = 255.0
    with pytest.raises(UsageError, match='use bfloat16'):
        upscale('.', 'out', network, dtype='float16')


def test_a_network_of_no_single_scale():
    save(Path('in/a.png'), photo())
    with pytest.raises(UserError, match='1×3×16×16 into 1×3×16×32'):
        upscale('in', 'out', torch.nn.Upsample(scale_factor=(1, 2)))


@pytest.mark.parametrize('form', [[], ['--no-fused'], ['--fused']])
def test_the_command(checkpoint, capsys, form):
    save(Path('in/a.png'), photo())
    printed = command_here('upscale', 'in', 'out', '--model', checkpoint, *form, '--suffix', '_x2', capsys=capsys)
    assert printed.splitlines() == ['whole image', '1 of 1 pictures written to out']
    x = torch.from_numpy(photo().astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        out = earn_plugin.load(checkpoint)(x)[0].clamp(0, 1).permute(1, 2, 0).numpy()
    assert abs(opened(Path('out/a_x2.png')) - (out * 255).round()).max() <= 1


def test_without_a_model_the_included_network_enlarges_into_the_working_directory(capsys):
    save(Path('in/a.png'), photo())
    before = Path('in/a.png').read_bytes()
    printed = command_here('upscale', 'in/a.png', capsys=capsys)
    assert 'network A2N-S_x4' in printed and printed.endswith('1 of 1 pictures written to a_x4.png\n')
    assert Path('in/a.png').read_bytes() == before
    result = opened(Path('a_x4.png'))
    printed = command_here('upscale', 'in/a.png', 'named', '--model', 'A2N-S_x4', '--scale', 4, capsys=capsys)
    assert 'included network' not in printed
    assert result.shape == (40, 56, 3) and (opened(Path('named/a.png')) == result).all()
    x = torch.from_numpy(photo().astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        out = earn_plugin.load('A2N-S_x4')(x)[0].clamp(0, 1).permute(1, 2, 0).numpy()
    assert abs(result - (out * 255).round()).max() <= 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--scale', 8], r'no included network enlarges by 8 \(.*A2N-S_x4\)'),
        (['--set', 'num_feat=8'], '--model'),
        (['--model', 'A2N-S_x4', '--scale', 2], 'upscale=4, not 2'),
        (['--model', 'A2N-S_x5'], r'A2N-S_x5 does not exist; .*A2N-S_x4'),
    ],
)
def test_an_included_network_that_there_is_not(arguments, message, capsys):
    save(Path('a.png'), photo())
    printed = command_here('upscale', 'a.png', *arguments, capsys=capsys, expect=2 if '--model' not in arguments else 1)
    assert re.search(message, printed)
    assert sorted(Path().iterdir()) == [Path('a.png')]


def test_a_folder_without_a_target_and_again(capsys):
    for name in ('a.png', 'sub/b.jpg'):
        save(Path(name), photo())
    for _ in range(2):
        upscale('.', None, Double())
        assert {str(path) for path in Path().rglob('*.*')} == {'a.png', 'a_x2.png', 'sub/b.jpg', 'sub/b_x2.jpg'}
    upscale('sub/b.jpg', None, Double(), suffix='_large', format='png')
    assert opened(Path('b_large.png')).shape == (20, 28, 3)


def test_a_picture_does_not_wait_for_what_only_training_needs(checkpoint):
    """Importing all of BasicSR would take longer than torch; a network of BasicSR's is found nevertheless."""
    from basicsr.archs.srresnet_arch import MSRResNet

    save(Path('in/a.png'), photo())
    torch.save({'params': MSRResNet(num_feat=8, num_block=1).state_dict()}, 'msr.pth')
    code = f"""
import json, sys
from earn_plugin.cli import main
assert main(['upscale', 'in', 'out', '--model', {str(checkpoint)!r}]) == 0
print(json.dumps([name for name in sys.modules if '.' not in name or name in ('torch._dynamo', 'basicsr.utils')]))
arguments = ['--arch', 'MSRResNet', '--set', 'num_feat=8', 'num_block=1']
assert main(['upscale', 'in', 'msr', '--model', 'msr.pth', *arguments]) == 0
"""
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    modules = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('[')))
    unwanted = {'basicsr', 'basicsr.utils', 'torchvision', 'scipy', 'skimage', 'torch._dynamo', 'lmdb', 'tifffile'}
    assert {'torch', 'cv2', 'PIL'} <= set(modules) and not unwanted & set(modules)
    assert opened(Path('msr/a.png')).shape == (40, 56, 3)


def test_an_interrupt_leaves_complete_files_alone(monkeypatch):
    monkeypatch.setattr(result_array, 'LARGE', 100)
    for index in range(6):
        save(Path(f'in/{index}.png'), photo(9 + index, 14))

    class Interrupted(Double):
        def forward(self, x):
            if x.shape[2] == 12:  # the fourth picture
                raise KeyboardInterrupt
            return super().forward(x)

    with pytest.raises(KeyboardInterrupt):
        upscale('in', 'out', Interrupted())
    written = {path.name: opened(path).shape[1:] for path in Path('out').iterdir()}  # a fifth may have been begun
    assert {'0.png', '1.png', '2.png'} <= written.keys() <= {'0.png', '1.png', '2.png', '4.png'}
    assert set(written.values()) == {(28, 3)}


def test_a_killed_command_resumes(checkpoint):
    for index in range(30):
        save(Path(f'in/{index}.png'), photo(160, 160))
    arguments = ['upscale', 'in', 'out', '--model', checkpoint]
    process = start(*arguments, cwd=Path())
    deadline = time.monotonic() + 120
    while not list(Path('out').glob('[0-9]*.png')) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    done = {path.name: path.stat().st_mtime_ns for path in Path('out').glob('[0-9]*.png')}
    assert 0 < len(done) < 30
    Path('out/.29.png.0123abcd.png').touch()  # as a killed process may leave it
    Path('out/.mine.png.0123abcd.png').touch()
    assert f'{len(done)} exist already' in command(*arguments, cwd=Path())
    assert {p.name for p in Path('out').iterdir()} == {*(f'{i}.png' for i in range(30)), '.mine.png.0123abcd.png'}
    assert {name: Path('out', name).stat().st_mtime_ns for name in done} == done


def test_processes_share_the_pictures(checkpoint):
    """A failure in one of them does not end the other before its work is done."""
    for index in range(7):
        save(Path(f'in/{index}.png'), photo(100, 100) if index % 2 else photo())
    Path('in/0.png').write_text('not a picture')
    printed = torchrun(Path(), 'upscale', 'in', 'out', '--model', str(checkpoint), expect=1)
    assert '1 of 4 pictures failed:\n  in/0.png' in printed
    assert '3 of 4 pictures written' in printed and '3 of 3 pictures written' in printed
    assert printed.count('whole image') == 1
    assert len(list(Path('out').iterdir())) == 6


def test_a_pipe_is_not_waited_for():
    save(Path('in/a.png'), photo())
    os.mkfifo('in/b.png')
    with pytest.raises(UserError, match=r'in/b.png: is a pipe'):
        upscale('in', 'out', Double())
    assert opened(Path('out/a.png')).shape == (20, 28, 3)


def test_a_result_of_another_size_is_a_failure():
    class DropsColumn(Double):
        def forward(self, x):
            out = super().forward(x)
            return out if x.shape[3] % 2 == 0 else out[..., :-1]

    save(Path('in/a.png'), photo(10, 13))
    with pytest.raises(UserError, match='turns 10×13 pixels into 20×25, not 20×26'):
        upscale('in', 'out', DropsColumn())
    assert not Path('out/a.png').exists()


def test_a_network_for_large_pictures_only():
    class Large(Double):
        def forward(self, x):
            if x.shape[3] < 40:
                raise RuntimeError('too small')
            return super().forward(x)

    np.testing.assert_array_equal(enlarge(photo(40, 50), 'a.png', Large()), doubled(photo(40, 50)))


def test_small_pictures_are_computed_side_by_side_with_the_same_results():
    network = LGVAN(num_feat=8, num_block=1, upscale=2).eval()
    pictures = [photo(9 + index, 14) for index in range(12)]
    for index, pixels in enumerate(pictures):
        save(Path(f'in/{index}.png'), pixels)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    upscale('in', 'out', network)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    for index, pixels in enumerate(pictures):
        with torch.inference_mode():
            result = network(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[0]
        assert (opened(Path(f'out/{index}.png')) == (255 * result.clamp(0, 1)).round().permute(1, 2, 0).numpy()).all()
    torch.set_num_threads(before)

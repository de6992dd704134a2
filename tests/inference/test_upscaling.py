"""Pictures enlarged from files to files, compared with the network applied to their pixels; failures and resuming."""

import errno
import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

import earn_plugin
from earn_plugin.archs.lgvan_arch import LGVAN
from earn_plugin.convert.weight_files import describe_network, write_weights
from earn_plugin.errors import UsageError, UserError
from earn_plugin.inference import result_array, upscale, upscaling
from tests.helpers.command import command, command_here, start, torchrun
from tests.helpers.pictures import GREY, P3, Double, cmyk_profile, doubled, exif, opened, photo, save
from tests.helpers.places import ROOT


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('RANK', raising=False)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A tiny LGVAN ×2."""
    torch.manual_seed(0)
    opt = {'network_g': {'type': 'LGVAN', 'num_feat': 16, 'num_block': 1, 'upscale': 2}, 'scale': 2}
    description = describe_network('net_g', opt)
    path = tmp_path / 'tiny.safetensors'
    write_weights(path, LGVAN(**description['arguments']).state_dict(), description)
    return path


def enlarge(pixels: np.ndarray, name: str, network=None, suffix: str = '', save_with=None, **settings) -> np.ndarray:
    save(Path('in', name), pixels, **(save_with or {}))
    upscale(Path('in', name), 'out', network or Double(), **settings)
    (result,) = Path('out').iterdir()
    return opened(result)


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.webp'])
@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA', 'LA', '1', 'P'])
def test_eight_bits_of_every_mode(name, mode):
    rgb, alpha = photo(), photo()[::-1, :, 1]
    grey = rgb[..., 0]
    pixels = {'RGB': rgb, 'L': grey, 'RGBA': np.dstack([rgb, alpha]), 'LA': np.dstack([grey, alpha])}
    image = Image.fromarray(pixels.get(mode, rgb))
    if mode in ('1', 'P'):
        image = image.convert('1') if mode == '1' else image.quantize(8)
    if name == 'a.webp':
        image = image.convert('RGBA' if 'A' in mode else 'RGB')
    Path('in').mkdir()
    image.save(f'in/{name}', lossless=True)
    upscale('in', 'out', Double(), quality=100)
    with Image.open(f'out/{name}') as result:
        expected = {'1': 'L', 'P': 'RGB'}.get(mode, mode) if name != 'a.webp' else image.mode
        assert result.mode == expected
        bands = [np.asarray(band) for band in result.split()]
    if expected.startswith('RGB'):
        np.testing.assert_array_equal(np.dstack(bands[:3]), doubled(np.asarray(image.convert('RGB'))))
    else:
        np.testing.assert_array_equal(bands[0], doubled(np.asarray(image.convert('L'))))
    if 'A' in mode:
        np.testing.assert_array_equal(bands[-1], doubled(alpha))


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_sixteen_bits(name, channels):
    pixels = np.dstack([photo(deep=True), photo(deep=True)[::-1, :, 0]])[..., :channels].squeeze()
    result = enlarge(pixels, name)
    assert result.dtype == np.uint16
    if channels == 1:
        np.testing.assert_array_equal(result, doubled(pixels))
    else:
        np.testing.assert_array_equal(result[..., :3], doubled(pixels[..., :3]))
    if channels == 4:
        np.testing.assert_array_equal(result[..., 3], doubled(pixels[..., 3]))


def test_sixteen_bits_where_the_format_has_eight(capsys):
    pixels = photo(deep=True)
    np.testing.assert_array_equal(enlarge(pixels, 'a.png', format='webp', quality=100), doubled(pixels, 255))
    assert '16 bits are reduced to 8' in capsys.readouterr().out


def test_transparent_palette_and_jpeg_on_white(capsys):
    image = Image.fromarray(photo()).quantize(8)
    Path('in').mkdir()
    image.save('in/a.png', transparency=2)
    upscale('in', 'out', Double())
    with Image.open('in/a.png') as read:
        rgba = np.asarray(read.convert('RGBA'))
    assert 0 < (rgba[..., 3] == 0).sum() < rgba[..., 3].size
    np.testing.assert_array_equal(opened(Path('out/a.png'))[..., 3], doubled(rgba[..., 3]))
    upscale('in', 'jpegs', Double(), format='jpeg', quality=100)
    on_white = Image.new('RGBA', image.size, 'white')
    on_white.alpha_composite(Image.fromarray(rgba))
    difference = opened(Path('jpegs/a.jpg')) - doubled(np.asarray(on_white.convert('RGB')))
    assert abs(difference).max() <= 4
    assert 'on white' in capsys.readouterr().out


@pytest.mark.parametrize('with_profile', [True, False])
def test_cmyk_becomes_srgb(with_profile, capsys):
    image, profile = Image.fromarray(photo()).convert('CMYK'), cmyk_profile()
    Path('in').mkdir()
    image.save('in/a.tif', **({'icc_profile': profile} if with_profile else {}))
    upscale('in', 'out', Double())
    rgb = image.convert('RGB')
    if with_profile:
        profiles = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile('sRGB')
        naive, rgb = rgb, ImageCms.profileToProfile(image, *profiles, outputMode='RGB')
        assert abs(np.int32(naive) - np.int32(rgb)).mean() > 10
    np.testing.assert_array_equal(opened(Path('out/a.tif')), doubled(np.asarray(rgb)))
    assert 'icc_profile' not in info(Path('out/a.tif'))
    assert 'by its ICC profile' if with_profile else 'approximate' in capsys.readouterr().out


def info(path: Path) -> dict:
    with Image.open(path) as image:
        return image.info


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """By Pillow, channel by channel, as it has no RGB in 16 bits."""
    channels = []
    for channel in range(3):
        image = Image.fromarray(np.ascontiguousarray(pixels[..., channel]))
        image.getexif()[274] = orientation
        channels.append(np.asarray(ImageOps.exif_transpose(image)))
    return np.dstack(channels)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize(
    ('name', 'kind'), [('a.png', None), ('a.webp', None), ('a.tif', None), ('deep.png', None), ('deep.png', 'tiff')]
)
def test_orientation_and_metadata(name, kind, orientation):
    pixels = photo(deep=name == 'deep.png')
    save(Path('in', name), photo(), exif=exif(orientation), icc_profile=P3, lossless=True)
    if name == 'deep.png':
        kinds, contents = [cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_ICCP], (exif(orientation)[6:], P3)
        bgr = np.ascontiguousarray(pixels[..., ::-1])
        cv2.imwriteWithMetadata('in/deep.png', bgr, kinds, [np.frombuffer(c, np.uint8) for c in contents])
    upscale('in', 'out', Double(), quality=100, format=kind)
    (result,) = Path('out').iterdir()
    expected = upright(pixels, orientation)
    np.testing.assert_array_equal(opened(result), doubled(expected))
    with Image.open(result) as image:
        tags = image.getexif()
        assert (tags.get(274, 1), tags[271], tags[315]) == (1, 'Maker', 'A. Photographer')
        details, size = tags.get_ifd(0x8769), (expected.shape[1] * 2, expected.shape[0] * 2)
        assert (details[0x9003], (details[0xA002], details[0xA003])) == ('2020:01:02 03:04:05', size)
        assert tags.get_ifd(0x8825)[2] == (47.0, 22.0, 12.0)
        assert image.info['icc_profile'] == P3


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_of_a_tiff_in_16_bits(orientation):
    Path('in').mkdir()
    tags = [(274, 'H', 1, orientation, True)]
    tifffile.imwrite('in/a.tif', photo(deep=True), photometric='rgb', extratags=tags)
    upscale('in', 'out', Double())
    np.testing.assert_array_equal(opened(Path('out/a.tif')), doubled(upright(photo(deep=True), orientation)))


def test_a_jpeg_keeps_metadata_but_not_the_thumbnail():
    tags = exif(6)
    thumbnail = io.BytesIO()
    Image.fromarray(photo()).save(thumbnail, 'JPEG')
    first = tags[6:]  # its last IFD gets a successor, IFD 1, with the thumbnail behind it
    start = struct.unpack('>I', first[4:8])[0]
    end = start + 2 + 12 * struct.unpack('>H', first[start : start + 2])[0]
    entries = struct.pack('>HHHIIHHII', 2, 0x201, 4, 1, len(first) + 30, 0x202, 4, 1, len(thumbnail.getvalue()))
    first = first[:end] + struct.pack('>I', len(first)) + first[end + 4 :] + entries + bytes(4) + thumbnail.getvalue()
    save(Path('in/a.jpg'), photo(), exif=b'Exif\0\0' + first, icc_profile=P3, quality=95)
    with Image.open('in/a.jpg') as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)
        source = np.asarray(ImageOps.exif_transpose(image))
    upscale('in', 'out', Double(), quality=100)
    with Image.open('out/a.jpg') as image:
        assert image.info['icc_profile'] == P3
        assert 274 not in image.getexif() and image.getexif().get_ifd(0x8769)[0xA002] == 20
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1) == {}
        assert abs(np.asarray(image) - doubled(source)).max() <= 6


def test_profiles_of_grey_pictures(capsys):
    save(Path('in/a.png'), photo()[..., 0], icc_profile=GREY)
    save(Path('in/b.png'), photo()[..., 0], icc_profile=P3)
    upscale('in', 'out', Double())
    assert info(Path('out/a.png'))['icc_profile'] == GREY
    assert 'icc_profile' not in info(Path('out/b.png'))
    assert 'in/b.png: its ICC profile' in capsys.readouterr().out


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


def test_only_the_first_picture_of_several(capsys):
    pages = [Image.fromarray(photo()), Image.fromarray(photo()[::-1])]
    Path('in').mkdir()
    for name in ('a.png', 'b.tif', 'c.webp'):
        pages[0].save(f'in/{name}', save_all=True, append_images=pages[1:], lossless=True)
    upscale('in', 'out', Double(), quality=100)
    for name in ('a.png', 'b.tif', 'c.webp'):
        np.testing.assert_array_equal(opened(Path('out', name)), doubled(photo()))
    assert capsys.readouterr().out.count('only the first of its 2 pictures') == 3


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


def test_metadata_that_a_jpeg_cannot_hold_is_left_out():
    tags = Image.Exif()
    tags[0x8769] = {0x9286: bytes(70_000)}
    save(Path('in/a.png'), photo(), exif=tags.tobytes())
    upscale('in', 'out', Double(), format='jpeg')
    assert info(Path('out/a.jpg'))['jfif'] and 'exif' not in info(Path('out/a.jpg'))


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


def test_without_a_model(capsys):
    assert 'basicsr train' in command_here('upscale', 'in', 'out', capsys=capsys, expect=2)


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


def test_a_rotated_tiff_without_compression():
    """Pillow would map such a file, and then take its width for its height."""
    pixels = photo()[..., 0]
    Path('in').mkdir()
    tifffile.imwrite('in/a.tif', pixels, photometric='minisblack', extratags=[(274, 'H', 1, 6, True)])
    upscale('in', 'out', Double())
    np.testing.assert_array_equal(opened(Path('out/a.tif')), doubled(np.rot90(pixels, -1)))


@pytest.mark.parametrize(
    ('shape', 'settings'),
    [
        ((3, 10, 14), {'photometric': 'rgb', 'planarconfig': 'separate'}),
        ((10, 14), {'photometric': 'miniswhite'}),
        ((10, 14, 4), {'photometric': 'rgb', 'extrasamples': ['assocalpha']}),
        ((10, 14, 2), {'photometric': 'minisblack', 'planarconfig': 'contig', 'extrasamples': ['unassalpha']}),
    ],
)
def test_tiffs_that_would_be_read_wrongly_are_refused(shape, settings):
    Path('in').mkdir()
    tifffile.imwrite('in/a.tif', np.ones(shape, np.uint16), **settings)
    with pytest.raises(UserError, match='save it as a PNG'):
        upscale('in', 'out', Double())


def test_a_transparent_value_of_grey_in_16_bits():
    pixels = photo(deep=True)[..., 0]
    content = save(Path('in/a.png'), pixels).read_bytes()
    chunk = b'tRNS' + int(pixels[2, 3]).to_bytes(2, 'big')
    chunk = struct.pack('>I', 2) + chunk + struct.pack('>I', zlib.crc32(chunk))
    Path('in/a.png').write_bytes(content[:33] + chunk + content[33:])
    upscale('in', 'out', Double())
    alpha = np.where(pixels == pixels[2, 3], 0, 65535).astype(np.uint16)
    np.testing.assert_array_equal(opened(Path('out/a.png'))[..., 3], doubled(alpha))


@pytest.mark.parametrize('ending', ['png', 'jpg', 'webp'])
def test_names_that_are_not_utf_8(ending):
    name = os.fsdecode(b'a\xff.' + ending.encode())
    try:
        save(Path('in', name), photo(), icc_profile=P3)
    except OSError:
        pytest.skip('the file system has no such names')
    upscale('in', 'out', Double(), quality=100)
    assert info(Path('out', name))['icc_profile'] == P3
    assert abs(opened(Path('out', name)) - doubled(opened(Path('in', name)))).max() <= 6


@pytest.mark.parametrize('channels', [1, 3])
def test_a_profile_of_many_segments_of_a_jpeg(channels):
    profile = (P3 if channels == 3 else GREY) + bytes(100_000)
    save(Path('in/a.png'), photo()[..., :channels].squeeze(), icc_profile=profile)
    upscale('in', 'out', Double(), format='jpeg', quality=100)
    assert info(Path('out/a.jpg'))['icc_profile'] == profile
    assert abs(opened(Path('out/a.jpg')) - doubled(opened(Path('in/a.png')))).max() <= 6


def test_long_texts_in_a_png():
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt('XML:com.adobe.xmp', 'edit' * 300_000, zip=True)
    save(Path('in/a.png'), photo(), pnginfo=texts)
    assert upscale('in', 'out', Double()) == 1


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

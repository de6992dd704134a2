"""Pictures of every kind, read and written by ``upscale`` with a network that doubles each pixel."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from earn_plugin.errors import UserError
from earn_plugin.inference import upscale
from tests.helpers.pictures import GREY, P3, Double, cmyk_profile, doubled, enlarge, exif, opened, photo, save


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


def test_only_the_first_picture_of_several(capsys):
    pages = [Image.fromarray(photo()), Image.fromarray(photo()[::-1])]
    Path('in').mkdir()
    for name in ('a.png', 'b.tif', 'c.webp'):
        pages[0].save(f'in/{name}', save_all=True, append_images=pages[1:], lossless=True)
    upscale('in', 'out', Double(), quality=100)
    for name in ('a.png', 'b.tif', 'c.webp'):
        np.testing.assert_array_equal(opened(Path('out', name)), doubled(photo()))
    assert capsys.readouterr().out.count('only the first of its 2 pictures') == 3


def test_metadata_that_a_jpeg_cannot_hold_is_left_out():
    tags = Image.Exif()
    tags[0x8769] = {0x9286: bytes(70_000)}
    save(Path('in/a.png'), photo(), exif=tags.tobytes())
    upscale('in', 'out', Double(), format='jpeg')
    assert info(Path('out/a.jpg'))['jfif'] and 'exif' not in info(Path('out/a.jpg'))


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

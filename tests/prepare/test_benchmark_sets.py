"""Through the command, on small test sets in the layouts in which the real ones are distributed."""

import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from earn_plugin.data.bicubic import imresize
from earn_plugin.data.image_files import read_image, write_image
from earn_plugin.prepare import benchmark_sets
from earn_plugin.prepare.resumable_folder import read_manifest
from tests.helpers.images import photograph
from tests.helpers.published import HR, prepare, unpack


def lay_out(layout: str, name: str, place: Path) -> None:
    """Write the images in a layout; cropped ones are cropped at the bottom and the right."""
    alias = {'B100': 'BSD100'}.get(name, name)
    for stem, image in HR.items():
        for k in (2, 3, 4):
            cropped = image[: image.shape[0] // k * k, : image.shape[1] // k * k]
            lr = imresize(cropped, Fraction(1, k))
            if layout == 'SelfExSR':
                write_image(place / f'data/{alias}/image_SRF_{k}/{stem}_SRF_{k}_HR.png', cropped)
                write_image(place / f'data/{alias}/image_SRF_{k}/{stem}_SRF_{k}_LR.png', lr)
            elif layout == 'RCAN':
                write_image(place / f'HR/{name}/x{k}/{stem}_HR_x{k}.png', cropped)
                write_image(place / f'LR/LRBI/{name}/x{k}/{stem}_LRBI_x{k}.png', lr)
            elif layout == 'EDSR':
                write_image(place / f'benchmark/{name}/LR_bicubic/X{k}/{stem}x{k}.png', lr)
        originals = {
            'EDSR': f'benchmark/{name}/HR/{stem}.png',
            'plain': f'{alias}/{stem}.png',
            'BasicSR': f'{name.lower()}/original/{stem}.png',
            'bmp': f'{name}/HR/{stem}.bmp',
        }
        if layout in originals:
            (place / originals[layout]).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / originals[layout]), image)


@pytest.mark.parametrize('pack', [None, 'zip', 'gztar'])
@pytest.mark.parametrize('layout', ['EDSR', 'SelfExSR', 'RCAN', 'BasicSR', 'plain', 'bmp'])
def test_benchmark_from_every_layout(downloads, capsys, layout, pack):
    shutil.rmtree(downloads)
    for name in benchmark_sets.COUNTS:
        lay_out(layout, name, downloads)
    if pack:
        shutil.make_archive('packed/benchmark', pack, downloads)
    prepare('benchmark', 'packed' if pack else downloads, '--scales', 2, 3, 4, 8, '--jobs', 1, capsys=capsys)
    for name in benchmark_sets.COUNTS:
        for stem, image in HR.items():
            for multiple, scales in ((12, (2, 3, 4)), (8, (8,))):
                gt = image[: 53 // multiple * multiple, : 61 // multiple * multiple]
                np.testing.assert_array_equal(read_image(Path(f'datasets/{name}/GTmod{multiple}/{stem}.png')), gt)
                for scale in scales:
                    lr = read_image(Path(f'datasets/{name}/LRbicx{scale}/{stem}.png'))
                    np.testing.assert_array_equal(lr, imresize(gt, Fraction(1, scale)))


def test_images_cropped_to_12_are_not_used_for_x8(downloads, capsys):
    shutil.rmtree(downloads)
    for stem, image in HR.items():
        write_image(downloads / f'Set5/GTmod12/{stem}.png', image[:48, :60])
    printed = prepare('benchmark', downloads, '--scales', 2, 8, capsys=capsys, expect=1)
    assert Path('datasets/Set5/LRbicx2/im0.png').is_file()
    assert 'datasets/Set5/GTmod8: no images of Set5 in' in printed
    assert 'except images cropped to a multiple of 12; benchmark.tar is published at https://' in printed
    assert 'datasets/Urban100/GTmod12: no images of Urban100' in printed


def test_missing_image(downloads, capsys):
    unpack(downloads, 'benchmark')
    (downloads / 'benchmark/B100/HR/im1.png').unlink()
    printed = prepare('benchmark', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'datasets/B100/GTmod12: 1 images instead of 2 next to' in printed
    assert not Path('datasets/B100').exists()
    assert Path('datasets/Urban100/LRbicx2/im1.png').is_file()
    prepare('benchmark', downloads, '--scales', 2, '--allow-missing', capsys=capsys)
    assert Path('datasets/B100/LRbicx2/im0.png').is_file()


def test_lr_images_equal_the_published_ones(shared_data, tmp_path, monkeypatch, capsys):
    """Of the images whose sizes are multiples of 12."""
    monkeypatch.chdir(tmp_path)
    prepare('benchmark', shared_data, capsys=capsys, expect=1)  # B100 and Urban100 are missing
    for name, stem in (('Set5', 'bird'), ('Set14', 'barbara'), ('Set14', 'face')):
        for scale in (2, 3, 4):
            published = read_image(shared_data / f'{name}/LR_bicubic/X{scale}/{stem}x{scale}.png')
            np.testing.assert_array_equal(read_image(Path(f'datasets/{name}/LRbicx{scale}/{stem}.png')), published)


def test_border(downloads, capsys):
    prepare('benchmark', downloads, '--scales', 2, '--border', 'symmetric', capsys=capsys)
    gt, lr = (read_image(Path(f'datasets/Set5/{folder}/im0.png')) for folder in ('GTmod12', 'LRbicx2'))
    np.testing.assert_array_equal(lr, imresize(gt, Fraction(1, 2), 'symmetric'))
    assert not np.array_equal(lr, imresize(gt, Fraction(1, 2), 'replicate'))
    printed = prepare('benchmark', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'datasets/Set5/LRbicx2 exists, made from other images or settings (border symmetric; now border' in printed


def test_lr_images_from_elsewhere_are_kept_if_they_are_bicubic(downloads, capsys):
    prepare('benchmark', downloads, '--scales', 2, '--border', 'symmetric', capsys=capsys)
    for lr in Path('datasets').glob('*/LRbicx2'):
        assert read_manifest(lr)
        (lr / '.manifest.json').unlink()
    for stem in HR:
        write_image(Path(f'datasets/B100/LRbicx2/{stem}.png'), photograph(24, 30))
        Path(f'datasets/Set14/LRbicx2/{stem}.png').write_bytes(b'damaged')
    printed = prepare('benchmark', downloads, '--scales', 2, capsys=capsys, expect=1)
    assert 'datasets/Set5/LRbicx2 has border symmetric' in printed
    assert 'datasets/Set14/LRbicx2/im1.png cannot be decoded' in printed
    assert 'datasets/B100/LRbicx2: im1.png is not the bicubic LR of the image in GTmod12' in printed
    assert printed.count('is not the bicubic') == 1

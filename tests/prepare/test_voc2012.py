import tarfile
from pathlib import Path

from tests.helpers.published import lmdb_lines, prepare


def test_voc2012(downloads, capsys):
    """Of the first two by name, the one of 60 rows is smaller than a patch."""
    prepare('voc2012', downloads, '--scales', 3, capsys=capsys)
    assert lmdb_lines('VOC2012/GTmod12.lmdb') == ['2007_000002.png (96,120,3) 1']
    assert lmdb_lines('VOC2012/LRbicx3.lmdb') == ['2007_000002.png (32,40,3) 1']
    assert sorted(p.name for p in Path('datasets/VOC2012').iterdir()) == ['GTmod12.lmdb', 'LRbicx3.lmdb']
    prepare('voc2012', downloads, capsys=capsys)
    assert lmdb_lines('VOC2012/LRbicx4.lmdb') == ['2007_000002.png (24,30,3) 1']


def test_voc2012_with_another_number_of_images(downloads, capsys):
    with tarfile.open(downloads / 'VOC2012test.tar', 'w') as archive:
        archive.add(downloads / 'benchmark.tar', 'VOCdevkit/VOC2012/JPEGImages/2009_000001.jpg')
    printed = prepare('voc2012', downloads, capsys=capsys, expect=1)
    assert '4 images instead of 3 are in' in printed

from pathlib import Path

import pytest

from earn_plugin.cli import main
from earn_plugin.errors import UsageError
from earn_plugin.options.defaults import fill_defaults
from earn_plugin.options.option_checks import check_options
from earn_plugin.options.options_file import find_options_file, override, read_options, recipes
from earn_plugin.options.own_photographs import use_photographs
from earn_plugin.options.valid_values import LONGEST_NAME, name_problem
from tests.helpers.options import write_options


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my_photos').mkdir()
    return 'my_photos'


def test_every_recipe_keeps_its_crops_batches_and_metrics(photos):
    for recipe in recipes():
        options = read_options(recipe)
        if 'train' not in options.data:
            continue
        before = read_options(recipe).data
        use_photographs(options, f'{photos}/')
        train, val = options.data['datasets']['train'], options.data['datasets']['val']
        kept = ('gt_size', 'use_hflip', 'use_rot', 'batch_size_per_gpu', 'num_worker_per_gpu')
        assert {key: train[key] for key in kept} == {key: before['datasets']['train'][key] for key in kept}
        assert (train['part'], val['part'], val['center_crop']) == ('train', 'val', 1024)
        assert options.data['name'] == f'{before["name"]}_my_photos'
        assert options.data['datasets'].keys() == {'train', 'val'}
        assert {k: v for k, v in options.data.items() if k not in ('name', 'datasets')} == {
            k: v for k, v in before.items() if k not in ('name', 'datasets')
        }


def test_the_options_are_valid_and_overrides_apply_afterwards(photos, tmp_path, tiny):
    tiny['datasets']['train']['color'] = 'y'
    tiny['network_g'] |= {'num_in_ch': 1, 'num_out_ch': 1, 'rgb_mean': [0.5]}
    options = read_options(write_options(tmp_path, tiny))
    use_photographs(options, photos)
    override(options, ['datasets:val:center_crop=64', 'name=other', 'datasets:train:gt_size=24'])
    assert check_options(options, is_train=True) == []
    fill_defaults(options, is_train=True)
    assert options.data['datasets']['val']['gt_size'] == 24  # else some would be in both parts
    assert options.data['datasets']['val']['color'] == 'y'
    assert options.data['datasets']['val']['center_crop'] == 64
    assert options.data['name'] == 'other'


def test_own_validation_images(photos, tmp_path, tiny):
    (tmp_path / 'others').mkdir()
    options = read_options(write_options(tmp_path, tiny))
    use_photographs(options, photos, 'others')
    train, val = options.data['datasets']['train'], options.data['datasets']['val']
    assert (val['name'], val['dataroot_gt']) == ('others', 'others')
    assert not {'part', 'gt_size'} & val.keys()
    assert 'part' not in train
    options = read_options(write_options(tmp_path, tiny))
    (tmp_path / 'link').symlink_to('my_photos')
    with pytest.raises(UsageError, match=r'--val link is the folder of --hr'):
        use_photographs(options, photos, 'link')
    del tiny['val']
    options = read_options(write_options(tmp_path, tiny))
    with pytest.raises(UsageError, match='--val others has no effect'):
        use_photographs(options, photos, 'others')
    use_photographs(options, photos)
    tiny['datasets']['train']['type'] = 'RealESRGANDataset'
    with pytest.raises(UsageError, match=r'options\.yml trains on RealESRGANDataset: change its dataroot_gt'):
        use_photographs(read_options(write_options(tmp_path, tiny)), photos)
    assert options.data['datasets'].keys() == {'train'}
    assert 'part' not in options.data['datasets']['train']


@pytest.mark.parametrize(
    ('folder', 'name'),
    [
        ('x.lmdb', 'tiny_x'),
        ('a/b c/', 'tiny_b c'),
        ('a/../été', 'tiny_été'),
        ('/', 'tiny_photographs'),
        ('.hidden', 'tiny_hidden'),
        ('a\\b\nc', 'tiny_a_b_c'),
        ('ü' * 120, f'tiny_{"ü" * ((LONGEST_NAME - 5) // 2)}'),
    ],
)
def test_the_name_of_the_run_is_a_valid_name_of_a_file(tmp_path, tiny, folder, name):
    options = read_options(write_options(tmp_path, tiny))
    use_photographs(options, folder)
    assert options.data['name'] == name
    assert name_problem(name) is None
    assert name_problem(options.data['datasets']['train']['name']) is None


def test_a_folder_with_an_lmdb_is_one(photos, tmp_path, tiny):
    (tmp_path / photos / 'data.mdb').touch()
    options = read_options(write_options(tmp_path, tiny))
    use_photographs(options, photos)
    assert options.data['datasets']['train']['io_backend'] == {'type': 'lmdb'}


def test_all_mistakes_are_reported_at_once_with_the_argument(photos, capsys):
    where = ('--hr', 'nowhere', '--val', 'my_photos/x.jpg', '--force_yml', 'train:ema_decayy=1')
    assert main(['train', '-opt', 'demo_LGVAN_x4', *where]) == 2
    printed = capsys.readouterr().err
    assert f'{find_options_file("demo_LGVAN_x4")} has 3 problems' in printed
    assert '--hr nowhere: datasets.train.dataroot_gt: nowhere does not exist' in printed
    assert '--val my_photos/x.jpg: datasets.val.dataroot_gt: my_photos/x.jpg does not exist' in printed
    assert 'did you mean ema_decay?' in printed
    for hr, problem in (('nowhere', 'nowhere does not exist'), ('', 'must not be empty')):
        assert main(['train', '-opt', 'demo_LGVAN_x4', '--hr', hr]) == 2
        assert f'has 1 problem:\n  --hr {hr}: datasets.train.dataroot_gt: {problem}' in capsys.readouterr().err
    assert main(['train', '-opt', 'demo_LGVAN_x4', '--val', photos]) == 2
    assert '--val my_photos goes with --hr DIR' in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ['my_photos']

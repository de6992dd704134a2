from pathlib import Path

import pytest

from earn_plugin.cli import main
from earn_plugin.errors import UsageError
from earn_plugin.figures.ablation_file import read_ablation
from earn_plugin.options.options_file import ablations, read_options, recipes
from tests.helpers.options import write_options


def write(folder: Path, tiny: dict, text: str) -> str:
    """An ablation of a tiny recipe next to it."""
    write_options(folder, tiny, 'recipe.yml')
    path = folder / 'ablate_tiny.yml'
    path.write_text('recipe: recipe.yml\n' + text)
    return str(path)


def test_overrides_change_only_what_they_name(tiny, tmp_path):
    text = """seeds: [3, 4]
common: {train: {total_iter: 9}}
variants:
  EARN:
  no ASCA: {network_g: {use_asca: false}, train: {losses: {fft: {type: FrequencyLoss}, ssim: ~}}}
  as a list: [network_g:num_feat=32, 'train:optim_g:lr=1e-4', train:optim_g:type=AdamW]
"""
    found = read_ablation(write(tmp_path, tiny, text))
    assert found.seeds == [3, 4]
    first, second, third = found.variants
    assert [v.title for v in found.variants] == ['EARN', 'no ASCA', 'as a list']
    assert [v.name for v in found.variants] == ['ablate_tiny_EARN', 'ablate_tiny_no_ASCA', 'ablate_tiny_as_a_list']
    recipe = read_options(tmp_path / 'recipe.yml').data
    recipe['train']['total_iter'] = 9
    assert first.options == recipe | {'name': 'ablate_tiny_EARN'}
    assert second.options['network_g'] == recipe['network_g'] | {'use_asca': False}
    assert second.options['train']['losses'] == {'pix': {'type': 'L1Loss'}, 'fft': {'type': 'FrequencyLoss'}}
    assert third.options['train']['optim_g'] == {'type': 'AdamW', 'lr': 1e-4}
    assert third.options['network_g']['num_feat'] == 32
    assert second.parameters < first.parameters < third.parameters


def test_all_mistakes_of_all_variants_are_reported_by_their_lines(tiny, tmp_path):
    tiny['train']['scheduler'] = {'type': 'CosineAnnealingRestartLR', 'periods': [6]}
    text = """seeds: [0]
common:
  train: {total_iterr: 6}
variants:
  a:
    network_g: {use_ascaa: false, window_size: 1.5}
  b c: [train:total_iter=20]
  b_c: [datasets:val:dataroot_gt=nowhere]
  d: {trainn: {total_iter: 8}}
"""
    with pytest.raises(UsageError) as caught:
        read_ablation(write(tmp_path, tiny, text))
    title, *lines = str(caught.value).splitlines()
    assert title == f'{tmp_path}/ablate_tiny.yml has 7 problems:'
    recipe = (tmp_path / 'recipe.yml').read_text().splitlines()
    periods = next(number for number, line in enumerate(recipe, 1) if 'periods' in line)
    for number, (line, found) in enumerate(
        zip(
            [
                'line 4: common: train.total_iterr: is not a known option; did you mean total_iter?',
                'line 7: variants.a: network_g.use_ascaa: is not a known option; did you mean use_asca?',
                'line 7: variants.a: network_g.window_size: must be a whole number, got 1.5',
                f'line 8: variants.b c: recipe.yml, line {periods}: train.scheduler.periods: end at iteration 6',
                'line 9: variants.b_c: its files have the names of those of b c',
                'line 9: variants.b_c: datasets.val.dataroot_gt: nowhere does not exist',
                'line 10: variants.d: trainn: is not a known option; did you mean train?',
            ],
            lines,
            strict=True,
        )
    ):
        assert found.startswith(f'  {line}'), number


def test_a_network_that_cannot_be_built(tiny, tmp_path):
    text = 'seeds: [0]\nvariants:\n  a: {}\n  b: {network_g: {num_feat: 33}}\n'
    with pytest.raises(
        UsageError, match=r'line 5: variants\.b\.network_g: the network cannot be built: num_feat must be'
    ):
        read_ablation(write(tmp_path, tiny, text))


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('variants: {a: {}}', r'line 1: seeds: must be a list of whole numbers'),
        ('seeds: [0, 0, x]\nvariants: {a: {}}', r'line 2: seeds\.1: is given twice\n  line 2: seeds\.2: must be a'),
        ('seeds: [0]\nvariant: {a: {}}', r'line 3: variant: is not a key of ablations; did you mean variants'),
        ('seeds: [0]\nvariants: {a: 3}', r'line 3: variants\.a: must be overrides'),
        ('seeds: [0]\nvariants: {a: [x]}', r'line 3: variants\.a\.0: write key:key=value'),
        ('seeds: [0]\nvariants: {a: ["train:x=[1"]}', r'line 3: variants\.a\.0: x: \[1 is not a YAML value'),
        ('seeds: [0]\nvariants: {a: {manual_seed: 3}}', r'line 3: variants\.a\.manual_seed: cannot be overridden'),
        ('seeds: [0]\nvariants: {a: !!python/object/apply:os.getcwd []}', 'tags that would run Python are refused'),
    ],
)
def test_mistakes_of_the_file(tiny, tmp_path, text, problem):
    with pytest.raises(UsageError, match=problem):
        read_ablation(write(tmp_path, tiny, text))


def test_the_recipe_must_exist_and_validate(tiny, tmp_path):
    path = Path(write(tmp_path, tiny | {'val': {'val_freq': 3}}, 'seeds: [0]\nvariants: {a: {}}'))
    with pytest.raises(UsageError, match=r'line 1: recipe: .* has no val: metrics'):
        read_ablation(str(path))
    path.write_text('recipe: demo_EARN_4\nseeds: [0]\nvariants: {a: {}}')
    with pytest.raises(UsageError, match=r'line 1: recipe: demo_EARN_4 is neither .*; did you mean demo_EARN_x4'):
        read_ablation(str(path))


def test_ours_are_valid_and_no_recipes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ('HR_sub.lmdb', 'LRbicx4_sub.lmdb'):  # which some of them read; only whether it exists is checked
        lmdb = tmp_path / 'datasets/open/train' / name
        lmdb.mkdir(parents=True)
        for file in ('data.mdb', 'meta_info.txt'):
            (lmdb / file).touch()
    names = [path.stem for path in ablations()]
    assert names == ['ablate_A2N_x4', 'ablate_EARN-losses_x4', 'ablate_EARN_x4', 'ablate_RK4RDN_x4']
    assert not set(ablations()) & set(recipes())
    for name in names:
        found = read_ablation(name)
        assert len(found.seeds) == 3
        kinds = {str((variant.options['network_g'], variant.options['train']['losses'])) for variant in found.variants}
        assert len(kinds) == len(found.variants) > 1
    assert main(['ablate', 'ablate_EARN_4']) == 2
    assert (
        'ablate_EARN_4 is neither an options file nor an ablation; did you mean ablate_EARN_x4?'
        in capsys.readouterr().err
    )

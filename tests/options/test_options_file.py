import contextlib

import pytest
import yaml
from basicsr.utils.options import ordered_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from earn_plugin.errors import UsageError
from earn_plugin.options.options_file import RECIPES, find_options_file, nearest, override, parse_value, read_options

VALID = """\
name: demo  # a comment
scale: 4
train: &train
  optim_g: {type: Adam, lr: !!float 1e-4, betas: [0.9, 0.99]}
  milestones: [!!float 2e5, 400000]
  warmup_iter: -1
  pretrain: ~
  flag: true
again: *train
"""


def write(tmp_path, text):
    path = tmp_path / 'o.yml'
    path.write_text(text)
    return path


def test_valid_files_are_read_as_in_basicsr(tmp_path):
    path = write(tmp_path, VALID)
    options = read_options(path)
    theirs = yaml.load(VALID, Loader=ordered_yaml()[0])
    assert options.data == theirs
    assert options.data['train']['optim_g']['lr'] == 1e-4
    assert list(options.data) == ['name', 'scale', 'train', 'again']


def test_lines(tmp_path):
    options = read_options(write(tmp_path, VALID))
    assert options.describe(('train', 'optim_g', 'lr')) == 'line 4: train.optim_g.lr'
    assert options.describe(('train', 'milestones', 1)) == 'line 5: train.milestones.1'
    assert read_options(write(tmp_path, 'a: 1\n2: 3')).describe((2,)) == 'line 2: 2'
    assert options.describe(('train', 'missing')) == 'line 3: train.missing'
    assert options.describe(('nowhere',)) == 'line 1: nowhere'


def test_aliases_become_separate_values(tmp_path):
    options = read_options(write(tmp_path, VALID))
    options.data['train']['optim_g']['lr'] = 0
    assert options.data['again']['optim_g']['lr'] == 1e-4


@pytest.mark.parametrize(
    'tag',
    [
        '!!python/object/apply:os.system ["touch pwned"]',
        '!!python/object/new:os.system ["touch pwned"]',
        '!!python/name:os.system',
        '!!python/module:antigravity',
        '!!python/tuple [1, 2]',
    ],
)
def test_tags_that_would_run_python_are_refused_not_run(tmp_path, monkeypatch, tag):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r'o\.yml: line 2: .*python/.* refused'):
        read_options(write(tmp_path, f'name: x\nscale: {tag}\n'))
    assert not (tmp_path / 'pwned').exists()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('name: [1, 2', 'line 1'),
        ('name: a\n  b: c', 'line 2'),
        ('- a\n- b', 'must be a mapping'),
        ('', 'must be a mapping'),
        ('just text', 'must be a mapping'),
        ('a: {b: 1, c: 2, b: 3}', r'line 1: a\.b is given twice'),
        ('a: !!float abc', 'cannot be read'),
        ('a: !!bool abc', 'cannot be read'),
        ('b: 1\na: !!int ""', "line 2: '' cannot be read as int"),
        ('a: !!float ""', "line 1: '' cannot be read as float"),
        ('a: !!timestamp x', "line 1: 'x' cannot be read as timestamp"),
        ('a: 1\n~: 2\nnull: 3', 'line 3: None is given twice, first on line 2'),
        (f'a: {"9" * 5001}', 'line 1: .* cannot be read as int'),
        (f'a: {"[" * 3000}', 'nested too deeply'),
        ('a: 1\n? [b]\n: c', 'line 2: a key must be a single value'),
        ('a: &a [*a]', 'cannot be read'),
        ('name: !!unknown x', 'line 1'),
        ('\0', 'cannot be read'),
    ],
)
def test_invalid_files_are_reported(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read_options(write(tmp_path, text))


def test_a_bomb_of_aliases_is_refused(tmp_path):
    lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
    lines += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 10)}]' for i in range(1, 9)]
    with pytest.raises(UsageError, match='100,000 values'):
        read_options(write(tmp_path, '\n'.join(lines)))


def test_a_binary_file_is_reported(tmp_path):
    path = tmp_path / 'o.yml'
    path.write_bytes(b'\xff\xfe\x00binary')
    with pytest.raises(UsageError, match='cannot be read'):
        read_options(path)


def test_override_walks_the_keys(tmp_path):
    options = read_options(write(tmp_path, VALID))
    override(options, ['train:optim_g:lr=2e-4', 'name=other', 'train:new = [1, 2]'])
    assert options.data['train']['optim_g']['lr'] == 2e-4
    assert options.data['name'] == 'other'
    assert options.data['train']['new'] == [1, 2]
    assert options.describe(('train', 'new')) == '--force_yml train:new = [1, 2]: train.new'


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ('train', 'write key:key=value'),
        ('=1', 'write key:key=value'),
        ('trian:lr=1', r'no section trian; did you mean train\?'),
        ('train:optim_x:lr=1', r'no section train\.optim_x; did you mean optim_g\?'),
        ('scale:x=1', 'no section scale'),
        ('name=[1', 'not a YAML value'),
        ('name=2024-13-45', 'not a YAML value'),
        ('name=!!bool x', 'not a YAML value'),
    ],
)
def test_an_invalid_override_is_reported(tmp_path, entry, message):
    with pytest.raises(UsageError, match=message):
        override(read_options(write(tmp_path, VALID)), [entry])


def test_override_never_evaluates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = read_options(write(tmp_path, VALID))
    for value in ('[__import__("os").system("touch pwned")]', '__import__("os").system("touch pwned")'):
        override(options, [f'name={value}'])
    override(options, ['x"]=1;__import__("os").system("touch pwned");opt["name'])
    assert options.data['x"]'] == '1;__import__("os").system("touch pwned");opt["name'
    assert not (tmp_path / 'pwned').exists()


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('~', None),
        ('None', None),
        ('none', None),
        ('true', True),
        ('False', False),
        ('12', 12),
        ('-1', -1),
        ('0.5', 0.5),
        ('1e-4', 1e-4),
        ('!!float 1e-4', 1e-4),
        ('[1, 2.5, a]', [1, 2.5, 'a']),
        ("['a', 'b']", ['a', 'b']),
        ('some/path.pth', 'some/path.pth'),
        ('"12"', '12'),
        ('', None),
    ],
)
def test_values_of_overrides(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_file_is_found_before_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('demo_EARN_x4', 'demo_EARN_x4.yml', 'options/demo_EARN_x4.yml'):
        assert find_options_file(name) == RECIPES / 'demo_EARN_x4.yml'
    (tmp_path / 'demo_EARN_x4.yml').write_text('name: mine')
    assert read_options(find_options_file('demo_EARN_x4.yml')).data == {'name': 'mine'}
    with pytest.raises(UsageError, match=r'demo_EARN_x5 .*did you mean demo_EARN_x\d\?'):
        find_options_file('demo_EARN_x5')
    for name in ('elsewhere/demo_EARN_x4.yml', '.', "''", 'x' * 200):
        with pytest.raises(UsageError, match=f'^{name} is neither'):
            find_options_file({"''": '', 'x' * 200: 'x' * 5000}.get(name, name))
    with pytest.raises(UsageError, match='is neither'):
        find_options_file('~nobody_of_this_name/x.yml')


def test_nearest():
    assert nearest('num_fea', ['num_feat', 'num_block']) == '; did you mean num_feat?'
    assert nearest('zzz', ['b', 'a']) == '; possible: a, b'
    assert nearest('zzz', []) == ''


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet='ab:{}[]&*!|>-\n "\'#~%,?@`0.e', max_size=30))
def test_any_text_is_read_or_reported(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / 'any.yml'
    path.write_text(text)
    with contextlib.suppress(UsageError):
        override(read_options(path), [text])

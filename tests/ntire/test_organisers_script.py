import ast
from dataclasses import replace

import pytest

from earn_plugin.errors import UserError
from earn_plugin.ntire.organisers_script import Submission, branch, find_script, patch_script, script_diff
from tests.helpers.ntire_scripts import make_repo

YEARS = (2022, 2023, 2024, 2025, 2026)
SUBMISSION = Submission(2024, 18, 'LGVAN', 'LGVAN', {'num_feat': 8, 'upscale': 4}, 1.0)


def patch(path, submission=SUBMISSION) -> str:
    new = patch_script(path, submission)
    path.write_bytes(new.encode())
    return new


@pytest.mark.parametrize('year', YEARS)
def test_the_branch_precedes_the_else_and_nothing_else_changes(tmp_path, year):
    path = find_script(make_repo(tmp_path / 'repo', year), 'efficient')
    before = path.read_text()
    after = patch(path)
    ast.parse(after)
    assert after.replace(branch(SUBMISSION), '') == before
    assert f'{branch(SUBMISSION)}    else:\n        raise NotImplementedError' in after
    assert patch_script(path, SUBMISSION) == after
    assert script_diff(path, after) == ''


def test_the_branch_in_full():
    assert branch(SUBMISSION) == (
        '    elif model_id == 18:\n'
        '        # 18_LGVAN, written by basicsr ntire export\n'
        '        from models.team18_LGVAN import LGVAN\n'
        '        name, data_range = f"{model_id:02}_LGVAN", 1.0\n'
        "        model_path = os.path.join('model_zoo', 'team18_LGVAN.pth')\n"
        '        model = LGVAN(num_feat=8, upscale=4)\n'
        '        model.load_state_dict(torch.load(model_path), strict=True)\n'
    )


def test_many_arguments_go_on_lines_of_their_own():
    arguments = {f'argument_{n}': (0.4488, 'a b  c', None) for n in range(9)}
    text = branch(replace(SUBMISSION, arguments=arguments))
    assert max(map(len, text.splitlines())) <= 120
    nodes = ast.walk(ast.parse('if 0: pass\n' + text.replace('\n    ', '\n')[4:]))
    (call,) = (node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == 'LGVAN')
    assert {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords} == arguments


def test_no_arguments():
    assert 'model = LGVAN()\n' in branch(replace(SUBMISSION, arguments={}))


@pytest.mark.parametrize(
    'change',
    [
        lambda text: text.replace('\n    ', '\n\t'),
        lambda text: text.replace('    ', '  '),
        lambda text: '\ufeff' + text,
        lambda text: text.replace('import json', '\x0c\nimport json  # \u2028'),
    ],
)
def test_unusual_characters_in_a_script(tmp_path, change):
    """Tabs, two spaces, a byte order mark, and characters at which only ``splitlines`` ends a line."""
    path = make_repo(tmp_path / 'repo', 2024) / 'test_demo.py'
    path.write_bytes(change(path.read_text()).encode())
    after = patch(path)
    script = ast.parse(after.removeprefix('\ufeff'))
    (selects,) = (node for node in script.body if getattr(node, 'name', '') == 'select_model')
    chain = ast.unparse(selects)
    assert chain.index('model_id == 1000') < chain.index('model_id == 18') < chain.index('NotImplementedError')
    assert patch(path) == after
    assert patch_script(path, replace(SUBMISSION, name='Other')).count('model_id == 18') == 1


def test_a_script_in_another_encoding(tmp_path):
    path = make_repo(tmp_path / 'repo', 2024) / 'test_demo.py'
    path.with_name('other.py').write_bytes(b'# \xe8')
    assert find_script(path.parent, 'efficient') == path
    path.write_bytes(path.read_bytes().replace(b'# a number', b'# \xe8'))
    with pytest.raises(UserError, match=r'test_demo\.py is not UTF-8'):
        patch_script(find_script(path.parent, 'efficient'), SUBMISSION)


def test_only_a_branch_of_its_own_is_replaced(tmp_path):
    path = find_script(make_repo(tmp_path / 'repo', 2025), 'efficient')
    patch(path)
    new = replace(SUBMISSION, arguments={'num_feat': 32}, data_range=255.0, name='LGVAN2')
    text = patch(path, new)
    assert text.count('model_id == 18') == 1
    assert 'num_feat=32' in text
    assert 'num_feat=8' not in text
    patch(path, replace(new, team=19))
    assert [path.read_text().count(f'model_id == {team}:') for team in (18, 19, 1000)] == [1, 1, 1]

    path.write_text(path.read_text().replace('written by basicsr', 'by hand, without basicsr'))
    with pytest.raises(UserError, match=r'test_demo\.py, line \d+: model_id 18 is taken: elif model_id == 18:'):
        patch_script(path, new)
    with pytest.raises(UserError, match=r'one that is free: 1 to 17, 20 to 99$'):
        patch_script(path, new)
    with pytest.raises(UserError, match='model_id 0 is taken'):  # by the baseline
        patch_script(path, replace(SUBMISSION, team=0))


def test_line_endings_stay(tmp_path):
    path = find_script(make_repo(tmp_path / 'repo', 2023), 'efficient')
    path.write_bytes(path.read_bytes().replace(b'\n', b'\r\n'))
    patch(path)
    assert path.read_bytes().count(b'\n') == path.read_bytes().count(b'\r\n')
    assert patch_script(path, SUBMISSION).encode() == path.read_bytes()


def test_the_diff(tmp_path):
    path = find_script(make_repo(tmp_path / 'repo', 2026), 'efficient')
    lines = script_diff(path, patch_script(path, SUBMISSION)).splitlines()
    assert lines[:2] == ['--- a/test_demo.py', '+++ b/test_demo.py']
    assert [line for line in lines[2:] if line.startswith('-')] == []
    assert ['+' + line for line in branch(SUBMISSION).splitlines()] == [line for line in lines[2:] if line[0] == '+']


def test_a_name_that_python_cannot_import(tmp_path):
    path = find_script(make_repo(tmp_path / 'repo', 2024), 'efficient')
    path.write_text(path.read_text().replace('models.team00_RLFN', 'models.33_HAT'))
    with pytest.raises(UserError, match=r'models\.33_HAT is not a Python name.*rename the file to team33_HAT\.py'):
        patch_script(path, SUBMISSION)


def test_a_script_without_an_else(tmp_path):
    path = find_script(make_repo(tmp_path / 'repo', 2024), 'efficient')
    path.write_text(path.read_text().replace('raise NotImplementedError', 'raise ValueError'))
    with pytest.raises(UserError, match='do not end with'):
        patch_script(path, SUBMISSION)


def test_which_script(tmp_path):
    repo = make_repo(tmp_path / 'repo', 2024)
    (repo / 'run.py').write_text('from test_demo import select_model\n')
    (repo / 'older.py').write_text((repo / 'test_demo.py').read_text())
    assert find_script(repo, 'efficient').name == 'test_demo.py'
    (repo / 'test_demo.py').rename(repo / 'mine.py')
    with pytest.raises(UserError, match=r'mine\.py, older\.py all have a function select_model'):
        find_script(repo, 'efficient')
    with pytest.raises(UserError, match='not a checkout'):
        find_script(repo / 'models', 'efficient')
    with pytest.raises(UserError, match='is not a folder'):
        find_script(repo / 'none', 'efficient')


def test_quality(tmp_path):
    submission = replace(SUBMISSION, track='quality', year=2025)
    path = find_script(make_repo(tmp_path / 'repo', 2025, 'quality'), 'quality')
    text = patch(path, submission)
    assert 'from models.team18_LGVAN import main' in text
    assert "os.path.join('model_zoo', 'team18_LGVAN', 'team18_LGVAN.pth')" in text
    assert patch_script(path, submission) == text


def test_a_negative_number_is_not_a_team(tmp_path):
    path = find_script(make_repo(tmp_path / 'repo', 2022), 'efficient')
    path.write_text(path.read_text().replace('model_id == 1000', 'model_id == -18'))
    assert f'{branch(SUBMISSION)}    else:' in patch_script(path, SUBMISSION)


def test_a_reserved_branch_is_replaced(tmp_path):
    path = find_script(make_repo(tmp_path / 'repo', 2022), 'efficient')
    before = path.read_text().replace('model_id == 1000', 'model_id == 18')
    path.write_text(before)
    assert patch(path) == before.replace('    elif model_id == 18:\n        pass\n', branch(SUBMISSION))
    assert patch_script(path, SUBMISSION) == path.read_text()

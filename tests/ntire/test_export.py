"""Every network of ours, exported for every year and run by that year's script."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY

from earn_plugin import cli
from earn_plugin.convert.networks import FoundNetwork, NetworkChoice, find_network
from earn_plugin.data.image_files import images_in, read_image
from earn_plugin.errors import UsageError, UserError
from earn_plugin.measure.complexity import measure_complexity
from earn_plugin.ntire.export import check_names, export, write_into_repo
from earn_plugin.ntire.network_checks import check_data_range, check_scale
from earn_plugin.ntire.official_run import to_image, to_tensor
from earn_plugin.ntire.organisers_script import Submission
from earn_plugin.ntire.self_check import build_exported
from tests.helpers.ntire_scripts import DRIVER, OURS, make_data, make_repo

YEARS = (2022, 2023, 2024, 2025, 2026)
SIZE = (24, 24)  # of the image for the factsheet's figures


def export_18(model, arguments=None, arch=None, **settings) -> str:
    """Team 18's export for 2024, unless the settings say otherwise."""
    choice = NetworkChoice(str(model), arguments or {}, arch)
    return export(choice, **{'year': 2024, 'team': 18, 'name': 'X', **settings})


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Each network with weights and their moving average, as training writes them."""
    folder = tmp_path_factory.mktemp('checkpoints')
    for arch, arguments in OURS.items():
        torch.manual_seed(len(arch))
        weights = find_network(NetworkChoice(arch, arguments)).network.state_dict()
        content = {
            'params': {name: tensor + 1 for name, tensor in weights.items()},
            'params_ema': weights,
            'arch': arch,
            'arguments': arguments,
            'scale': 4,
        }
        torch.save(content, folder / f'{arch}.pth')
    return {arch: folder / f'{arch}.pth' for arch in OURS}


@pytest.fixture(scope='module')
def exports(checkpoints, tmp_path_factory) -> dict[str, tuple[Path, str]]:
    """Each network's export, its self-check passed, and the report."""
    folder = tmp_path_factory.mktemp('exports')
    made = {}
    for team, (arch, path) in enumerate(checkpoints.items(), 1):
        out = folder / arch
        made[arch] = (
            out,
            export(NetworkChoice(str(path)), year=YEARS[team % 5], team=team, name=f'{arch}s', out=out, size=SIZE),
        )
    return made


@pytest.mark.slow
@pytest.mark.parametrize('arch', OURS)
def test_the_self_check_passes(exports, checkpoints, arch):
    out, report = exports[arch]
    assert f'{arch}, training form, weights from params_ema, the moving average' in report
    assert 'outputs equal ours' in report
    (weights,) = (out / 'model_zoo').iterdir()
    (code,) = (out / 'models').iterdir()
    flat = torch.load(weights, weights_only=True)
    assert flat.keys() == torch.load(checkpoints[arch], weights_only=True)['params_ema'].keys()
    text = code.read_text(encoding='utf-8')
    assert 'REGISTRY' not in text
    for name in ('select_model.txt', 'factsheet.txt', 'factsheet.tex', 'CHECKLIST.md'):
        assert (out / name).read_text(encoding='utf-8').count('\n') > 5


@pytest.mark.slow
def test_a_network_that_works_in_bands_is_counted_on_the_complete_image(exports):
    """At the organisers' size, where EARN works in bands."""
    out, _ = exports['EARN']
    submission = Submission(2024, list(OURS).index('EARN') + 1, 'EARNs', 'EARN', OURS['EARN'], 1.0)
    figures = [
        measure_complexity(FoundNetwork(network, 'EARN', OURS['EARN']), (256, 256), fvcore=False)
        for network in (find_network(NetworkChoice('EARN', OURS['EARN'])).network, build_exported(out, submission))
    ]
    assert figures[0].convs == figures[1].convs
    assert figures[0].activations == figures[1].activations
    assert figures[0].hooks == figures[1].hooks


@pytest.fixture(scope='module')
def ran(exports, tmp_path_factory) -> Path:
    """Each year's checkout, data and what its script saved, run in one interpreter."""
    folder = tmp_path_factory.mktemp('years')
    for year in YEARS:
        repo = make_repo(folder / f'{year}/repo', year)
        make_data(folder / f'{year}/data', year)
        for team, (arch, arguments) in enumerate(OURS.items(), 1):
            write_into_repo(repo, exports[arch][0], Submission(year, team, f'{arch}s', arch, arguments, 1.0))
    checkouts = ','.join(f'{folder}/{year}/repo' for year in YEARS)
    models = ','.join(map(str, range(1, len(OURS) + 1)))
    (folder / 'driver.py').write_text(DRIVER)
    arguments = [checkouts, 'test_demo.py', models, '--data_dir', '../data', '--save_dir', '../saved']
    subprocess.run([sys.executable, '-I', folder / 'driver.py', *arguments], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('year', YEARS)
def test_a_years_script_runs_every_network(ran, year):
    results = json.loads((ran / f'{year}/repo/results.json').read_text())
    assert len(results) == len(OURS)
    (lr_dir,) = (ran / f'{year}/data').glob('*_LR')
    for team, (arch, given) in enumerate(OURS.items(), 1):
        torch.manual_seed(len(arch))
        network = find_network(NetworkChoice(arch, given)).network
        entry = results[f'{team:02}_{arch}s']
        assert entry['num_parameters'] * 10**6 == sum(p.numel() for p in network.parameters())
        for path in images_in(lr_dir):
            with torch.no_grad():
                expected = to_image(network(to_tensor(read_image(path), 1.0, torch.device('cpu'))), 1.0)
            saved = cv2.imread(str(ran / f'{year}/saved/{team:02}_{arch}s' / path.name.replace('x4', '')))
            assert abs(saved.astype(int) - expected).max() <= 1


def test_quality_track(tmp_path, checkpoints):
    repo, data = make_repo(tmp_path / 'repo', 2025, 'quality'), make_data(tmp_path / 'data', 2025)
    out = tmp_path / 'out'
    choice = NetworkChoice(str(checkpoints['A2N']))
    export(choice, year=2025, team=4, name='Net', track='quality', out=out, repo=repo, size=SIZE)
    assert sorted(str(path.relative_to(repo)) for path in repo.rglob('*') if path.is_file()) == [
        'README.md',
        'model_zoo/team04_Net/team04_Net.pth',
        'models/team04_Net/__init__.py',
        'test.py',
    ]
    (lr_dir,) = data.glob('*_LR')
    (tmp_path / 'driver.py').write_text(DRIVER)
    arguments = [repo, 'test.py', '4', '--valid_dir', lr_dir, '--save_dir', tmp_path / 'saved']
    subprocess.run([sys.executable, '-I', tmp_path / 'driver.py', *arguments], check=True)
    network = find_network(NetworkChoice(str(checkpoints['A2N']))).network
    for path in images_in(lr_dir):
        with torch.no_grad():
            expected = to_image(network(to_tensor(read_image(path), 1.0, torch.device('cpu'))), 1.0)
        saved = cv2.imread(str(tmp_path / 'saved/04_Net/valid' / path.name))
        assert abs(saved.astype(int) - expected).max() <= 1


def test_into_a_checkout_twice(tmp_path, checkpoints):
    repo = make_repo(tmp_path / 'repo', 2024)
    before = {path for path in repo.rglob('*') if path.is_file()}

    def run() -> str:
        return export_18(checkpoints['LGVAN'], name='Net', out=tmp_path / 'out', repo=repo, size=SIZE)

    assert '+    elif model_id == 18:' in run()
    script = (repo / 'test_demo.py').read_bytes()
    new = {path for path in repo.rglob('*') if path.is_file()} - before
    assert {path.name for path in new} == {'team18_Net.py', 'team18_Net.pth'}
    assert 'already has the branch' in run()
    assert (repo / 'test_demo.py').read_bytes() == script


def test_another_name_replaces_the_earlier_export(tmp_path, checkpoints):
    """Of this team alone; also the lower-case weights of version 0.1.0."""
    repo, out = make_repo(tmp_path / 'repo', 2024), tmp_path / 'out'
    for place in (repo, out):
        (place / 'models').mkdir(parents=True, exist_ok=True)
        (place / 'models/team18_Mine.py').write_text('by hand\n')
    kept = {path for place in (repo, out) for path in place.rglob('*') if path.is_file()}
    other = export_18(checkpoints['A2N'], team=19, name='Other', out=out, repo=repo, size=SIZE)
    export_18(checkpoints['LGVAN'], name='Old', out=out, repo=repo, size=SIZE)
    for place in (repo, out):
        (place / 'model_zoo/team18_Old.pth').rename(place / 'model_zoo/team18_old.pth')
    report = export_18(checkpoints['LGVAN'], name='New', out=out, repo=repo, size=SIZE)
    for place in (repo, out):
        removed = 'models/team18_Old.py, model_zoo/team18_old.pth'
        assert f'removed from {place}, as your earlier export: {removed}' in report
        names = {path.stem for path in place.rglob('team*')}
        assert names == {'team18_Mine', 'team18_New', 'team19_Other'}
    assert kept <= {path for place in (repo, out) for path in place.rglob('*')}
    assert 'removed' not in other + export_18(checkpoints['LGVAN'], name='New', out=out, repo=repo, size=SIZE)


def test_another_name_in_the_quality_track(tmp_path, checkpoints, capsys):
    settings = {'year': 2025, 'track': 'quality', 'out': tmp_path, 'size': SIZE}
    export_18(checkpoints['LGVAN'], name='Old', **settings)
    export_18(checkpoints['LGVAN'], name='New', **settings)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob('team*')) == [
        'model_zoo/team18_New',
        'model_zoo/team18_New/team18_New.pth',
        'models/team18_New',
    ]
    assert capsys.readouterr().err == ''  # no progress bar where there is no terminal


def test_progress_is_shown_on_a_terminal(tmp_path, checkpoints, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    export_18(checkpoints['LGVAN'], out=tmp_path / 'out', size=SIZE)
    assert '7/7' in capsys.readouterr().err


def test_a_library_of_the_years_requirements(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'path', sys.path[:])
    (tmp_path / 'filters_arch.py').write_text(
        'from basicsr.utils.registry import ARCH_REGISTRY\nfrom scipy.special import binom\nfrom torch import nn\n\n\n'
        '@ARCH_REGISTRY.register()\nclass FilterNet(nn.Upsample):\n    def __init__(self):\n'
        '        super().__init__(scale_factor=4 * binom(2, 2))\n'
    )
    words = ['--team-id', '18', '--name', 'X', '--model', 'FilterNet', '--arch-file', f'{tmp_path}/filters_arch.py']
    codes = []
    try:
        for year in ('2023', '2024'):
            codes.append(cli.main(['ntire', 'export', '--year', year, '--out', f'{tmp_path}/{year}', *words]))
    finally:
        ARCH_REGISTRY._obj_map.pop('FilterNet', None)
    assert codes == [1, 0]
    assert 'filters_arch.py, line 2: scipy.special is imported' in capsys.readouterr().err
    assert 'from scipy.special import binom' in (tmp_path / '2024/models/team18_X.py').read_text()


def test_files_of_others_are_not_overwritten(tmp_path, checkpoints):
    repo = make_repo(tmp_path / 'repo', 2024)
    (repo / 'models/team18_Mine.py').write_text('by hand\n')
    with pytest.raises(UserError, match=r'team18_Mine\.py exists and was not written by an export'):
        export_18(checkpoints['LGVAN'], name='Mine', out=tmp_path / 'out', repo=repo)
    (repo / 'models/team18_Mine.py').unlink()
    (repo / 'model_zoo/team18_Mine.pth').write_bytes(b'by hand')
    with pytest.raises(UserError, match=r'team18_Mine\.pth exists and was not written by an export'):
        export_18(checkpoints['LGVAN'], name='Mine', out=tmp_path / 'out', repo=repo)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('name', 'better'), [('18_LGVAN', 'LGVAN'), ('LG-VAN', 'LG_VAN'), ('é', 'Net'), ('18', 'Net')])
def test_an_invalid_name(name, better):
    check_names(18, 'team18_X')
    with pytest.raises(UsageError, match=rf'models\.18_X is not a Python name.* Try --name {better}$'):
        check_names(18, name)


def test_a_network_of_another_scale(tmp_path):
    with pytest.raises(UserError, match='a network for ×2; the challenge is ×4'):
        export_18('LGVAN', {'num_feat': 8, 'num_block': 1, 'upscale': 2}, out=tmp_path / 'out')


def test_a_network_that_needs_multiples():
    class Windows(torch.nn.Upsample):
        def forward(self, x):
            return super().forward(x.unflatten(2, (-1, 4)).flatten(2, 3))

    with pytest.raises(UserError, match=r'does not take an RGB image of 17×33 .*pad the input and crop the output'):
        check_scale(Windows(scale_factor=4), 1.0)


def test_a_network_that_needs_contiguous_images():
    """The official script's images are H×W×3 in memory."""

    class Flat(torch.nn.Upsample):
        def forward(self, x):
            return super().forward(x - x.view(x.shape[0], -1).mean())

    with pytest.raises(
        UserError, match=r'24×20 in the organisers. memory layout.*view size .*`reshape` where a `view`'
    ):
        check_scale(Flat(scale_factor=4), 1.0)


@pytest.mark.parametrize(
    ('output', 'reason'),
    [
        (lambda x: {}['missing'], "KeyError: 'missing'"),
        (lambda x: (x, x), 'returns tuple, not a tensor'),
    ],
)
def test_errors_of_the_network(output, reason):
    class Own(torch.nn.Module):
        def forward(self, x):
            return output(x)

    with pytest.raises(UserError, match=reason):
        check_scale(Own(), 1.0)


def test_a_grey_network():
    with pytest.raises(UserError, match='does not take an RGB image of 24×20'):
        check_scale(find_network(NetworkChoice('LGVAN', {'num_in_ch': 1, 'num_out_ch': 1})).network, 1.0)


@pytest.mark.parametrize('right', [1.0, 255.0])
def test_a_wrong_data_range_is_found_by_the_output(right):
    class Clamped(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.interpolate(x, scale_factor=4, mode='bicubic').clamp(0.01 * right, right)

    wrong = 256 - right
    check_data_range(Clamped(), right)
    with pytest.raises(UserError, match=f'the data range is wrong: .*use --data-range {right:g}'):
        check_data_range(Clamped(), wrong)


def test_a_wrong_data_range_of_official_weights(shared_data):
    network = find_network(NetworkChoice(str(shared_data.parent / 'weights/lgvan_x4_official.pth'))).network
    check_data_range(network, 1.0)
    with pytest.raises(UserError, match='the data range is wrong'):
        check_data_range(network, 255.0)


def test_an_arch_file_that_imports_something_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'path', sys.path[:])
    (tmp_path / 'teams_arch.py').write_text(
        'import addict.addict\nfrom basicsr.utils.registry import ARCH_REGISTRY\nfrom torch import nn\n\n\n'
        '@ARCH_REGISTRY.register()\nclass TeamsNet(nn.Upsample):\n    def __init__(self):\n'
        '        super().__init__(scale_factor=4)\n        self.crop = addict.addict.Dict\n'
    )
    words = ['ntire', 'export', '--year', '2024', '--team-id', '18', '--name', 'X', '--model', 'TeamsNet']
    try:
        assert cli.main([*words, '--arch-file', f'{tmp_path}/teams_arch.py', '--out', f'{tmp_path}/out']) == 1
    finally:
        ARCH_REGISTRY._obj_map.pop('TeamsNet', None)
    assert 'teams_arch.py, line 1: addict.addict is imported' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_the_number_of_the_baseline(tmp_path):
    with pytest.raises(UsageError, match=r'--team-id 0: .*0 is the baseline'):
        export_18('LGVAN', team=0, out=tmp_path / 'out')


@pytest.mark.parametrize(('out', 'message'), [('file', 'file is not a folder'), ('file/sub', 'cannot write into')])
def test_a_file_in_the_way(tmp_path, checkpoints, out, message):
    (tmp_path / 'file').write_text('mine\n')
    with pytest.raises(UserError, match=message):
        export_18(checkpoints['LGVAN'], out=tmp_path / out, size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ['file']
    assert (tmp_path / 'file').read_text() == 'mine\n'


def test_a_checkpoint_of_basicsr(tmp_path):
    arguments = {'num_feat': 4, 'num_block': 1}
    network = find_network(NetworkChoice('MSRResNet', arguments)).network
    torch.save({'params': network.state_dict()}, tmp_path / 'net_g.pth')
    with pytest.raises(UserError, match='--arch NAME'):
        find_network(NetworkChoice(str(tmp_path / 'net_g.pth')))
    report = export_18(tmp_path / 'net_g.pth', arguments, 'MSRResNet', out=tmp_path / 'out', size=SIZE)
    assert 'MSRResNet, training form, weights from params' in report
    flat = torch.load(tmp_path / 'out/model_zoo/team18_X.pth', weights_only=True)
    assert all(torch.equal(flat[name], tensor) for name, tensor in network.state_dict().items())

import pytest

from earn_plugin.convert.networks import NetworkChoice, find_network
from earn_plugin.ntire.factsheet import as_latex, checklist, count_figures
from earn_plugin.ntire.organisers_script import Submission


@pytest.mark.parametrize(('year', 'flops'), [(2023, '9.06'), (2024, '9.04')])
def test_lgvan_has_the_figures_of_its_report(year, flops):
    submission = Submission(year, 18, 'LG_VAN', 'LGVAN', {}, 1.0)
    figures = count_figures(submission, find_network(NetworkChoice('LGVAN')), (256, 256))
    assert list(figures.values()) == ['0.118', flops, '332.39', '122']
    latex = as_latex(submission, figures, (256, 256))
    assert rf'LG\_VAN & 0.118 & {flops} & 332.39 & 122 \\' in latex
    assert latex.count('{') == latex.count('}')


def test_the_checklist_names_the_files_and_the_script():
    text = checklist(Submission(2025, 7, 'Net', 'LGVAN', {}, 1.0, 'quality'))
    assert 'models/team07_Net/__init__.py' in text
    assert 'test.py' in text


@pytest.mark.parametrize(
    'item',
    ['user names on the challenge server', 'PDF', 'zip', 'two separate links', 'TEAM_NAME - TEAM_ID', '(TEAM_ID 07)'],
)
@pytest.mark.parametrize('track', ['efficient', 'quality'])
def test_the_checklist_has_what_the_organisers_ask_for(item, track):
    assert item in checklist(Submission(2025, 7, 'Net', 'LGVAN', {}, 1.0, track))


def test_the_checklist_has_each_ranking_of_the_year():
    figures = count_figures(
        Submission(2024, 7, 'Net', 'LGVAN', {}, 1.0), find_network(NetworkChoice('LGVAN')), (256, 256)
    )
    lines = checklist(Submission(2024, 7, 'Net', 'LGVAN', {}, 1.0), figures).splitlines()
    overall, runtime, flops, parameters = (line for line in lines if 'eligible' in line)
    assert 'PSNR at least 26.90 dB on valid and 26.99 dB on test' in overall
    assert runtime.endswith('FLOPs at most 19.67 G (here 9.04), parameters at most 0.317 M (here 0.118)')
    assert flops.endswith('runtime at most 13.54 ms, parameters at most 0.317 M (here 0.118)')
    assert parameters.endswith('runtime at most 13.54 ms, FLOPs at most 19.67 G (here 9.04)')
    assert 'eligible' not in checklist(Submission(2023, 7, 'Net', 'LGVAN', {}, 1.0))

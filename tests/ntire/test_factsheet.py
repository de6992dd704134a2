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

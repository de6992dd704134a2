import pytest

from earn_plugin.convert.networks import NetworkChoice, find_network
from earn_plugin.ntire.factsheet import as_latex, checklist, figures
from earn_plugin.ntire.organisers_script import Submission
from earn_plugin.ntire.standalone import Extra


@pytest.mark.parametrize(('year', 'flops'), [(2023, '9.06'), (2024, '9.04')])
def test_lgvan_has_the_figures_of_its_report(year, flops):
    submission = Submission(year, 18, 'LG_VAN', 'LGVAN', {}, 1.0)
    rows = figures(submission, find_network(NetworkChoice('LGVAN')), Extra(), (256, 256))
    assert [row.value for row in rows] == ['0.118', flops, '332.39', '122']
    latex = as_latex(submission, rows, (256, 256))
    assert rf'LG\_VAN & 0.118 & {flops} & 332.39 & 122 \\' in latex
    assert latex.count('{') == latex.count('}')


def test_what_the_file_counts_more_is_in():
    submission = Submission(2024, 18, 'X', 'LGVAN', {}, 1.0)
    found = find_network(NetworkChoice('LGVAN', {'num_feat': 2, 'num_block': 1}))
    flops = [float(figures(submission, found, extra, (8, 8))[1].value) for extra in (Extra(), Extra(10**9, 10**9))]
    assert flops[1] - flops[0] == pytest.approx(64 + 64**2, abs=0.02)


def test_the_checklist_names_the_files_and_the_script():
    text = checklist(Submission(2025, 7, 'Net', 'LGVAN', {}, 1.0, 'quality'))
    assert 'models/team07_Net/__init__.py' in text
    assert 'test.py' in text

import pytest

from tests.helpers.options import completed


@pytest.fixture
def opt(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return completed(tmp_path, tiny)

import math
import runpy
import sys

import torch

from earn_plugin.ntire import official_run

CPU = torch.device('cpu')


def test_windows_has_no_module_resource(monkeypatch):
    """The module can be imported all the same, and the peak memory is unknown."""
    monkeypatch.setitem(sys.modules, 'resource', None)
    assert math.isnan(runpy.run_path(official_run.__file__)['peak_memory_mib'](CPU))


def test_peak_memory_includes_what_was_freed():
    torch.ones(2**28, dtype=torch.uint8)
    assert 256 < official_run.peak_memory_mib(CPU) < 2**20

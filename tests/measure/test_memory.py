from functools import partial

import torch

from earn_plugin.measure import memory as measuring


def test_peak_memory_is_what_lives_at_one_time():
    def run():
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1  # 4,000 more
        del a
        c = b * 2
        return c.view(10, 100)  # a view is nothing new

    assert measuring.peak_memory(run) == 8000


def test_medians_by_turns(monkeypatch):
    """By a clock that only the runs and what follows them move; neither the first turn nor that counts."""
    now, order = 0, []
    seconds = {'a': [90, 1, 5, 2], 'b': [90, 4, 3, 7]}

    def run(name):
        nonlocal now
        now += seconds[name][order.count(name)]
        order.append(name)

    def after():
        nonlocal now
        now += 1000

    monkeypatch.setattr(measuring.time, 'perf_counter', lambda: now)
    assert measuring.medians({name: partial(run, name) for name in seconds}, 3, after) == {'a': 2, 'b': 4}
    assert ''.join(order) == 'ab' * 4

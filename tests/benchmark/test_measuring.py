import torch

from earn_plugin.benchmark import measuring


def test_peak_memory_is_what_lives_at_one_time():
    def run():
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1  # 4,000 more
        del a
        c = b * 2
        return c.view(10, 100)  # a view is nothing new

    assert measuring.peak_memory(run) == 8000


def test_medians_by_turns():
    order = []
    forms = {'a': lambda: order.append('a'), 'b': lambda: order.append('b')}
    seconds = measuring.medians(forms, 3)
    assert ''.join(order) == 'ab' * 4
    assert all(value >= 0 for value in seconds.values())

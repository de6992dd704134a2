import torch

from earn_plugin.measure.memory import peak_bytes


def test_peak_memory_is_what_lives_at_one_time():
    def run():
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1  # 4,000 more
        del a
        c = b * 2
        return c.view(10, 100)  # a view is nothing new

    assert peak_bytes(run) == 8000

import pytest
import torch

from earn_plugin.devices import describe_device, find_device
from earn_plugin.errors import UsageError, UserError


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert find_device(None) == torch.device('cpu')
    with pytest.raises(UserError, match='no CUDA device'):
        find_device('cuda')
    with pytest.raises(UsageError, match='quantum is not a device'):
        find_device('quantum')


def test_a_processor_is_described_with_its_threads():
    assert describe_device(torch.device('cpu')).endswith(
        f', {torch.get_num_threads()} thread{"s" * (torch.get_num_threads() > 1)}'
    )

import pytest

from earn_plugin import distributed
from earn_plugin.errors import UserError


def test_alone_everything_is_as_it_was(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    assert distributed.start('none') == (0, 1)
    assert distributed.same_for_all(3) == 3
    assert distributed.gathered(3) == [3]
    assert distributed.any_of(True)
    assert not distributed.any_of(False)
    done = []
    distributed.first_alone(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        distributed.first_alone(lambda: 1 / 0)
    distributed.stop()


def test_launchers_that_are_not_there_are_told(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(UserError, match='torchrun --nproc_per_node=2 -m earn_plugin train'):
        distributed.start('pytorch')
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(UserError, match='on CPUs start with torchrun'):
        distributed.start('slurm')

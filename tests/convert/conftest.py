import pytest


@pytest.fixture
def lgvan(golden):
    return {name: tensor.float() for name, tensor in golden('lgvan_x2_f16b3').weights.items()}

"""The gradient of a gather is the same every time, whatever the threads do."""

from typing import Any, cast

import pytest
import torch

from motet.training.determinism import deterministic_backward

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_gradient_of_many_addends_is_the_same_every_time(two_threads):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 64, generator=generator, requires_grad=True)
    index = torch.randint(0, 300, (20_000,), generator=generator)
    weights = torch.randn(20_000, 64, generator=generator)
    seen = set()
    for _ in range(10):
        x.grad = None
        with deterministic_backward(CPU):
            (x[index] * weights).sum().backward()
        assert x.grad is not None
        seen.add(x.grad.numpy().tobytes())
    assert len(seen) == 1


def test_the_setting_is_put_back_after_an_error():
    with pytest.raises(ValueError, match="no"), deterministic_backward(CPU):
        assert torch.are_deterministic_algorithms_enabled()
        raise ValueError("no")
    assert not torch.are_deterministic_algorithms_enabled()
    assert cast(Any, torch.utils).deterministic.fill_uninitialized_memory


def test_other_devices_are_left_alone():
    with deterministic_backward(torch.device("meta")):
        assert not torch.are_deterministic_algorithms_enabled()

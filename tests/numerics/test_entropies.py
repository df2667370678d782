"""The actions of the highest entropy: hand arithmetic, torch's quantile, and ties."""

import pytest
import torch

from motet.numerics.entropies import highest_entropies


def test_by_hand() -> None:
    """Of five, the 0.6 quantile lies at place 0.6 x 4 = 2.4 of the order: between 3 and 4, above 3."""
    entropies = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0])
    assert highest_entropies(entropies, 0.4).tolist() == [True, False, True, False, False]
    assert highest_entropies(entropies, 0.0).tolist() == [True, False, False, False, False]
    assert bool(highest_entropies(entropies, 1.0).all())
    assert highest_entropies(torch.zeros(0), 0.5).tolist() == []


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.37, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("count", [1, 2, 11, 240])
def test_quantile_equals_torch(share: float, count: int) -> None:
    entropies = torch.rand(count, generator=torch.Generator().manual_seed(count))
    expected = entropies >= torch.quantile(entropies, 1 - share) - 1e-5
    assert torch.equal(highest_entropies(entropies, share), expected)


def test_entropies_equal_up_to_rounding_are_treated_alike() -> None:
    """The first tokens of a group have equal entropies, computed in different micro-batches."""
    entropies = torch.tensor([2.0, 2.0 + 1e-6, 2.0 - 1e-6, 1.0, 0.5])
    assert highest_entropies(entropies, 0.3).tolist() == [True, True, True, False, False]

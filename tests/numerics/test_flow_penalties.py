"""The velocity penalty, and the exact KL of a step that it replaces."""

from __future__ import annotations

import pytest
import torch

from motet.numerics.flow.penalties import velocity_mse
from motet.numerics.flow.schedules import linear_sigmas
from motet.numerics.flow.steps import sde_step
from motet.numerics.kl import gaussian_kl


def test_by_hand() -> None:
    velocity, reference = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([[0.0, 2.0], [2.0, 1.0]])
    torch.testing.assert_close(velocity_mse(velocity, reference), torch.tensor([0.5, 6.5]))


def test_gradient() -> None:
    velocity, reference = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    velocity.requires_grad_(), reference.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: velocity_mse(v, reference.detach()), velocity)
    velocity_mse(velocity, reference).sum().backward()
    assert reference.grad is None and velocity.grad is not None
    torch.testing.assert_close(velocity.grad, (velocity - reference).detach() / 2)


@pytest.mark.parametrize("noise_level", [0.4, 0.9])
def test_gaussian_kl_is_a_weighted_velocity_mse(noise_level: float) -> None:
    """The identity of the module's docstring, and torch's KL of the two Gaussians."""
    x, velocity, reference = torch.randn(3, 8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times = linear_sigmas(9, 2.0).double()
    sigma, sigma_next = times[1:-1], times[2:]
    mean, std = sde_step(x, velocity, sigma, sigma_next, noise_level)
    other = sde_step(x, reference, sigma, sigma_next, noise_level).mean
    latent = gaussian_kl(mean, other, std)
    normal, spread = torch.distributions.Normal, std[:, None]
    torch.testing.assert_close(
        latent, torch.distributions.kl_divergence(normal(mean, spread), normal(other, spread)).mean(dim=1)
    )
    weight = (1 + noise_level**2 / 2) ** 2 * (sigma - sigma_next) * (1 - sigma) / (2 * noise_level**2 * sigma)
    torch.testing.assert_close(latent, weight * velocity_mse(velocity, reference))

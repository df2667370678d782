"""Flow matching: the loss by hand, its optimum on Gaussian data, and the distribution of noise levels."""

from __future__ import annotations

import pytest
import torch

from motet.numerics.flow.matching import flow_matching_loss, logit_normal_sigmas
from motet.numerics.flow.path import interpolate


def test_by_hand() -> None:
    """Target noise - x_0 = (1, -1); velocity (2, 1): (1 + 4) / 2."""
    clean, noise = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0]])
    torch.testing.assert_close(flow_matching_loss(torch.tensor([[2.0, 1.0]]), clean, noise), torch.tensor([2.5]))


def test_gradient() -> None:
    velocity, clean, noise = torch.randn(3, 2, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    velocity.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: flow_matching_loss(v, clean, noise), velocity)


def test_the_optimum_is_the_flow_of_the_data() -> None:
    """Data N(1.5, 0.5^2) at sigma 0.6: the best affine velocity is E[noise - x_0 | x], by regression."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    clean = 1.5 + 0.5 * clean
    sigma = torch.full_like(clean, 0.6)
    x = interpolate(clean[:, None], noise[:, None], sigma)[:, 0]
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    variance = 0.16 * 0.25 + 0.36
    slope = (0.6 - 0.4 * 0.25) / variance  # cov(noise - x_0, x) / var(x)
    loss = flow_matching_loss((weights[0] + weights[1] * x)[:, None], clean[:, None], noise[:, None]).mean()
    design = torch.stack([torch.ones_like(x), x])
    curvature = 2 * design @ design.T / len(x)
    best = weights.detach() - torch.linalg.solve(curvature, torch.autograd.grad(loss, weights)[0])  # one Newton step
    torch.testing.assert_close(best, torch.tensor([-1.5 - slope * 0.4 * 1.5, slope]).double(), rtol=0, atol=0.01)


def test_logit_normal_quantiles() -> None:
    """The median is sigmoid(mean), one deviation above it sigmoid(mean + std); ends are finite."""
    uniforms = torch.tensor([0.0, 0.5, 0.8413447460685429, 1 - 2**-24], dtype=torch.float64)
    plain, other = logit_normal_sigmas(uniforms), logit_normal_sigmas(uniforms, mean=-0.4, std=0.5)
    logit = torch.special.logit
    torch.testing.assert_close(logit(plain[1:3]), torch.tensor([0.0, 1.0]).double())
    torch.testing.assert_close(logit(other[1:3]), torch.tensor([-0.4, 0.1]).double())
    assert plain[0] == 0 and 0.99 < plain[-1] < 1


def test_logit_of_logit_normal_sigmas_is_normal() -> None:
    uniforms = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    logits = torch.special.logit(logit_normal_sigmas(uniforms, mean=0.3, std=1.2))
    assert float(logits.mean()) == pytest.approx(0.3, abs=1e-6) and float(logits.std()) == pytest.approx(1.2, abs=1e-3)

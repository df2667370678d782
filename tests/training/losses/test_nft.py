"""DiffusionNFT: by hand, in its limits, its optimum derived on a small world, the released code's weight. Float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from motet.numerics.flow.matching import flow_matching_loss
from motet.numerics.flow.path import interpolate
from motet.training.losses.nft import implicit_velocities, nft_loss, optimality_prob


def parts(rows: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Velocity, old velocity, pictures, noise."""
    generator = torch.Generator().manual_seed(seed)
    velocity, old, clean, noise = torch.randn(4, rows, 2, 3, dtype=torch.float64, generator=generator)
    return velocity, old, clean, noise


def test_optimality_by_hand() -> None:
    advantages = torch.tensor([-9.0, -5.0, -2.5, 0.0, 1.0, 5.0, 9.0])
    torch.testing.assert_close(optimality_prob(advantages), torch.tensor([0.0, 0.0, 0.25, 0.5, 0.6, 1.0, 1.0]))
    torch.testing.assert_close(optimality_prob(advantages, 10.0)[0], torch.tensor(0.05))


def test_by_hand() -> None:
    """v 3, old 1, target 2, beta 0.5: v+ = 2, v- = 0; 0.25 * 0 + 0.75 * 4."""
    clean, noise = torch.tensor([[1.0]]), torch.tensor([[3.0]])
    r = torch.tensor([0.25])
    loss = nft_loss(torch.tensor([[3.0]]), torch.tensor([[1.0]]), clean, noise, r, beta=0.5)
    torch.testing.assert_close(loss, torch.tensor([3.0]))


def test_implicit_velocities_are_mirrored() -> None:
    velocity, old, _, _ = parts()
    positive, negative = implicit_velocities(velocity, old, 0.3)
    torch.testing.assert_close(positive, 0.7 * old + 0.3 * velocity)
    torch.testing.assert_close(negative, 1.3 * old - 0.3 * velocity)


def test_all_good_and_beta_one_is_flow_matching() -> None:
    velocity, old, clean, noise = parts()
    ones = torch.ones(len(clean), dtype=torch.float64)
    torch.testing.assert_close(
        nft_loss(velocity, old, clean, noise, ones, beta=1.0), flow_matching_loss(velocity, clean, noise)
    )


def test_good_pictures_attract_and_bad_ones_repel_equally() -> None:
    """At the old policy the gradient is 2 beta (2 r - 1) (v - target) / dimensions: zero for an average picture."""
    _, old, clean, noise = parts()
    r = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    velocity = old.clone().requires_grad_()
    nft_loss(velocity, old, clean, noise, r, beta=0.4).sum().backward()
    assert velocity.grad is not None
    expected = 2 * 0.4 * (2 * r - 1).view(-1, 1, 1) * (old - (noise - clean)) / 6
    torch.testing.assert_close(velocity.grad, expected)


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_its_optimum_leads_towards_the_good(beta: float) -> None:
    """A state that four pictures may have come from, with probabilities p and goodness r; the old policy is exact.

    The optimum is v_old + (2 / beta) E[r] (v_good - v_old), with v_good = E[r u] / E[r] and u = noise - x_0.
    """
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    p, r = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.9, 0.1, 0.5, 0.3]], dtype=torch.float64)
    u = noise - clean
    old, alpha = p @ u, p @ r
    best = old + 2 / beta * alpha * ((p * r) @ u / alpha - old)
    best.requires_grad_()
    loss = (p * nft_loss(best.expand(4, 3), old.expand(4, 3), clean, noise, r, beta=beta)).sum()
    (gradient,) = torch.autograd.grad(loss, best)
    torch.testing.assert_close(gradient, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    away = (best.detach() + 0.1).expand(4, 3)
    assert (p * nft_loss(away, old.expand(4, 3), clean, noise, r, beta=beta)).sum() > loss


def test_the_adaptive_weight_is_the_released_codes() -> None:
    """There written with pictures: (x - sigma v - x_0)^2 / mean |x - sigma v - x_0|, with a floor of 1e-5."""
    velocity, old, clean, noise = parts()
    sigma, r = torch.linspace(0.1, 1.0, 5, dtype=torch.float64), torch.linspace(0, 1, 5, dtype=torch.float64)
    level, x = sigma.view(-1, 1, 1), interpolate(clean, noise, sigma)
    velocity.requires_grad_()
    total = torch.zeros(5, dtype=torch.float64)
    for share, implicit in zip((r, 1 - r), (0.7 * old + 0.3 * velocity, 1.3 * old - 0.3 * velocity), strict=True):
        error = x - level * implicit - clean
        size = error.detach().abs().mean(dim=(1, 2), keepdim=True).clip(min=1e-5)
        total = total + share * (error.square() / size).mean(dim=(1, 2))
    ours = nft_loss(velocity, old, clean, noise, r, beta=0.3, sigma=sigma)
    torch.testing.assert_close(ours, total)
    theirs = torch.autograd.grad(total.sum(), velocity)[0]
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), velocity)[0], theirs)


def test_a_perfect_velocity_does_not_divide_by_zero() -> None:
    _, _, clean, noise = parts()
    target = (noise - clean).requires_grad_()
    sigma, r = torch.full((5,), 0.5).double(), torch.full((5,), 0.8).double()
    loss = nft_loss(target, target.detach(), clean, noise, r, beta=0.3, sigma=sigma)
    (gradient,) = torch.autograd.grad(loss.sum(), target)
    assert bool((loss == 0).all()) and bool((gradient == 0).all())


def test_gradient() -> None:
    velocity, old, clean, noise = parts()
    r = optimality_prob(torch.linspace(-4, 4, 5, dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda v: nft_loss(v, old, clean, noise, r, beta=0.3), velocity.clone().requires_grad_()
    )
    velocity.requires_grad_(), old.requires_grad_()
    nft_loss(velocity, old, clean, noise, r, beta=0.3).sum().backward()
    assert old.grad is None and velocity.grad is not None


def test_bfloat16_velocities_are_compared_in_float32() -> None:
    generator = torch.Generator().manual_seed(3)
    clean, noise, velocity = (torch.randn(2, 8, generator=generator).bfloat16() for _ in range(3))
    old = velocity + torch.randn(2, 8, generator=generator).bfloat16() * 0.01
    r, sigma = torch.tensor([0.9, 0.2]), torch.tensor([0.999, 0.3])
    for level in (None, sigma):
        low = nft_loss(velocity, old, clean, noise, r, beta=0.1, sigma=level)
        wide = [x.double() for x in (velocity, old, clean, noise, r)]
        high = nft_loss(*wide, beta=0.1, sigma=None if level is None else level.double())
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), high, rtol=1e-5, atol=0)

"""GRPO-Guard: the published formula, what it does to ratios, and equal gradients at every step. Float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from motet.core.sampling import SdeType
from motet.numerics.flow.schedules import linear_sigmas
from motet.numerics.flow.steps import log_density, sample_gaussian, sde_step
from motet.training.losses.grpo_guard import normalized_log_ratios, step_weights

TIMES = linear_sigmas(9, 3.0).double()
SIGMA, SIGMA_NEXT = TIMES[:-1], TIMES[1:]
D = 4000


def drawn(change: float, sde_type: SdeType = "flow_sde") -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Actions of all steps of one schedule, under the old velocities; both means, std, and the noise."""
    generator = torch.Generator().manual_seed(0)
    x, velocity, noise, move = torch.randn(4, len(SIGMA), D, dtype=torch.float64, generator=generator)
    old = sde_step(x, velocity, SIGMA, SIGMA_NEXT, 0.7, sde_type)
    new = sde_step(x, velocity + change * move, SIGMA, SIGMA_NEXT, 0.7, sde_type)
    return sample_gaussian(old, noise), new.mean, old.mean, old.std, noise


def test_by_hand() -> None:
    """mean - old = (1, -1), x' - old = (2, 1), std 0.5: (2 - 1) / 2 / 0.5."""
    row = torch.tensor([[3.0, 2.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([0.5])
    torch.testing.assert_close(normalized_log_ratios(*row), torch.tensor([1.0]))


def test_it_is_the_published_formula() -> None:
    """std (log p - log p_old + mean((mean - mean_old)^2) / (2 std^2)), value and gradient."""
    action, mean, old, std, noise = drawn(0.5)
    mean.requires_grad_()
    bias = (mean - old).square().mean(dim=1) / (2 * std**2)
    published = std * (log_density(action, mean, std) - log_density(action, old, std) + bias)
    ours = normalized_log_ratios(action, mean, old, std)
    torch.testing.assert_close(ours, published)
    torch.testing.assert_close(ours, ((mean - old) * noise).mean(dim=1))
    weights = torch.arange(1.0, 10.0, dtype=torch.float64)
    theirs = torch.autograd.grad((weights * published).sum(), mean)[0]
    torch.testing.assert_close(torch.autograd.grad((weights * ours).sum(), mean)[0], theirs)


def test_plain_ratios_lean_to_the_left_and_normalised_ones_do_not() -> None:
    action, mean, old, std, _ = drawn(2.0)
    plain = log_density(action, mean, std) - log_density(action, old, std)
    ours = normalized_log_ratios(action, mean, old, std)
    assert bool((plain < 0).all())
    scale = (mean - old).square().mean(dim=1).sqrt() / D**0.5  # the deviation of mean((mean - old) noise)
    assert bool((ours.abs() < 4 * scale).all()) and bool((ours > 0).any()) and bool((ours < 0).any())


def test_on_policy_the_ratio_is_one_exactly() -> None:
    action, _, old, std, _ = (value.float() for value in drawn(0.0))
    assert torch.equal(normalized_log_ratios(action, old.clone(), old, std), torch.zeros(len(SIGMA)))


def test_a_small_change_is_not_lost_in_float32() -> None:
    """Log-ratios near 1e-6, which the difference of two float32 log-probs has to a few digits at best."""
    action, mean, old, std, _ = drawn(2e-4)
    exact = normalized_log_ratios(action, mean, old, std)
    assert 1e-8 < float(exact.abs().max()) < 1e-5
    rough = normalized_log_ratios(action.float(), mean.float(), old.float(), std.float())
    torch.testing.assert_close(rough.double(), exact, rtol=0.02, atol=2e-9)


def test_no_gradient_flows_into_what_was_sampled() -> None:
    action, mean, old, std, _ = drawn(0.5)
    for value in (action, mean, old):
        value.requires_grad_()
    normalized_log_ratios(action, mean, old, std).sum().backward()
    assert action.grad is None and old.grad is None and mean.grad is not None


def gradient_sizes(sde_type: SdeType) -> Tensor:
    """Of each step's weighted normalised log-ratio by the velocity, in units of the noise."""
    x, velocity, noise = torch.randn(3, len(SIGMA), D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    velocity.requires_grad_()
    step = sde_step(x, velocity, SIGMA, SIGMA_NEXT, 0.7, sde_type)
    action = sample_gaussian(step, noise)
    ratios = normalized_log_ratios(action, step.mean, step.mean, step.std).exp()
    gradient = torch.autograd.grad((step_weights(SIGMA, SIGMA_NEXT) * ratios).sum(), velocity)[0]
    return gradient.norm(dim=1) * D / noise.norm(dim=1)


def test_weighted_steps_pull_equally() -> None:
    """By 1 + a^2 / 2 from every sigma below 1; by 1 from sigma 1, where the network's part of the score is 0."""
    sizes = gradient_sizes("flow_sde")
    torch.testing.assert_close(sizes[1:], torch.full_like(sizes[1:], 1 + 0.49 / 2))
    assert float(sizes[0]) == pytest.approx(1.0)


def test_the_weights_are_flow_grpos_own() -> None:
    for sde_type in ("cps", "dance_sde"):
        assert gradient_sizes(sde_type)[1:-1].std() > 0.01  # the last step of cps has no density
    torch.testing.assert_close(step_weights(torch.tensor([0.9]), torch.tensor([0.65])), torch.tensor([4.0]))

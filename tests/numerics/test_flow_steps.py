"""Denoising steps as Gaussians: by hand, against their limits, exact marginals, densities and gradients. Float64."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from motet.core.sampling import SdeType
from motet.numerics.flow.path import clean_estimate, interpolate, noise_estimate, target_velocity
from motet.numerics.flow.schedules import linear_sigmas
from motet.numerics.flow.steps import log_density, ode_step, sample_gaussian, sde_step

TYPES: tuple[SdeType, ...] = ("flow_sde", "dance_sde", "cps")
EXPLORING: tuple[SdeType, ...] = ("flow_sde", "dance_sde")


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def states(count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, velocities and sigmas of steps that begin anywhere, the first of them at sigma 1."""
    generator = torch.Generator().manual_seed(seed)
    x, velocity = torch.randn(2, count, 2, 3, 3, generator=generator, dtype=torch.float64)
    times = linear_sigmas(count + 1, 2.0).double()
    return x, velocity, times[:count], times[1 : count + 1]


# --- the formulas ---------------------------------------------------------------------------------------------------


def test_flow_grpo_by_hand() -> None:
    """sigma 0.8 to 0.6 with a = 0.5: s^2 = 0.25 * 0.8 / 0.2 = 1, s^2 / (2 sigma) = 0.625, D = -0.2."""
    mean, std = sde_step(one(2.0), one(3.0), one(0.8), one(0.6), 0.5, "flow_sde")
    # x (1 - 0.125) + v (1 + 0.625 * 0.2) * -0.2 = 1.75 - 0.675
    torch.testing.assert_close(mean, one(1.075))
    torch.testing.assert_close(std, one(math.sqrt(0.2)))


def test_flow_grpo_at_sigma_one() -> None:
    """s^2 = 0.25 * 1 / (1 - 0.9) = 2.5 and D = -0.1: x (1 - 0.125) - 0.1 v."""
    mean, std = sde_step(one(2.0), one(3.0), one(1.0), one(0.9), 0.5, "flow_sde")
    torch.testing.assert_close(mean, one(1.45))
    torch.testing.assert_close(std, one(0.5))


def test_sigma_one_is_replaced_by_the_second_sigma() -> None:
    """All steps of a schedule at once: only in the first is sigma replaced, by `times[1]`."""
    times = linear_sigmas(6, 3.0).double()
    x = torch.ones(6, 2, dtype=torch.float64)
    _, std = sde_step(x, x, times[:-1], times[1:], 0.7)
    levels = torch.cat([times[1:2], times[1:-1]])
    torch.testing.assert_close(std, 0.7 * (times[:-1] / (1 - levels)).sqrt() * (times[:-1] - times[1:]).sqrt())


def test_dance_grpo_follows_from_its_score() -> None:
    """DanceGRPO estimates the score from the clean estimate: -(x - (1 - sigma) x_0) / sigma^2."""
    x, velocity, sigma, sigma_next = states()
    mean, std = sde_step(x, velocity, sigma, sigma_next, 0.3, "dance_sde")
    level, change = sigma.view(-1, 1, 1, 1), (sigma_next - sigma).view(-1, 1, 1, 1)
    score = -(x - (1 - level) * (x - level * velocity)) / level**2
    torch.testing.assert_close(mean, x + change * velocity - 0.5 * 0.3**2 * score * change)
    torch.testing.assert_close(std, 0.3 * (sigma - sigma_next).sqrt())


def test_cps_by_hand() -> None:
    """x_0 = 2 - 0.8 * 3 = -0.4, noise = 2 + 0.2 * 3 = 2.6; eta 1/3 is 30 degrees; sigma' = 0.6."""
    mean, std = sde_step(one(2.0), one(3.0), one(0.8), one(0.6), 1 / 3, "cps")
    torch.testing.assert_close(mean, one(0.4 * -0.4 + 0.6 * math.sqrt(3) / 2 * 2.6))
    torch.testing.assert_close(std, one(0.3))


def test_cps_keeps_the_noise_level_of_the_path() -> None:
    """A velocity's two ends: exact when the velocity is that of the path."""
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=torch.float64)
    x, velocity = interpolate(clean, noise, sigma), target_velocity(clean, noise)
    torch.testing.assert_close(x[1], 0.7 * clean[1] + 0.3 * noise[1])
    torch.testing.assert_close(clean_estimate(x, velocity, sigma), clean)
    torch.testing.assert_close(noise_estimate(x, velocity, sigma), noise)


# --- limits and edges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde_type", TYPES)
def test_noise_level_0_is_the_euler_step(sde_type: SdeType) -> None:
    x, velocity, sigma, sigma_next = states()
    mean, std = sde_step(x, velocity, sigma, sigma_next, 0.0, sde_type)
    by_hand = x + velocity * (sigma_next - sigma).view(-1, 1, 1, 1)
    torch.testing.assert_close(mean, by_hand)
    torch.testing.assert_close(ode_step(x, velocity, sigma, sigma_next), by_hand)
    assert bool((std == 0).all())


@pytest.mark.parametrize("sde_type", TYPES)
def test_noise_level_0_equals_diffusers(sde_type: SdeType) -> None:
    """A whole schedule compared with `FlowMatchEulerDiscreteScheduler`, with a velocity that depends on the state."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(8)
    theirs = ours = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for step, time in enumerate(scheduler.timesteps):
        sigma, sigma_next = scheduler.sigmas[step].expand(2), scheduler.sigmas[step + 1].expand(2)
        ours = sde_step(ours, torch.tanh(ours), sigma, sigma_next, 0.0, sde_type).mean
        theirs = scheduler.step(torch.tanh(theirs), time, theirs, return_dict=False)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_noise_of_the_last_step() -> None:
    """Why the last step is not an action: cps adds no noise, the SDEs would leave noise in the image."""
    x = torch.ones(1, 3, dtype=torch.float64)
    noise = {sde: float(sde_step(x, x, one(0.25), one(0.0), 0.4, sde).std) for sde in TYPES}
    assert noise == pytest.approx({"flow_sde": 0.4 * 0.25 / math.sqrt(0.75), "dance_sde": 0.4 * 0.5, "cps": 0.0})


@pytest.mark.parametrize("sde_type", TYPES)
def test_rows_are_independent(sde_type: SdeType) -> None:
    x, velocity, sigma, sigma_next = states()
    mean, std = sde_step(x, velocity, sigma, sigma_next, 0.6, sde_type)
    for n in range(len(x)):
        row = slice(n, n + 1)
        alone = sde_step(x[row], velocity[row], sigma[row], sigma_next[row], 0.6, sde_type)
        assert torch.equal(alone.mean, mean[row]) and torch.equal(alone.std, std[row])


@pytest.mark.parametrize("sde_type", TYPES)
def test_bfloat16_becomes_float32_and_float64_stays(sde_type: SdeType) -> None:
    x, velocity, sigma, sigma_next = (value.float() for value in states())
    mean, std = sde_step(x.bfloat16(), velocity.bfloat16(), sigma, sigma_next, 0.6, sde_type)
    float32 = sde_step(x.bfloat16().float(), velocity.bfloat16().float(), sigma, sigma_next, 0.6, sde_type)
    assert mean.dtype == std.dtype == torch.float32 and torch.equal(mean, float32.mean)
    assert ode_step(x.bfloat16(), velocity.bfloat16(), sigma, sigma_next).dtype == torch.float32
    mixed = sde_step(x, velocity.double(), sigma, sigma_next, 0.6, sde_type)
    exact = sde_step(x.double(), velocity.double(), sigma.double(), sigma_next.double(), 0.6, sde_type)
    assert mixed.mean.dtype == mixed.std.dtype == torch.float64
    assert torch.equal(mixed.mean, exact.mean) and torch.equal(mixed.std, exact.std)


def test_invalid_noise_levels_are_rejected() -> None:
    for sde_type in TYPES:
        with pytest.raises(ValueError, match="must not be negative"):
            sde_step(one(1.0), one(1.0), one(0.5), one(0.4), -0.1, sde_type)
    with pytest.raises(ValueError, match="at most 1"):
        sde_step(one(1.0), one(1.0), one(0.5), one(0.4), 1.2, "cps")
    sde_step(one(1.0), one(1.0), one(0.5), one(0.4), 1.2, "flow_sde")


def test_an_action_is_mean_plus_std_times_noise() -> None:
    step = sde_step(*states(), 0.5)
    noise = torch.full_like(step.mean, 2.0)
    torch.testing.assert_close(sample_gaussian(step, noise), step.mean + 2.0 * step.std.view(-1, 1, 1, 1))


# --- marginals ------------------------------------------------------------------------------------------------------


def gaussian_velocity(x: Tensor, sigma: Tensor, mean: float, std: float) -> Tensor:
    """E[noise - x_0 | x_sigma = x] for data N(mean, std^2): regressions of jointly normal variables."""
    variance = (1 - sigma) ** 2 * std**2 + sigma**2
    surprise = (x - (1 - sigma) * mean) / variance
    return sigma * surprise - (mean + (1 - sigma) * std**2 * surprise)


def moments_of_sampling(
    sde_type: SdeType, noise_level: float, num_steps: int, *, mean: float, std: float
) -> tuple[float, float]:
    """Mean and variance at sigma 0.1 of sampling from standard noise, exact: every step is an affine map plus noise."""
    times = 1 - 0.9 * torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    sigma, sigma_next = times[:-1], times[1:]
    (offsets, noises), (ends, _) = (
        sde_step(x, gaussian_velocity(x, sigma, mean, std), sigma, sigma_next, noise_level, sde_type)
        for x in (torch.zeros_like(sigma), torch.ones_like(sigma))
    )
    centre, variance = 0.0, 1.0
    for offset, slope, noise in zip(offsets.tolist(), (ends - offsets).tolist(), noises.tolist(), strict=True):
        centre, variance = offset + slope * centre, slope**2 * variance + noise**2
    return centre, variance


@pytest.mark.parametrize("noise_level", [0.3, 0.9])
@pytest.mark.parametrize("sde_type", EXPLORING)
def test_the_sdes_preserve_the_marginals(sde_type: SdeType, noise_level: float) -> None:
    """Data N(1.5, 0.5^2): at sigma 0.1 the flow is N(0.9 * 1.5, 0.81 * 0.25 + 0.01), whatever the noise level."""
    centre, variance = moments_of_sampling(sde_type, noise_level, 2000, mean=1.5, std=0.5)
    assert centre == pytest.approx(0.9 * 1.5, abs=1e-3)
    assert variance == pytest.approx(0.81 * 0.25 + 0.01, abs=1e-3)


def test_cps_does_not_preserve_the_marginals() -> None:
    """Its noise does not shrink with the step: however short the steps, about (1 + cos) / 2 of the variance is left.

    The variance V at a sigma is where noise and contraction balance: x' = (1 - sigma^2 (1 - cos) / V) x + sigma sin z.
    """
    shrunk = moments_of_sampling("cps", 0.5, 2000, mean=1.5, std=0.5)[1]
    assert shrunk == pytest.approx(0.2125 * (1 + math.cos(math.pi / 4)) / 2, rel=0.01)
    assert moments_of_sampling("cps", 0.0, 2000, mean=1.5, std=0.5)[1] == pytest.approx(0.2125, abs=1e-3)


@pytest.mark.parametrize("num_steps", [1, 3, 10])
def test_cps_is_exact_for_one_image_and_the_sdes_are_too_noisy(num_steps: int) -> None:
    """For a single image the velocity gives the noise exactly, and cps keeps its level for any number of steps."""
    centre, variance = moments_of_sampling("cps", 0.7, num_steps, mean=1.5, std=0.0)
    assert centre == pytest.approx(0.9 * 1.5) and variance == pytest.approx(0.01)
    for sde_type in EXPLORING:
        assert moments_of_sampling(sde_type, 0.7, num_steps, mean=1.5, std=0.0)[1] > 0.012


# --- densities and gradients ----------------------------------------------------------------------------------------


def test_log_density_equals_torch_averaged() -> None:
    x, mean, sigma, _ = states()
    expected = torch.distributions.Normal(mean, sigma.view(-1, 1, 1, 1)).log_prob(x).mean(dim=(1, 2, 3))
    torch.testing.assert_close(log_density(x, mean, sigma), expected)


def test_expected_log_density_is_minus_the_entropy() -> None:
    """Averaged over latent dimensions it does not depend on their number: -1/2 - log std - log(2 pi) / 2."""
    noise = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    std = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    density = log_density(std[:, None] * noise, torch.zeros_like(noise), std)
    torch.testing.assert_close(density, -0.5 - std.log() - 0.5 * math.log(2 * math.pi), rtol=0, atol=0.01)


def test_a_step_with_std_0_is_rejected() -> None:
    with pytest.raises(ValueError, match="only stochastic steps"):
        log_density(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([0.5, 0.0]))


def test_no_gradient_flows_into_the_action() -> None:
    x, mean, std, _ = states()
    x.requires_grad_(), mean.requires_grad_()
    log_density(x, mean, std).sum().backward()
    assert x.grad is None and mean.grad is not None
    torch.testing.assert_close(mean.grad, (x - mean).detach() / std.view(-1, 1, 1, 1) ** 2 / 18)


@pytest.mark.parametrize("sde_type", TYPES)
def test_the_gradient_of_a_steps_log_density(sde_type: SdeType) -> None:
    """From the density back to the velocity, against finite differences."""
    x, velocity, sigma, sigma_next = states()
    action = sample_gaussian(sde_step(x, velocity, sigma, sigma_next, 0.6, sde_type), torch.randn_like(x))

    def density(said: Tensor) -> Tensor:
        step = sde_step(x, said, sigma, sigma_next, 0.6, sde_type)
        return log_density(action, step.mean, step.std)

    said = (velocity + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(density, said)


def test_replay_log_prob_equals_sampled() -> None:
    """In float32: the log-density of the stored action under the same velocities, and under slightly other ones."""
    x, velocity, sigma, sigma_next = (value.float() for value in states())
    step = sde_step(x, velocity, sigma, sigma_next, 0.7)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    action = sample_gaussian(step, noise)
    sampled = log_density(action, step.mean, step.std)
    expected = -0.5 * noise.square().mean(dim=(1, 2, 3)) - step.std.log() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=2e-6)
    moved = sde_step(x, velocity + 0.01, sigma, sigma_next, 0.7)
    assert bool((log_density(action, moved.mean, moved.std) != sampled).all())

"""Sample latents by denoising: from keyed noise along a schedule, whose stochastic steps are the actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.errors import ConfigError, NumericsError
from motet.core.protocols import RandomKey
from motet.core.trajectory import Sampling
from motet.numerics.flow.steps import log_density, ode_step, sample_gaussian, sde_step
from motet.numerics.flow.windows import stochastic_steps
from motet.numerics.transfers import to_device
from motet.policies.diffusion.guidance import GuidanceBranches, Velocity, guided_velocity
from motet.policies.generation.noise import KeyedNormal
from motet.policies.generation.token_listener import denoising_listener


@dataclass(frozen=True, eq=False)
class DiffusionSamples:
    """What B latents became; everything float32 and on the CPU but `clean`, which is where the network is.

    `log_probs` are those of the scoring distribution, `behaviour_log_probs` those that were sampled from, where they
    differ.
    """

    states: Float[Tensor, "B S1 *D"]
    log_probs: Float[Tensor, "B N"]
    behaviour_log_probs: Float[Tensor, "B N"] | None
    stochastic: tuple[bool, ...]
    clean: Float[Tensor, "B *D"]


@torch.no_grad()
def sample_latents(
    network: Velocity,
    branches: Sequence[GuidanceBranches],
    keys: Sequence[RandomKey],
    shape: Sequence[int],
    times: Float[Tensor, "S1"],
    sampling: Sampling,
    *,
    device: torch.device | None = None,
) -> DiffusionSamples:
    """Denoise B latents of one shape along one schedule; latent b has its noise from `keys[b]` alone.

    The network is on `device`; None: where `times` are.
    Raises NumericsError when a state is not finite, ValueError for a window without a step.
    """
    stochastic = stochastic_mask(times, sampling)
    device = device or times.device
    sigmas = to_device(times, device)
    noise = KeyedNormal(keys, shape)
    x = to_device(noise.next(), device)
    states, scored, behaviour = [x], [], []
    listener = denoising_listener()
    for n, noisy in enumerate(stochastic):
        if listener is not None:
            listener()
        sigma, after = sigmas[n].expand(len(x)), sigmas[n + 1].expand(len(x))
        velocity = guided_velocity(network, x, sigma, branches)
        if noisy:
            step = sde_step(x, velocity, sigma, after, sampling.noise_level, sampling.sde_type)
            x_next = sample_gaussian(step, to_device(noise.next(), device)).float()
            log_probs = log_density(x_next, *step)
            if sampling.guidance == "conditional":
                behaviour.append(log_probs)
                own = guided_velocity(network, x, sigma, [b.scoring for b in branches])
                step = sde_step(x, own, sigma, after, sampling.noise_level, sampling.sde_type)
                log_probs = log_density(x_next, *step)
            scored.append(log_probs)
            x = x_next
        else:
            x = ode_step(x, velocity, sigma, after).float()
        states.append(x)
    if not bool(x.isfinite().all()):
        raise NumericsError(
            "A denoised latent is not finite.",
            fix="look for NaN in the weights, lower the learning rate, or sample in float32 (policy.dtype).",
        )
    return DiffusionSamples(
        torch.stack(states, dim=1).cpu(),
        _stack_steps(scored, len(x)),
        _stack_steps(behaviour, len(x)) if sampling.guidance == "conditional" else None,
        stochastic,
        x,
    )


def stochastic_mask(times: Float[Tensor, "S1"], sampling: Sampling) -> tuple[bool, ...]:
    """Which steps are actions: none at temperature 0 or without noise, else those of the window."""
    if sampling.temperature == 0 or sampling.noise_level == 0:
        return (False,) * (len(times) - 1)
    start, size = sampling.sde_window or (0, None)
    try:
        return stochastic_steps(times, start, size)
    except ValueError as error:
        fix = f"use a window within the first {len(times) - 2} steps: the last one is always deterministic."
        raise ConfigError(f"sde_window={sampling.sde_window}: {error}", fix=fix) from None


def _stack_steps(per_step: list[Tensor], rows: int) -> Float[Tensor, "B N"]:
    return torch.stack(per_step, dim=1).cpu() if per_step else torch.zeros(rows, 0)

"""Replay denoising acts: their log-probs under the current weights, with gradient."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.protocols import RandomKey, Replay
from motet.core.trajectory import DenoisingSteps
from motet.numerics.flow.matching import flow_matching_loss, logit_normal_sigmas
from motet.numerics.flow.path import broadcast_like, interpolate
from motet.numerics.flow.steps import log_density, sde_step
from motet.numerics.transfers import to_device
from motet.policies.diffusion.guidance import GuidanceBranches, Velocity, guided_velocity
from motet.policies.generation.noise import KeyedNormal, uniforms


def replay_log_probs(
    network: Velocity,
    acts: Sequence[DenoisingSteps],
    branches: Sequence[GuidanceBranches],
    device: torch.device,
    needs: Collection[str] = (),
) -> list[Replay]:
    """Log-probs `[N]` of each act's stochastic steps, on the schedule that it stores; one batch of the network.

    Offers `mean` and `velocity` `[N, *D]`, `std`, `sigma` and `sigma_next` `[N]`. The log-prob of a dataset's act is
    minus its flow-matching loss (`make_flow_matching_pairs`); it offers no `mean` and no `std`.
    """
    counts = [act.num_actions for act in acts]
    steps = [
        (act.states[:-1][taken], act.states[1:][taken], act.times[:-1][taken], act.times[1:][taken])
        for act, taken in ((act, torch.tensor(act.stochastic)) for act in acts)
    ]
    x, after, sigma, sigma_next = (to_device(torch.cat(part), device) for part in zip(*steps, strict=True))
    each = [own.scoring for own, count in zip(branches, counts, strict=True) for _ in range(count)]
    velocities = guided_velocity(network, x, sigma, each).split(counts)
    of_acts = zip(*(part.split(counts) for part in (x, after, sigma, sigma_next)), strict=True)
    return [_replay_one(*one, needs) for one in zip(acts, velocities, of_acts, strict=True)]


def make_flow_matching_pairs(
    clean: Float[Tensor, "B *D"], keys: Sequence[RandomKey], mean: float = 0.0
) -> list[tuple[Float[Tensor, "2 *D"], Float[Tensor, "2"]]]:
    """States and times of one step to each latent: `[x_sigma, x_0]` at `[sigma, 0]`.

    Noise levels are logit-normal around `sigmoid(mean)` (SD3, arXiv 2403.03206, eq. 19); all noise is keyed.
    """
    sigma = logit_normal_sigmas(uniforms(keys, 1)[:, 0].clamp(1e-4, 1 - 1e-4), mean)
    noise = KeyedNormal(keys, clean.shape[1:]).next()
    clean = clean.float().cpu()
    noisy = interpolate(clean, noise, sigma)
    return [(torch.stack([noisy[n], clean[n]]), torch.stack([sigma[n], torch.zeros(())])) for n in range(len(clean))]


def renoise(act: DenoisingSteps, key: RandomKey) -> DenoisingSteps:
    """The act's final image as a flow-matching target, at a noise level and with noise of the key."""
    ((states, times),) = make_flow_matching_pairs(act.states[-1:], [key])
    return replace(act, states=states, times=times, stochastic=(True,), log_probs=None, behaviour_log_probs=None)


def _replay_one(
    act: DenoisingSteps,
    velocity: Tensor,
    step: tuple[Tensor, Tensor, Tensor, Tensor],
    needs: Collection[str],
) -> Replay:
    x, after, sigma, sigma_next = step
    offers: dict[str, Any] = {"velocity": velocity, "sigma": sigma, "sigma_next": sigma_next}
    if act.log_probs is None:
        noise = after + (x - after) / broadcast_like(sigma, x)
        log_probs = -flow_matching_loss(velocity, after, noise)
    else:
        gaussian = sde_step(x, velocity, sigma, sigma_next, act.sampling.noise_level, act.sampling.sde_type)
        log_probs = log_density(after, *gaussian)
        offers |= gaussian._asdict()
    return Replay(log_probs, {name: offers[name] for name in needs if name in offers})

"""A denoising step as a Gaussian: its mean, its std, and the log-density of the sampled next state.

`x` is the state at `sigma`, `velocity` the network's output there, `sigma_next < sigma` the end of the step. With
`D = sigma_next - sigma`, the ODE's Euler step is `x + v D`. A *stochastic* step is an action; three are published:

    flow_sde   Flow-GRPO (arXiv 2505.05470)
    dance_sde  DanceGRPO (arXiv 2505.07818)
    cps        coefficients-preserving sampling (arXiv 2509.05952)

At noise level 0 each of them is the Euler step. Sampling and replay call the same function with the sigmas stored with
the act, so the replayed density is the sampled one (invariant 1). Rows may have different sigmas. Everything is
computed in at least float32: the means of similar policies differ by less than the precision of bfloat16.

The last step is not an action. A step to sigma 0 yields the image: cps adds no noise there (its density is a point
mass), while flow_sde would leave noise of `a sigma / sqrt(1 - sigma)` and dance_sde of `a sqrt(sigma)` in the image
that rewards see. So the last step is an `ode_step` (`motet.numerics.flow.windows.stochastic_steps`). Flow-GRPO,
DanceGRPO and MixGRPO leave it out of their losses too; UniRL-Zero's code trains it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from motet.numerics.flow.path import broadcast_like, clean_estimate, noise_estimate, row_mean


class GaussianStep(NamedTuple):
    """The distribution of the next state: `N(mean, std^2)` in every latent dimension; one std per step."""

    mean: Float[Tensor, "A *D"]
    std: Float[Tensor, "A"]


def ode_step(
    x: Float[Tensor, "A *D"], velocity: Float[Tensor, "A *D"], sigma: Float[Tensor, "A"], sigma_next: Float[Tensor, "A"]
) -> Float[Tensor, "A *D"]:
    """`x + v (sigma_next - sigma)`: the Euler step of diffusers' `FlowMatchEulerDiscreteScheduler`."""
    x, velocity, sigma, sigma_next = _promote(x, velocity, sigma, sigma_next)
    return x + velocity * broadcast_like(sigma_next - sigma, x)


def sde_step(
    x: Float[Tensor, "A *D"],
    velocity: Float[Tensor, "A *D"],
    sigma: Float[Tensor, "A"],
    sigma_next: Float[Tensor, "A"],
    noise_level: float,
    sde_type: str = "flow_sde",
) -> GaussianStep:
    """The named stochastic step. `noise_level` is the papers' `a` or `eta`: 0.7 (Flow-GRPO), 0.3 (DanceGRPO).

    Raises ValueError if it is negative, or above 1 for cps.
    """
    if noise_level < 0:
        raise ValueError(f"noise_level is {noise_level} and must not be negative; 0 is the ODE.")
    return _STEPS[sde_type](*_promote(x, velocity, sigma, sigma_next), noise_level)


def _flow_sde(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, noise_level: float) -> GaussianStep:
    """Flow-GRPO's step: diffusion `s = a sqrt(sigma / (1 - sigma))` (arXiv 2505.05470).

    At sigma 1 the formula divides by zero. Like Flow-GRPO's code, use the schedule's second sigma there, which is the
    `sigma_next` of a step from sigma 1.
    """
    safe_sigma = torch.where(sigma == 1, sigma_next, sigma)
    return _marginal_preserving_step(x, velocity, sigma, sigma_next, noise_level * (sigma / (1 - safe_sigma)).sqrt())


def _dance_sde(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, noise_level: float) -> GaussianStep:
    """DanceGRPO's step: the same diffusion `s = eta` at every sigma (arXiv 2505.07818; `flux_step` of its code)."""
    return _marginal_preserving_step(x, velocity, sigma, sigma_next, torch.full_like(sigma, noise_level))


def _cps(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, noise_level: float) -> GaussianStep:
    """Coefficients-preserving sampling: DDIM's idea for flows (arXiv 2509.05952). `noise_level` is in [0, 1].

        mean = (1 - sigma') x_0^ + sigma' cos(eta pi / 2) noise^      std = sigma' sin(eta pi / 2)

    with `x_0^ = x - sigma v` and `noise^ = x + (1 - sigma) v`. Image and noise have the coefficients of the path at
    `sigma'`, so unlike the SDE steps it adds no noise that the network does not expect there. The price: its noise does
    not shrink with the step size, so more steps do not converge to the marginals of the flow; the variance stays below
    theirs, by a factor of about `(1 + cos(eta pi / 2)) / 2` for normal images.
    """
    if noise_level > 1:
        raise ValueError(f"noise_level is {noise_level} and must be at most 1 for cps.")
    angle = noise_level * math.pi / 2
    kept_noise = broadcast_like(sigma_next * math.cos(angle), x) * noise_estimate(x, velocity, sigma)
    mean = (1 - broadcast_like(sigma_next, x)) * clean_estimate(x, velocity, sigma) + kept_noise
    return GaussianStep(mean, sigma_next * math.sin(angle))


def sample_gaussian(step: GaussianStep, noise: Float[Tensor, "A *D"]) -> Float[Tensor, "A *D"]:
    """`mean + std noise`: the action, from standard normal noise."""
    return step.mean + broadcast_like(step.std, step.mean) * noise


def log_density(
    x_next: Float[Tensor, "A *D"], mean: Float[Tensor, "A *D"], std: Float[Tensor, "A"]
) -> Float[Tensor, "A"]:
    """Log-prob of each step: `-(x' - mean)^2 / (2 std^2) - log std - log(2 pi) / 2`, *averaged* over its dimensions.

    Averaged, not summed (Flow-GRPO's convention): a summed log-ratio grows with the latent's 10^4 to 10^6 dimensions,
    and its exponential over- or underflows. The average is the log-density per dimension, so the ratios of a small
    update are within about 1e-4 of 1, and the clip range must be as small. No gradient flows into `x_next`.

    CPS's code drops `1 / (2 std^2)` as if it were constant; here every step type has its true density. On the
    CPU raises ValueError if a std is 0, as a deterministic step has no density; elsewhere the result is not finite,
    because the check would wait for the device.
    """
    if std.device.type == "cpu" and not bool((std > 0).all()):
        raise ValueError("a step with std 0 has no density: only stochastic steps are actions.")
    dtype = torch.promote_types(mean.dtype, torch.float32)
    scale = std.to(dtype)
    squares = row_mean((x_next.detach().to(dtype) - mean.to(dtype)).square())
    return -squares / (2 * scale.square()) - scale.log() - 0.5 * math.log(2 * math.pi)


def _marginal_preserving_step(
    x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, diffusion: Tensor
) -> GaussianStep:
    """The Euler-Maruyama step of `dx = (v - s^2 score / 2) dsigma + s dw`, whose marginals are the ODE's for any s.

    With the score `-(x + (1 - sigma) v) / sigma` (Song et al., arXiv 2011.13456, section 4.3; here time runs down):

        mean = x (1 + s^2 D / (2 sigma)) + v (1 + s^2 (1 - sigma) / (2 sigma)) D
        std  = s sqrt(-D)
    """
    change = sigma_next - sigma
    score_weight = diffusion.square() / (2 * sigma)
    keep, move = 1 + score_weight * change, (1 + score_weight * (1 - sigma)) * change
    return GaussianStep(x * broadcast_like(keep, x) + velocity * broadcast_like(move, x), diffusion * (-change).sqrt())


def _promote(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All in the wider of the dtypes of `x` and `velocity`, at least float32."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, velocity.dtype), torch.float32)
    return x.to(dtype), velocity.to(dtype), sigma.to(dtype), sigma_next.to(dtype)


_STEPS = {"flow_sde": _flow_sde, "dance_sde": _dance_sde, "cps": _cps}

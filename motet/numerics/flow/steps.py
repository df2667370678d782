"""One denoising step as a Gaussian: its mean, its std, and the density of where it went.

`x` is the state at `sigma`, `velocity` what the network says there, `sigma_next < sigma` where the step goes. With
`D = sigma_next - sigma`, the ODE's Euler step is `x + v D`. A *stochastic* step is an action; three are published:

    flow_sde   Flow-GRPO (arXiv 2505.05470)
    dance_sde  DanceGRPO (arXiv 2505.07818)
    cps        coefficients-preserving sampling (arXiv 2509.05952)

At noise level 0 each of them is the Euler step. Sampling and replay call the same function with the sigmas stored with
the act, so the density that was sampled is the one that is replayed (law 1). Rows may have different sigmas.
Everything is computed in float32 at least: the means of neighbouring policies differ in digits that bfloat16 lacks.

What is an action. A step to sigma 0 is the picture itself: cps adds no noise there (its density is a point's), while
flow_sde would leave noise of `a sigma / sqrt(1 - sigma)` and dance_sde of `a sqrt(sigma)` in the picture that rewards
see. So the last step is walked by `ode_step` and is no action (`motet.numerics.flow.windows.stochastic_steps`).
Flow-GRPO, DanceGRPO and MixGRPO leave it out of their losses too; UniRL-Zero's code trains it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from motet.numerics.flow.path import clean_estimate, noise_estimate, row_mean, spread


class GaussianStep(NamedTuple):
    """The distribution of the next state: `N(mean, std^2)` in every latent dimension; one std per step."""

    mean: Float[Tensor, "A *D"]
    std: Float[Tensor, "A"]


def ode_step(
    x: Float[Tensor, "A *D"], velocity: Float[Tensor, "A *D"], sigma: Float[Tensor, "A"], sigma_next: Float[Tensor, "A"]
) -> Float[Tensor, "A *D"]:
    """`x + v (sigma_next - sigma)`: Euler's step, as diffusers' `FlowMatchEulerDiscreteScheduler` takes it."""
    x, velocity, sigma, sigma_next = _widened(x, velocity, sigma, sigma_next)
    return x + velocity * spread(sigma_next - sigma, x)


def sde_step(
    x: Float[Tensor, "A *D"],
    velocity: Float[Tensor, "A *D"],
    sigma: Float[Tensor, "A"],
    sigma_next: Float[Tensor, "A"],
    noise_level: float,
    sde_type: str = "flow_sde",
) -> GaussianStep:
    """The named stochastic step. `noise_level` is the papers' `a` or `eta`: 0.7 (Flow-GRPO), 0.3 (DanceGRPO)."""
    if noise_level < 0:
        raise ValueError(f"noise_level is {noise_level}: it cannot be negative; 0 is the ODE.")
    return _STEPS[sde_type](*_widened(x, velocity, sigma, sigma_next), noise_level)


def _flow_sde(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, noise_level: float) -> GaussianStep:
    """Flow-GRPO's step: diffusion `s = a sqrt(sigma / (1 - sigma))` (arXiv 2505.05470).

    At sigma 1 the formula divides by zero. Flow-GRPO's code puts the schedule's second sigma in its place, which is
    where a step from sigma 1 goes: `sigma_next`.
    """
    guarded = torch.where(sigma == 1, sigma_next, sigma)
    return _marginal_preserving_step(x, velocity, sigma, sigma_next, noise_level * (sigma / (1 - guarded)).sqrt())


def _dance_sde(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, noise_level: float) -> GaussianStep:
    """DanceGRPO's step: the same diffusion `s = eta` at every sigma (arXiv 2505.07818; `flux_step` of its code)."""
    return _marginal_preserving_step(x, velocity, sigma, sigma_next, torch.full_like(sigma, noise_level))


def _cps(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, noise_level: float) -> GaussianStep:
    """Coefficients-preserving sampling: DDIM's idea for flows (arXiv 2509.05952). `noise_level` is in [0, 1].

        mean = (1 - sigma') x_0^ + sigma' cos(eta pi / 2) noise^      std = sigma' sin(eta pi / 2)

    with `x_0^ = x - sigma v` and `noise^ = x + (1 - sigma) v`. Picture and noise keep the coefficients that the path
    has at `sigma'`, so no step adds noise that the network does not expect there, as the SDEs' steps do. The price:
    its noise does not shrink with the step, so more steps do not converge to the marginals of the flow; the variance
    stays below theirs, by about `(1 + cos(eta pi / 2)) / 2` for normal pictures.
    """
    if noise_level > 1:
        raise ValueError(f"noise_level is {noise_level}: cps takes 0 to 1, where all noise is new.")
    angle = noise_level * math.pi / 2
    kept = spread(sigma_next * math.cos(angle), x) * noise_estimate(x, velocity, sigma)
    mean = (1 - spread(sigma_next, x)) * clean_estimate(x, velocity, sigma) + kept
    return GaussianStep(mean, sigma_next * math.sin(angle))


def draw(step: GaussianStep, noise: Float[Tensor, "A *D"]) -> Float[Tensor, "A *D"]:
    """`mean + std noise`: the action, from standard normal noise."""
    return step.mean + spread(step.std, step.mean) * noise


def log_density(
    x_next: Float[Tensor, "A *D"], mean: Float[Tensor, "A *D"], std: Float[Tensor, "A"]
) -> Float[Tensor, "A"]:
    """Log-prob of each step: `-(x' - mean)^2 / (2 std^2) - log std - log(2 pi) / 2`, *averaged* over its dimensions.

    Averaged, not summed (Flow-GRPO's convention): a summed log-ratio grows with the latent's 10^4 to 10^6 dimensions
    and its exponential says nothing. The mean is the log-density divided by the number of dimensions, so the ratios
    of a small update lie within about 1e-4 of 1, and so must the clip range. No gradient flows into `x_next`.

    CPS's code drops `1 / (2 std^2)` as if it were a constant; here every step type has its true density. Raises
    ValueError where std is 0: a step without noise is no action and has no density.
    """
    if not bool((std > 0).all()):
        raise ValueError("a step with std 0 has no density: only stochastic steps are actions.")
    wide = torch.promote_types(mean.dtype, torch.float32)
    scale = std.to(wide)
    squares = row_mean((x_next.detach().to(wide) - mean.to(wide)).square())
    return -squares / (2 * scale.square()) - scale.log() - 0.5 * math.log(2 * math.pi)


def _marginal_preserving_step(
    x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, diffusion: Tensor
) -> GaussianStep:
    """Euler-Maruyama's step of `dx = (v - s^2 score / 2) dsigma + s dw`, whose marginals are the ODE's for any s.

    With the score `-(x + (1 - sigma) v) / sigma` (Song et al., arXiv 2011.13456, section 4.3; here time runs down):

        mean = x (1 + s^2 D / (2 sigma)) + v (1 + s^2 (1 - sigma) / (2 sigma)) D
        std  = s sqrt(-D)
    """
    change = sigma_next - sigma
    pull = diffusion.square() / (2 * sigma)
    keep, move = 1 + pull * change, (1 + pull * (1 - sigma)) * change
    return GaussianStep(x * spread(keep, x) + velocity * spread(move, x), diffusion * (-change).sqrt())


def _widened(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Everything in the widest of the states' types, float32 at least."""
    wide = torch.promote_types(torch.promote_types(x.dtype, velocity.dtype), torch.float32)
    return x.to(wide), velocity.to(wide), sigma.to(wide), sigma_next.to(wide)


_STEPS = {"flow_sde": _flow_sde, "dance_sde": _dance_sde, "cps": _cps}

"""A penalty on the distance of a flow policy from its reference: the mean squared error of the velocities.

The exact KL of a stochastic step is `motet.numerics.kl.gaussian_kl` of the step's means. In terms of velocities, for
flow_sde (`D = sigma' - sigma`, `a` the noise level, sigma below 1), it is

    KL = (mean - mean_ref)^2 / (2 std^2) = (1 + a^2 / 2)^2 (-D) (1 - sigma) / (2 a^2 sigma) * (v - v_ref)^2

whose weight vanishes towards sigma 1, where it hardly penalises drift. UniGRPO therefore penalises the velocities
themselves. (Flow-GRPO's code divides by `s^2` instead of `std^2 = s^2 (-D)`, so a beta of its recipes applies to this
KL times the length of the step.)
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from motet.numerics.flow.path import at_least_float32, row_mean


def velocity_mse(velocity: Float[Tensor, "A *D"], reference_velocity: Float[Tensor, "A *D"]) -> Float[Tensor, "A"]:
    """`(v - v_ref)^2`, averaged over the latent dimensions; the same weight at every sigma (UniGRPO, arXiv 2603.23500).

    Defined for every step, stochastic or not. The paper uses the squared norm, which is this times the number of
    dimensions: scale its weight (1.5e-5) accordingly. No gradient flows into the reference.
    """
    return row_mean((at_least_float32(velocity) - at_least_float32(reference_velocity.detach())).square())

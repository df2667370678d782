"""How far a flow policy is from its reference: the velocities' mean squared error, beside the latent KL.

The exact KL of a stochastic step is `motet.numerics.kl.gaussian_kl` of the step's means. Written with velocities, for
flow_sde (`D = sigma' - sigma`, `a` the noise level, sigma below 1), it is

    KL = (mean - mean_ref)^2 / (2 std^2) = (1 + a^2 / 2)^2 (-D) (1 - sigma) / (2 a^2 sigma) * (v - v_ref)^2

whose weight vanishes towards sigma 1: there the policy may drift almost for nothing. UniGRPO therefore penalises the
velocities themselves. (Flow-GRPO's code divides by `s^2` instead of `std^2 = s^2 (-D)`: a beta of its recipes is for
this KL times the step's length.)
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from motet.numerics.flow.path import row_mean, wide


def velocity_mse(velocity: Float[Tensor, "A *D"], reference_velocity: Float[Tensor, "A *D"]) -> Float[Tensor, "A"]:
    """`(v - v_ref)^2`, averaged over the latent dimensions; the same weight at every sigma (UniGRPO, arXiv 2603.23500).

    Defined for every step, stochastic or not. The paper writes the squared norm, which is this times the number of
    dimensions: scale its weight (1.5e-5) accordingly. No gradient flows into the reference.
    """
    return row_mean((wide(velocity) - wide(reference_velocity.detach())).square())

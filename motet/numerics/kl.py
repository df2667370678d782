"""Per-action estimators of KL(policy || reference) from the log-probs of actions that the policy sampled.

Source: Schulman, "Approximating KL divergence" (2020), http://joschu.net/blog/kl-approx.html. With
`d = log reference - log policy`:

    k1 = -d             unbiased, can be negative
    k2 = d^2 / 2        biased, low variance
    k3 = e^d - 1 - d    unbiased, never negative; TRL's and CoRL's

As a *loss* on on-policy samples their gradients differ in expectation: k1's is zero, k2's is that of
KL(policy || reference), k3's is that of KL(reference || policy). `ratio * k3`, TRL's `use_bias_correction_kl`
(DeepSeek-V3.2, arXiv 2512.02556), has the value of k3 and the gradient of k2.

A flow step is a Gaussian whose mean the policy predicts, so its KL is exact: `gaussian_kl`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]


def k1(log_probs: Float[Tensor, "*A"], reference_log_probs: Float[Tensor, "*A"]) -> Float[Tensor, "*A"]:
    """`log policy - log reference`: unbiased, can be negative; its expected gradient on-policy is zero."""
    return log_probs - reference_log_probs.detach()


def k2(log_probs: Float[Tensor, "*A"], reference_log_probs: Float[Tensor, "*A"]) -> Float[Tensor, "*A"]:
    """`(log policy - log reference)^2 / 2`: biased in value, but its gradient on-policy is the KL's."""
    return (log_probs - reference_log_probs.detach()).square() / 2


def k3(log_probs: Float[Tensor, "*A"], reference_log_probs: Float[Tensor, "*A"]) -> Float[Tensor, "*A"]:
    """`e^d - 1 - d` with `d = log reference - log policy`: unbiased, never negative."""
    difference = reference_log_probs.detach() - log_probs
    return torch.expm1(difference) - difference  # expm1: e^d - 1 loses all digits if the policies almost agree


def kl(
    log_probs: Float[Tensor, "*A"], reference_log_probs: Float[Tensor, "*A"], estimator: KLEstimator = "k3"
) -> Float[Tensor, "*A"]:
    """KL per action by the named estimator, in nats; no gradient flows into the reference."""
    return _ESTIMATORS[estimator](log_probs, reference_log_probs)


def gaussian_kl(
    mean: Float[Tensor, "A *D"], reference_mean: Float[Tensor, "A *D"], std: Float[Tensor, "A"]
) -> Float[Tensor, "A"]:
    """`(mean - reference mean)^2 / (2 std^2)`, averaged over the latent dimensions like the log-density of a flow step.

    The KL of two Gaussians with equal standard deviation (Flow-GRPO, arXiv 2505.05470). `std` is per step.
    """
    return (mean - reference_mean.detach()).square().flatten(1).mean(dim=1) / (2 * std.square())


_ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}

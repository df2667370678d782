"""GRPO-Guard: importance ratios of denoising steps for which one clip range fits every step.

Wang et al., arXiv 2510.22319. For an action `x' = mean_old + std noise` the averaged log-ratio is

    log r = mean_d( -(mean - mean_old)^2 / (2 std^2) + (mean - mean_old) noise / std )

Its first part is never positive, so ratios are mostly below 1 and a positive advantage is never clipped; and its
deviation goes with `1 / std`, so no one clip range fits all steps. RatioNorm removes both: it adds the first part back
and multiplies by std. What remains is `mean_d((mean - mean_old) noise)`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from motet.config.problem import Problem
from motet.config.schema import Recipe
from motet.core.registry import register
from motet.numerics.flow.path import row_mean
from motet.training.batches import PackedBatch
from motet.training.losses.base import Needs
from motet.training.losses.grpo import GRPO
from motet.training.losses.policy_gradient import next_states


@register("loss", "grpo_guard")
class GRPOGuard(GRPO):
    """GRPO of denoising steps with normalised ratios and weighted steps, for flow_sde."""

    def needs(self, with_reference: bool) -> Needs:
        """Current means, and those that the steps were sampled from."""
        kl = super().needs(with_reference)
        current = (*kl.current, *(name for name in ("mean", "std") if name not in kl.current), "sigma", "sigma_next")
        return Needs(current, old=("mean",), reference=kl.reference)

    def ratios(self, batch: PackedBatch) -> Float[Tensor, "A"]:
        mean, std = batch.extras["mean"], batch.extras["std"]
        return normalized_log_ratios(next_states(batch), mean, batch.old("mean"), std).exp()

    def step_weights(self, batch: PackedBatch) -> Float[Tensor, "A"]:
        return step_weights(batch.extras["sigma"], batch.extras["sigma_next"])

    def check(self, recipe: Recipe, key: str) -> Iterator[Problem]:
        yield from super().check(recipe, key)
        sde_type = recipe.sampling.denoising.sde_type
        if not self.of_denoising:
            text = f"grpo_guard is a loss of denoising acts, and this one is for {self.kind} acts."
            yield Problem(key, text, "set algorithm.per_kind.denoising.loss to grpo_guard in its place.")
        elif sde_type != "flow_sde":
            text = f"grpo_guard weights the steps of flow_sde, but sampling.denoising.sde_type is {sde_type}."
            yield Problem(key, text, "set sampling.denoising.sde_type to flow_sde, or choose another loss.")


def normalized_log_ratios(
    x_next: Float[Tensor, "A *D"],
    mean: Float[Tensor, "A *D"],
    old_mean: Float[Tensor, "A *D"],
    std: Float[Tensor, "A"],
) -> Float[Tensor, "A"]:
    """RatioNorm: `std (log p - log p_old + mean_d((mean - mean_old)^2) / (2 std^2))`; its exponential is the ratio.

    Computed as `mean_d((mean - mean_old)(x' - mean_old)) / std`, which is the same without subtracting two log-probs:
    the ratios differ from 1 by as little as 1e-6, which float32 log-probs cannot tell, and on-policy the ratio is 1
    exactly. `x_next` are the states that were sampled, `old_mean` the means that they were sampled from. No gradient
    flows into either.
    """
    old = old_mean.detach().to(mean)
    return row_mean((mean - old) * (x_next.detach().to(mean) - old)) / std.to(mean)


def step_weights(sigma: Float[Tensor, "A"], sigma_next: Float[Tensor, "A"]) -> Float[Tensor, "A"]:
    """`1 / (sigma - sigma_next)`: what each step's policy loss is multiplied by (GRPO-Guard's gradient reweighting).

    The gradient of a normalised log-ratio by the velocity is `dmean/dv noise`, and for flow_sde
    `dmean/dv = (1 + a^2 / 2)(sigma_next - sigma)` at every sigma below 1. So with this weight each step pulls equally.
    It does not equalise dance_sde or cps. Clip before weighting, as the weight does not belong to the ratio.
    """
    return torch.reciprocal(sigma - sigma_next)

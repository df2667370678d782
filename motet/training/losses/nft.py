"""DiffusionNFT: a loss of the forward process with rewards, without any ratio.

Zheng et al., arXiv 2509.16117. No likelihood and no stored step is needed: only the final image `x_0` of an act,
sampled by any solver under an old policy, and its advantage. Like flow matching, it noises the image to `x_sigma` and
needs velocities there. Two implicit policies are built from the velocities of the trained and the old policy, and
the image is a target of one or the other, in proportion to how good it is:

    v+ = (1 - beta) v_old + beta v        v- = (1 + beta) v_old - beta v
    loss = r |v+ - (noise - x_0)|^2 + (1 - r) |v- - (noise - x_0)|^2

Its optimum is `v_old + (2 / beta) E[r | x_sigma] (v_good - v_old)`, with `v_good` the velocity of the old policy's
images weighted by r: the direction of good images, without a gradient of the reward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor

from motet.config.problem import Problem
from motet.config.schema import Recipe
from motet.core.registry import register
from motet.core.trajectory import DenoisingSteps
from motet.numerics.aggregation import mean_of_acts
from motet.numerics.flow.path import at_least_float32, broadcast_like, row_mean, target_velocity
from motet.numerics.flow.penalties import velocity_mse
from motet.training.batches import DeviceStats, PackedBatch
from motet.training.losses.base import Loss, LossSettings, Needs, Sample
from motet.training.losses.policy_gradient import next_states
from motet.training.losses.renoising import renoise

SMALLEST_SCALE = 1e-5
"""Floor of the adaptive normaliser: the released code's."""


class NFTSettings(LossSettings):
    """Options of DiffusionNFT."""

    beta: PositiveFloat = 1.0
    """How near the implicit policies are to the old one: smaller goes further."""
    kl_estimator: Literal["velocity_mse"] = "velocity_mse"
    """What the coefficient of the KL weighs: no stochastic step is replayed, so there is no KL of one."""


@register("loss", "nft")
class NFT(Loss[NFTSettings]):
    """DiffusionNFT's loss of every final image, renoised; a mean over acts."""

    Settings = NFTSettings
    has_kl = True

    @property
    def zero_advantage_has_gradient(self) -> bool:
        return True  # r is 1/2

    @property
    def corrects_rollouts(self) -> bool:
        return True  # only final images are used

    def needs(self, with_reference: bool) -> Needs:
        return Needs(("velocity", "sigma"), old=("velocity",), reference=("velocity",))

    def prepare(self, samples: Sequence[Sample]) -> list[Sample]:
        """The final images, each at a noise level and with noise named by its key."""
        return [replace(one, act=renoise(_denoising(one.act), one.key)) for one in samples]

    def check(self, recipe: Recipe, key: str) -> Iterator[Problem]:
        if not self.of_denoising:
            text = f"nft is a loss of denoising acts, and this one is for {self.kind} acts."
            yield Problem(key, text, "set algorithm.per_kind.denoising.loss to nft in its place.")

    def __call__(self, batch: PackedBatch) -> tuple[Tensor, DeviceStats]:
        velocity, sigma, report = batch.extras["velocity"], batch.extras["sigma"], DeviceStats()
        clean = next_states(batch)
        noisy = batch.like_log_probs(torch.cat([_denoising(act).states[:1] for act in batch.acts]))
        noise = clean + (noisy - clean) / broadcast_like(sigma, clean)
        r, old = optimality_prob(batch.advantages), batch.old("velocity")
        per_act = nft_loss(velocity, old, clean, noise, r, beta=self.settings.beta, sigma=sigma)
        if batch.has_reference:
            divergence = velocity_mse(velocity, batch.reference("velocity"))
            report["kl"] = divergence.detach().sum()
            per_act = per_act + self.beta * divergence
        return (mean_of_acts(batch.owner, batch.lengths, batch.counts) * per_act).sum(), report


def optimality_prob(advantages: Float[Tensor, "B"], max_advantage: float = 5.0) -> Float[Tensor, "B"]:
    """`r = 1/2 + clip(A / A_max, -1, 1) / 2` in [0, 1]: the probability that an image is a good one.

    `max_advantage` 5 is the released code's, for advantages in units of standard deviations.
    """
    return 0.5 + 0.5 * (advantages / max_advantage).clamp(-1.0, 1.0)


def implicit_velocities(
    velocity: Float[Tensor, "B *D"], old_velocity: Float[Tensor, "B *D"], beta: float
) -> tuple[Float[Tensor, "B *D"], Float[Tensor, "B *D"]]:
    """The positive and the negative policy's velocity; no gradient flows into the old one.

    Their mean is the old velocity. `beta` 1 or 0.1 in the released code; a smaller
    one goes further, as the optimum's `2 / beta` says.
    """
    old = at_least_float32(old_velocity.detach())
    step = beta * (at_least_float32(velocity) - old)
    return old + step, old - step


def nft_loss(
    velocity: Float[Tensor, "B *D"],
    old_velocity: Float[Tensor, "B *D"],
    clean: Float[Tensor, "B *D"],
    noise: Float[Tensor, "B *D"],
    r: Float[Tensor, "B"],
    *,
    beta: float,
    sigma: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, "B"]:
    """The loss of each image, averaged over its dimensions; `r` is its `optimality_prob`.

    With `sigma`, both terms have the paper's adaptive weight: the error of the *image*, `sigma` times that of the
    velocity, squared and divided by its own mean size, so that no noise level dominates. That is
    `sigma mean_d(e^2) / mean_d(|e|)`, where no gradient flows through the denominator.
    The released code multiplies all by `max_advantage / beta`; leave that to the weight of the term.
    """
    target = target_velocity(clean, noise)
    errors = [implicit - target for implicit in implicit_velocities(velocity, old_velocity, beta)]
    positive, negative = (_squared(error) if sigma is None else _adaptive(error, sigma) for error in errors)
    return r * positive + (1 - r) * negative


def _squared(error: Float[Tensor, "B *D"]) -> Float[Tensor, "B"]:
    return row_mean(error.square())


def _adaptive(error: Float[Tensor, "B *D"], sigma: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """The image's squared error over its detached mean absolute error."""
    image_error = broadcast_like(sigma, error) * error
    scale = row_mean(image_error.detach().abs()).clamp(min=SMALLEST_SCALE)
    return row_mean(image_error.square()) / scale


def _denoising(act: object) -> DenoisingSteps:
    assert isinstance(act, DenoisingSteps)
    return act

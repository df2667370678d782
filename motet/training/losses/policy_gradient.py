"""What all policy-gradient losses share: importance ratios, KL to the reference, entropy bonus, and what they report.

    loss = sum_a w_a (L_a + beta KL_a) - entropy_bonus mean_a H_a

A loss of this family says what the term `L_a` of an action is, and the weights `w_a`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from motet.config.problem import Problem
from motet.config.schema import Recipe
from motet.core.errors import NumericsError
from motet.core.trajectory import Act, DenoisingSteps, TextAct
from motet.numerics.aggregation import Aggregation
from motet.numerics.flow.penalties import velocity_mse
from motet.numerics.kl import KLEstimator, gaussian_kl, kl
from motet.numerics.ratios import importance_ratios
from motet.training.batches import DeviceStats, PackedBatch, Stats
from motet.training.losses.base import Loss, LossSettings, Needs

OF_TOKENS, OF_DENOISING = ("k1", "k2", "k3"), ("gaussian", "velocity_mse")
"""What `kl_estimator` may be. As an option of `algorithm.loss` it concerns the kinds of act that it fits."""
GAP = "train_rollout_logprob_diff"
"""The metric of the distance between replayed and sampled log-probs."""


class PolicyGradientSettings(LossSettings):
    """Options of every policy-gradient loss. Names and defaults are TRL's where TRL has one."""

    importance_sampling_level: Literal["token", "sequence"] = "token"
    """`sequence` is GSPO's length-normalised sequence ratio."""
    kl_estimator: Literal["k1", "k2", "k3", "gaussian", "velocity_mse"] | None = None
    """What beta weighs. Tokens: k1, k2 or k3 (Schulman 2020); None: k3. Denoising steps: gaussian, the exact KL, or
    velocity_mse, the velocities' squared distance (UniGRPO, arXiv 2603.23500); None: gaussian."""
    kl_bias_correction: bool = False
    """Multiply the KL of tokens by the ratio (DeepSeek-V3.2), on policy too: TRL's use_bias_correction_kl."""
    top_entropy_quantile: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of the tokens, those of the highest entropy in the step, that keep their policy loss (80/20 rule: 0.2)."""
    mask_truncated_completions: bool = False
    """Leave texts that were cut off out of the loss (DAPO); their rewards stay in the advantages."""
    entropy_bonus: NonNegativeFloat = 0.0
    """Coefficient of the mean entropy of all tokens, however the loss is aggregated (TRL's entropy_coef)."""

    def problems(self, key: str) -> Iterator[Problem]:
        if self.kl_bias_correction and self.kl_estimator == "k2":
            text = "weights the KL by the ratio, but k2 has the gradient of the reverse KL without it."
            yield Problem(f"{key}.kl_bias_correction", text, "set it to false, or kl_estimator to k3.")


S = TypeVar("S", bound=PolicyGradientSettings)


@dataclass(frozen=True, eq=False)
class Actions:
    """The actions of some whole acts: log-probs now and when they were sampled, ratios, and advantages.

    `ratios` have a gradient, the old log-probs have none. `num_acts`: acts in this micro-batch, the B of `owner`.
    """

    log_probs: Float[Tensor, "A"]
    old_log_probs: Float[Tensor, "A"]
    ratios: Float[Tensor, "A"]
    advantages: Float[Tensor, "A"]
    owner: Int[Tensor, "A"]
    num_acts: int


class PerAction(NamedTuple):
    """The term of each action, and which actions were clipped; None for a loss that does not clip."""

    loss: Float[Tensor, "A"]
    clipped: Bool[Tensor, "A"] | None = None


class PolicyGradientLoss(Loss[S]):
    """A loss of importance ratios and advantages, for acts that the policy sampled.

    The KL of denoising steps is exact, from the Gaussians' means. Their entropy does not depend on the weights: it has
    no bonus. Under `top_entropy_quantile` the term and the bonus are those of the actions of the highest entropy alone.
    Raises NumericsError when, before the weights move, replayed log-probs are too far from the sampled ones.
    """

    Settings = PolicyGradientSettings
    has_kl = True
    aggregation: ClassVar[Aggregation]
    """The weights `w_a`."""

    @abstractmethod
    def per_action(self, actions: Actions) -> PerAction:
        """The term `L_a` of every action."""

    @property
    def zero_advantage_has_gradient(self) -> bool:
        return self.settings.entropy_bonus > 0

    @property
    def entropy_quantile(self) -> float:
        return self.settings.top_entropy_quantile

    def needs(self, with_reference: bool) -> Needs:
        """Entropy is always asked for: it is among the metrics that people look at."""
        if not self.of_denoising or not with_reference:
            return Needs(("entropy",))
        if self.settings.kl_estimator == "velocity_mse":
            return Needs(("entropy", "velocity"), reference=("velocity",))
        return Needs(("entropy", "mean", "std"), reference=("mean", "std"))

    def is_masked(self, act: Act) -> bool:
        return self.settings.mask_truncated_completions and isinstance(act, TextAct) and not act.finished

    def check(self, recipe: Recipe, key: str) -> Iterator[Problem]:
        estimator = self.settings.kl_estimator
        own = self.kind in recipe.algorithm.per_kind and key.startswith("algorithm.per_kind.")
        if own and estimator is not None and (estimator in OF_DENOISING) != self.of_denoising:
            known = ", ".join(OF_DENOISING if self.of_denoising else OF_TOKENS)
            text = f"is {estimator}, but of {self.kind} acts it must be one of {known}."
            yield Problem(f"{key}.kl_estimator", text, "correct it, or remove it.")

    def __call__(self, batch: PackedBatch) -> tuple[Tensor, DeviceStats]:
        """The loss; reports ratios, clipping, the gap to the sampled log-probs, entropy and KL."""
        report = _gap_report(batch)
        ratios = self.ratios(batch)
        old, owner = batch.old_log_probs, batch.owner
        term = self.per_action(Actions(batch.log_probs, old, ratios, batch.advantages, owner, len(batch.positions)))
        per_action = term.loss * self.step_weights(batch)
        report |= _ratio_report(ratios.detach())
        if term.clipped is not None:
            report["clip_fraction"] = term.clipped.sum()
        kept = batch.high_entropy
        if kept is not None:
            per_action = per_action * kept
        if batch.has_reference:
            divergence = self._divergence(batch)
            report["kl"] = divergence.detach().sum()
            if self.settings.kl_bias_correction and not self.of_denoising:
                divergence = ratios * divergence
            per_action = per_action + self.beta * divergence
        loss = (type(self).aggregation(owner, batch.lengths, batch.counts) * per_action).sum()
        entropy = batch.extras.get("entropy")
        if entropy is not None:
            report["entropy"] = entropy.sum()
            if self.settings.entropy_bonus:
                loss = loss - self.settings.entropy_bonus * _mean_entropy(batch, entropy, kept)
        return loss, report

    def check_reported(self, batch: PackedBatch, reported: Stats) -> None:
        """Raise NumericsError where replayed log-probs are too far from the sampled ones before the weights move."""
        bound = batch.step.max_gap
        if bound is not None and reported[GAP] / len(batch.log_probs) > bound:
            raise _not_reproduced(batch, bound)

    def ratios(self, batch: PackedBatch) -> Float[Tensor, "A"]:
        """The importance ratio of every action."""
        level = self.settings.importance_sampling_level
        return importance_ratios(batch.log_probs, batch.old_log_probs, batch.owner, len(batch.positions), level)

    def step_weights(self, batch: PackedBatch) -> Float[Tensor, "A"] | float:
        """What the term of each action is multiplied by, after clipping."""
        return 1.0

    def _divergence(self, batch: PackedBatch) -> Float[Tensor, "A"]:
        """KL(policy || reference) of every action, or the velocities' squared distance in its place."""
        estimator = self.settings.kl_estimator
        if self.of_denoising:
            if estimator == "velocity_mse":
                return velocity_mse(batch.extras["velocity"], batch.reference("velocity"))
            return gaussian_kl(batch.extras["mean"], batch.reference("mean"), batch.extras["std"])
        of_tokens: KLEstimator = "k3" if estimator in (None, "gaussian", "velocity_mse") else estimator
        return kl(batch.log_probs, batch.reference(), of_tokens)


def next_states(batch: PackedBatch) -> Float[Tensor, "A *D"]:
    """Where each stochastic step of some denoising acts went."""
    ends = [act.states[1:][torch.tensor(act.stochastic)] for act in batch.acts if isinstance(act, DenoisingSteps)]
    return torch.cat(ends).to(batch.log_probs)


def _mean_entropy(batch: PackedBatch, entropy: Float[Tensor, "A"], kept: Float[Tensor, "A"] | None) -> Tensor:
    """This micro-batch's part of the mean over the step's actions, however the loss is aggregated."""
    if batch.step.high_entropy is None or kept is None:
        return entropy.sum() / batch.counts.num_actions
    return (entropy * kept).sum() / batch.step.high_entropy.counts[batch.kind]


def _ratio_report(ratios: Tensor) -> DeviceStats:
    return {"ratio": ratios.sum(), "ratio_max": ratios.max(), "ratio_min": ratios.min()}


def _gap_report(batch: PackedBatch) -> DeviceStats:
    """How far replayed log-probs are from those that sampling computed: on-policy, the error of invariant 1."""
    gap = _log_ratios(batch).abs()
    return {GAP: gap.sum(), f"{GAP}_max": gap.max()}


def _log_ratios(batch: PackedBatch) -> Float[Tensor, "A"]:
    """Replayed minus sampled log-probs."""
    sampled = torch.cat([sampled_log_probs(act) for act in batch.acts]).to(batch.log_probs)
    return batch.log_probs.detach() - sampled


def _not_reproduced(batch: PackedBatch, bound: float) -> NumericsError:
    ratios = _log_ratios(batch).exp()
    names = ", ".join(dict.fromkeys(act.name for act in batch.acts))
    cause = "sampling and training compute different values"
    fix = "use one precision for both (policy.dtype)."
    if isinstance(batch.acts[0], DenoisingSteps):
        level = batch.acts[0].sampling.noise_level
        cause = f"rounding may outweigh the noise of sampling.denoising.noise_level={level:g}"
        fix = "raise sampling.denoising.noise_level; 0.7 is Flow-GRPO's."
    return NumericsError(
        f"The on-policy ratios of the {batch.kind} acts ({names}) lie between {ratios.min().item():.3g} and "
        f"{ratios.max().item():.3g}. They should be 1, their logarithms off by at most {bound:g} in the mean: the "
        f"weights have not moved since sampling, so {cause}.",
        fix=fix,
    )


def sampled_log_probs(act: Act) -> Float[Tensor, "N"]:
    """An act's log-probs at sampling. Raises ValueError for an act that a dataset gives, which has none."""
    if act.log_probs is None:
        raise ValueError(f"act {act.name!r} was encoded from data, not sampled: it has no log-probs to compare with")
    return act.log_probs

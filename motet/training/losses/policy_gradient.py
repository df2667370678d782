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
from motet.core.trajectory import Act, DenoisingSteps, TextAct
from motet.numerics.aggregation import Aggregation
from motet.numerics.flow.penalties import velocity_mse
from motet.numerics.kl import KLEstimator, gaussian_kl, kl
from motet.numerics.ratios import importance_ratios, rollout_is_weights
from motet.training.batches import DeviceStats, PackedBatch
from motet.training.losses.base import Loss, LossSettings, Needs
from motet.training.losses.rollout_correction import behaviour_log_probs, mismatch_report, sampled_log_probs

OF_TOKENS, OF_DENOISING = ("k1", "k2", "k3"), ("gaussian", "velocity_mse")
"""What `kl_estimator` may be. As an option of `algorithm.loss` it concerns the kinds of act that it fits."""


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
    rollout_is: Literal["token", "sequence"] | None = None
    """Importance weights for what the rollout sampled otherwise than the learner scores: of every action, or of the
    whole act; None: none, and such rollouts are rejected. verl's names; TRL: token_truncate and sequence_truncate."""
    rollout_is_threshold: float = Field(default=2.0, ge=1.0)
    """Where these weights are truncated (verl's name and default); at least 1, the weight of a rollout on policy."""

    def problems(self, key: str) -> Iterator[Problem]:
        if self.kl_bias_correction and self.kl_estimator == "k2":
            text = "weights the KL by the ratio, but k2 has the gradient of the reverse KL without it."
            yield Problem(f"{key}.kl_bias_correction", text, "set it to false, or kl_estimator to k3.")


S = TypeVar("S", bound=PolicyGradientSettings)


@dataclass(frozen=True, eq=False)
class Actions:
    """The actions of some whole acts: log-probs now and at the start of the update, ratios, and advantages.

    `ratios` have a gradient, the old log-probs have none. `num_acts`: acts in this micro-batch, the B of `owner`.
    `rollout_weights` are the truncated weights of `rollout_is`, None where it is None.
    """

    log_probs: Float[Tensor, "A"]
    old_log_probs: Float[Tensor, "A"]
    ratios: Float[Tensor, "A"]
    advantages: Float[Tensor, "A"]
    owner: Int[Tensor, "A"]
    num_acts: int
    rollout_weights: Float[Tensor, "A"] | None = None


class PerAction(NamedTuple):
    """The term of each action, and which actions were clipped; None for a loss that does not clip."""

    loss: Float[Tensor, "A"]
    clipped: Bool[Tensor, "A"] | None = None


class PolicyGradientLoss(Loss[S]):
    """A loss of importance ratios and advantages, for acts that the policy sampled.

    The KL of denoising steps is exact, from the Gaussians' means. Their entropy does not depend on the weights: it has
    no bonus. Under `top_entropy_quantile` the term and the bonus are those of the actions of the highest entropy alone.
    The weights of `rollout_is` multiply the term, not the KL and not the bonus, as in TRL and verl.
    """

    Settings = PolicyGradientSettings
    has_kl = True
    aggregation: ClassVar[Aggregation]
    """The weights `w_a`."""
    weighs_own_rollouts: ClassVar[bool] = False
    """Whether `per_action` has applied the weights of `rollout_is` itself."""

    @abstractmethod
    def per_action(self, actions: Actions) -> PerAction:
        """The term `L_a` of every action."""

    @property
    def zero_advantage_has_gradient(self) -> bool:
        return self.settings.entropy_bonus > 0

    @property
    def entropy_quantile(self) -> float:
        return self.settings.top_entropy_quantile

    @property
    def corrects_rollouts(self) -> bool:
        return self.settings.rollout_is is not None

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
        weights, report = self._rollout_weights(batch)
        ratios = self.ratios(batch)
        old, owner = batch.old_log_probs, batch.owner
        actions = Actions(batch.log_probs, old, ratios, batch.advantages, owner, len(batch.positions), weights)
        term = self.per_action(actions)
        per_action = term.loss * self.step_weights(batch)
        if weights is not None and not self.weighs_own_rollouts:
            per_action = per_action * weights
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

    def ratios(self, batch: PackedBatch) -> Float[Tensor, "A"]:
        """The importance ratio of every action."""
        level = self.settings.importance_sampling_level
        return importance_ratios(batch.log_probs, batch.old_log_probs, batch.owner, len(batch.positions), level)

    def step_weights(self, batch: PackedBatch) -> Float[Tensor, "A"] | float:
        """What the term of each action is multiplied by, after clipping."""
        return 1.0

    def _rollout_weights(self, batch: PackedBatch) -> tuple[Float[Tensor, "A"] | None, DeviceStats]:
        """The truncated weights of `rollout_is`, and the report on them; with None that on the weights of tokens."""
        level, threshold = self.settings.rollout_is, self.settings.rollout_is_threshold
        sampled, num_acts = sampled_log_probs(batch), len(batch.positions)
        behaviour = behaviour_log_probs(batch, sampled)
        weights = rollout_is_weights(batch.old_log_probs, behaviour, batch.owner, num_acts, level or "token")
        report = mismatch_report(batch.log_probs.detach() - sampled, weights, threshold)
        return None if level is None else weights.clamp(max=threshold), report

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
    return batch.like_log_probs(torch.cat(ends))


def _mean_entropy(batch: PackedBatch, entropy: Float[Tensor, "A"], kept: Float[Tensor, "A"] | None) -> Tensor:
    """This micro-batch's part of the mean over the step's actions, however the loss is aggregated."""
    if batch.step.high_entropy is None or kept is None:
        return entropy.sum() / batch.counts.num_actions
    return (entropy * kept).sum() / batch.step.high_entropy.counts[batch.kind]


def _ratio_report(ratios: Tensor) -> DeviceStats:
    return {"ratio": ratios.sum(), "ratio_max": ratios.max(), "ratio_min": ratios.min()}

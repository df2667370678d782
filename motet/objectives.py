"""What the learner minimises: the group-relative policy loss with its KL, and the supervised likelihood."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motet.config import AlgorithmConfig
from motet.learner import Packed, Stats
from motet.numerics.kl import kl
from motet.numerics.losses import action_weights, importance_ratios, is_clipped, nll, policy_loss
from motet.trajectory import Act, ActKind


@dataclass(frozen=True)
class KindSettings:
    """The resolved loss settings of one kind of act."""

    epsilon: float | None
    epsilon_high: float | None
    beta: float
    weight: float
    max_actions: int


def kind_settings(config: AlgorithmConfig, max_actions: Mapping[ActKind, int]) -> dict[ActKind, KindSettings]:
    """The algorithm's settings with each kind's own in their place; `max_actions` is Dr. GRPO's constant."""
    settings: dict[ActKind, KindSettings] = {}
    for kind, longest in max_actions.items():
        own = config.per_kind.get(kind)
        epsilon, high, beta, weight = config.epsilon, config.epsilon_high, config.beta, 1.0
        if own is not None:
            epsilon = epsilon if own.epsilon is None else own.epsilon
            high = high if own.epsilon_high is None else own.epsilon_high
            beta = beta if own.beta is None else own.beta
            weight = own.weight
        settings[kind] = KindSettings(epsilon, high, beta, weight, longest)
    return settings


@dataclass(frozen=True)
class PolicyObjective:
    """`sum_a w_a (policy_loss_a + beta kl_a - entropy_bonus entropy_a)` over the acts of one optimizer step.

    `old_log_probs`, `reference_log_probs` and `advantages` are indexed by the acts' positions in the step. With
    `old_log_probs` None the replayed log-probs themselves are the old ones: the ratio is 1 and the gradient on-policy.
    """

    config: AlgorithmConfig
    settings: Mapping[ActKind, KindSettings]
    advantages: Sequence[float]
    old_log_probs: Sequence[Tensor] | None
    reference_log_probs: Sequence[Tensor] | None

    @property
    def needs(self) -> Collection[str]:
        """Entropy is always asked for: it is among the numbers that people watch."""
        return ("entropy",)

    def __call__(self, batch: Packed) -> tuple[Tensor, Stats]:
        settings, config = self.settings[batch.kind], self.config
        sampled = torch.cat([_sampled(act) for act in batch.acts]).to(batch.log_probs)
        old = batch.log_probs.detach() if self.old_log_probs is None else batch.pack(self.old_log_probs)
        advantages = batch.spread(self.advantages)
        ratios = importance_ratios(batch.log_probs, old, batch.owner, len(batch.acts), config.importance_sampling_level)
        per_action = policy_loss(ratios, advantages, settings.epsilon, settings.epsilon_high)
        gap = (batch.log_probs.detach() - sampled).abs()
        report = {
            "ratio": ratios.detach().sum().item(),
            "ratio_max": ratios.detach().max().item(),
            "clip_fraction": is_clipped(ratios, advantages, settings.epsilon, settings.epsilon_high).sum().item(),
            "log_prob_gap": gap.sum().item(),
            "log_prob_gap_max": gap.max().item(),
            "entropy": batch.extras["entropy"].detach().sum().item(),
        }
        if self.reference_log_probs is not None:
            divergence = kl(batch.log_probs, batch.pack(self.reference_log_probs), config.kl_estimator)
            per_action = per_action + settings.beta * divergence
            report["kl"] = divergence.detach().sum().item()
        if config.entropy_bonus:
            per_action = per_action - config.entropy_bonus * batch.extras["entropy"]
        weights = action_weights(
            batch.owner,
            batch.lengths,
            config.loss_type,
            num_acts=batch.num_acts,
            num_actions=batch.num_actions,
            max_tokens=settings.max_actions,
        )
        return settings.weight * (weights * per_action).sum(), report


def _sampled(act: Act) -> Tensor:
    if act.log_probs is None:
        raise ValueError(f"act {act.name!r} was demonstrated, not sampled: it has no log-probs to compare with")
    return act.log_probs


@dataclass(frozen=True)
class LikelihoodObjective:
    """Supervised training: the mean negative log-likelihood of the actions of each kind, kinds added with weights."""

    weights: Mapping[ActKind, float]
    needs: Collection[str] = ()

    def __call__(self, batch: Packed) -> tuple[Tensor, Stats]:
        loss = nll(batch.log_probs).sum()
        return self.weights.get(batch.kind, 1.0) * loss / batch.num_actions, {"nll": loss.item()}

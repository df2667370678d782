"""What the learner minimises: the group-relative policy loss with its KL, and the supervised likelihood."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from motet.config import AlgorithmConfig
from motet.learner import Packed, Stats
from motet.numerics.kl import gaussian_kl, kl
from motet.numerics.losses import action_weights, importance_ratios, is_clipped, nll, policy_loss
from motet.protocols import Replay
from motet.trajectory import Act, ActKind


@dataclass(frozen=True)
class KindSettings:
    """The resolved loss settings of one kind of act; `max_actions` is Dr. GRPO's constant."""

    epsilon: float | None
    epsilon_high: float | None
    beta: float
    weight: float
    max_actions: int


def kind_settings(config: AlgorithmConfig, max_actions: Mapping[ActKind, int]) -> dict[ActKind, KindSettings]:
    """For each kind in `max_actions`: the algorithm's settings, with the kind's own in their place."""
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


@dataclass(frozen=True, eq=False)
class PolicyObjective:
    """`sum_a w_a (policy_loss_a + beta kl_a - entropy_bonus entropy_a)` over the acts of one optimizer step.

    `advantages`, `old_log_probs` and `reference` (replays under the reference's weights) are indexed by the acts'
    positions in the step. With `old_log_probs` None the replayed log-probs themselves are the old ones: the ratio is 1
    and the gradient on-policy. The KL of tokens is `config.kl_estimator` of their log-probs; that of denoising steps is
    exact, from the Gaussians' means. The entropy of a denoising step does not depend on the weights: it has no bonus.
    """

    config: AlgorithmConfig
    settings: Mapping[ActKind, KindSettings]
    advantages: Sequence[float]
    old_log_probs: Sequence[Tensor] | None = None
    reference: Sequence[Replay] | None = None

    @property
    def needs(self) -> Collection[str]:
        """Entropy is always asked for: it is among the numbers that people watch."""
        return ("entropy", *reference_needs(self.settings)) if self.reference is not None else ("entropy",)

    def __call__(self, batch: Packed) -> tuple[Tensor, Stats]:
        """The loss; reports ratios, clipping, the gap to the sampled log-probs, entropy and KL."""
        settings, config = self.settings[batch.kind], self.config
        old = batch.log_probs.detach() if self.old_log_probs is None else batch.pack(self.old_log_probs)
        advantages = batch.spread(self.advantages)
        ratios = importance_ratios(batch.log_probs, old, batch.owner, len(batch.acts), config.importance_sampling_level)
        per_action = policy_loss(ratios, advantages, settings.epsilon, settings.epsilon_high)
        clipped = is_clipped(ratios, advantages, settings.epsilon, settings.epsilon_high)
        report = {**_ratio_report(ratios.detach()), "clip_fraction": clipped.sum().item(), **_gap_report(batch)}
        if self.reference is not None:
            divergence = self._divergence(batch, self.reference)
            per_action = per_action + settings.beta * divergence
            report["kl"] = divergence.detach().sum().item()
        if "entropy" in batch.extras:
            report["entropy"] = batch.extras["entropy"].detach().sum().item()
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

    def _divergence(self, batch: Packed, reference: Sequence[Replay]) -> Float[Tensor, "A"]:
        """KL(policy || reference) of every action."""
        theirs = [reference[n] for n in batch.numbers]
        if batch.kind == "denoising":
            means = torch.cat([replay.extras["mean"] for replay in theirs]).to(batch.log_probs)
            return gaussian_kl(batch.extras["mean"], means, batch.extras["std"])
        log_probs = torch.cat([replay.log_probs for replay in theirs]).to(batch.log_probs)
        return kl(batch.log_probs, log_probs, self.config.kl_estimator)


def reference_needs(kinds: Collection[ActKind]) -> Collection[str]:
    """What the KL of these kinds asks of a replay beside log-probs."""
    return ("mean", "std") if "denoising" in kinds else ()


def _ratio_report(ratios: Tensor) -> Stats:
    return {"ratio": ratios.sum().item(), "ratio_max": ratios.max().item(), "ratio_min": ratios.min().item()}


def _gap_report(batch: Packed) -> Stats:
    """How far replayed log-probs are from those that sampling computed: on-policy, the error of law 1."""
    gap = (
        batch.log_probs.detach() - torch.cat([sampled_log_probs(act) for act in batch.acts]).to(batch.log_probs)
    ).abs()
    return {"log_prob_gap": gap.sum().item(), "log_prob_gap_max": gap.max().item()}


def sampled_log_probs(act: Act) -> Float[Tensor, "N"]:
    """An act's log-probs at sampling. Raises ValueError for a demonstrated act, which has none."""
    if act.log_probs is None:
        raise ValueError(f"act {act.name!r} was demonstrated, not sampled: it has no log-probs to compare with")
    return act.log_probs


@dataclass(frozen=True)
class LikelihoodObjective:
    """Supervised training: the mean negative log-likelihood of the actions of each kind, kinds added with weights."""

    weights: Mapping[ActKind, float]
    needs: Collection[str] = ()

    def __call__(self, batch: Packed) -> tuple[Tensor, Stats]:
        """The loss; reports `nll`, the mean over actions."""
        loss = nll(batch.log_probs).sum()
        return self.weights.get(batch.kind, 1.0) * loss / batch.num_actions, {"nll": loss.item()}

"""What the learner minimises: the group-relative policy loss with its KL, and the supervised likelihood."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from motet.config import AlgorithmConfig, KindConfig
from motet.core.errors import NumericsError
from motet.core.protocols import Replay
from motet.core.trajectory import Act, ActKind, DenoisingSteps
from motet.numerics.flow.grpo_guard import normalized_log_ratios, step_weights
from motet.numerics.flow.nft import nft_loss, optimality_prob
from motet.numerics.flow.path import broadcast_like
from motet.numerics.flow.penalties import velocity_mse
from motet.numerics.kl import gaussian_kl, kl
from motet.numerics.losses import POLICY_LOSSES, Actions, LossSettings, action_weights, importance_ratios, nll
from motet.training.optimizer_step import PackedBatch, Stats


@dataclass(frozen=True)
class KindSettings:
    """The resolved loss settings of one kind of act; `max_actions` is Dr. GRPO's constant."""

    loss: LossSettings
    beta: float
    weight: float
    max_actions: int


def kind_settings(config: AlgorithmConfig, max_actions: Mapping[ActKind, int]) -> dict[ActKind, KindSettings]:
    """For each kind in `max_actions`: the algorithm's settings, with the kind's own in their place."""
    general = {field.name: getattr(config, field.name) for field in fields(LossSettings)}
    settings: dict[ActKind, KindSettings] = {}
    for kind, longest in max_actions.items():
        own = (config.per_kind.get(kind) or KindConfig()).model_dump(exclude_none=True)
        loss = LossSettings(**{name: own.get(name, value) for name, value in general.items()})
        settings[kind] = KindSettings(loss, own.get("beta", config.beta), own["weight"], longest)
    return settings


@dataclass(frozen=True, eq=False)
class HighEntropy:
    """Which actions `[N]` of each act of the step keep their policy loss, and how many of each kind do."""

    masks: Sequence[Tensor]
    counts: Mapping[ActKind, int]

    def of(self, chosen: Sequence[int]) -> HighEntropy:
        """For some of the acts, in this order; the counts stay those of the whole step."""
        return HighEntropy([self.masks[n] for n in chosen], self.counts)


@dataclass(frozen=True, eq=False)
class PolicyGradientLoss:
    """`sum_a w_a (policy_loss_a + beta kl_a) - entropy_bonus mean_a entropy_a` over the acts of one optimizer step.

    `advantages`, `old` (replays under the weights that sampled) and `reference` (replays under the reference's weights)
    are indexed by the acts' positions in the step. With `old` None the replayed log-probs themselves are the old ones:
    the ratio is 1 and the gradient on-policy. The KL of tokens is `config.kl_estimator` of their log-probs; that of
    denoising steps is exact, from the Gaussians' means. The entropy of a denoising step does not depend on the weights:
    it has no bonus. With `high_entropy` the policy loss and the bonus are those of its actions alone. Demonstrated
    denoising acts among them are DiffusionNFT's: `motet.training.policy_update` made them of pictures.

    `most_gap` is given while the weights are those that sampled: how far the replayed log-probs of a micro-batch may be
    from the sampled ones, in the mean. Raises NumericsError beyond it.
    """

    config: AlgorithmConfig
    settings: Mapping[ActKind, KindSettings]
    advantages: Sequence[float]
    old: Sequence[Replay] | None = None
    reference: Sequence[Replay] | None = None
    most_gap: float | None = None
    high_entropy: HighEntropy | None = None

    @property
    def needs(self) -> Collection[str]:
        """Entropy is always asked for: it is among the numbers that people watch."""
        return ("entropy", *required_extras(self.config, self.settings, with_reference=self.reference is not None))

    def __call__(self, batch: PackedBatch) -> tuple[Tensor, Stats]:
        """The loss; reports ratios, clipping, the gap to the sampled log-probs, entropy and KL."""
        settings = self.settings[batch.kind]
        if batch.kind == "denoising" and self.config.flow.objective == "nft":
            ratios, per_action, report = None, self._nft_loss(batch), {}
        else:
            ratios = self._ratios(batch)
            per_action, report = self._policy_gradient(batch, ratios, settings.loss)
        kept = None if self.high_entropy is None else torch.cat([self.high_entropy.masks[n] for n in batch.numbers])
        kept = None if kept is None else kept.to(per_action)
        if kept is not None:
            per_action = per_action * kept
        if self.reference is not None:
            divergence = self._divergence(batch, self.reference)
            report["kl"] = divergence.detach().sum().item()
            if self.config.use_bias_correction_kl and ratios is not None and batch.kind != "denoising":
                divergence = ratios * divergence
            per_action = per_action + settings.beta * divergence
        weights = action_weights(
            batch.owner,
            batch.lengths,
            self.config.loss_type,
            num_acts=batch.num_acts,
            num_actions=batch.num_actions,
            max_tokens=settings.max_actions,
        )
        loss = (weights * per_action).sum()
        if "entropy" in batch.extras:
            entropy = batch.extras["entropy"]
            report["entropy"] = entropy.sum().item()
            if self.config.entropy_bonus:
                loss = loss - self.config.entropy_bonus * self._mean_entropy(batch, entropy, kept)
        return settings.weight * loss, report

    def _policy_gradient(
        self, batch: PackedBatch, ratios: Float[Tensor, "A"], settings: LossSettings
    ) -> tuple[Float[Tensor, "A"], Stats]:
        """The loss type's term of every action; GRPO-Guard weights the terms of denoising steps alike."""
        gaps = _gap_report(batch)
        if self.most_gap is not None and gaps["log_prob_gap"] / len(batch.log_probs) > self.most_gap:
            raise _not_reproduced(batch, self.most_gap)
        log_probs, advantages = batch.log_probs, batch.spread(self.advantages)
        actions = Actions(log_probs, self._old_log_probs(batch), ratios, advantages, batch.owner, len(batch.acts))
        per_action, clipped = POLICY_LOSSES[self.config.loss_type].per_action(actions, settings)
        if self._guards(batch):
            per_action = per_action * step_weights(batch.extras["sigma"], batch.extras["sigma_next"])
        report = {**_ratio_report(ratios.detach()), **gaps}
        return per_action, report if clipped is None else {**report, "clip_fraction": clipped.sum().item()}

    def _mean_entropy(self, batch: PackedBatch, entropy: Float[Tensor, "A"], kept: Float[Tensor, "A"] | None) -> Tensor:
        """This micro-batch's part of the mean over the step's actions, whatever the loss type (TRL's entropy_coef)."""
        if self.high_entropy is None or kept is None:
            return entropy.sum() / batch.num_actions
        return (entropy * kept).sum() / self.high_entropy.counts[batch.kind]

    def _guards(self, batch: PackedBatch) -> bool:
        return self.config.flow.guard and batch.kind == "denoising"

    def _old_log_probs(self, batch: PackedBatch) -> Float[Tensor, "A"]:
        return batch.log_probs.detach() if self.old is None else batch.of(self.old)

    def _ratios(self, batch: PackedBatch) -> Float[Tensor, "A"]:
        """At the recipe's level; GRPO-Guard's for denoising steps if the recipe asks for it."""
        if self._guards(batch):
            return self._guarded_ratios(batch)
        level = self.config.importance_sampling_level
        return importance_ratios(batch.log_probs, self._old_log_probs(batch), batch.owner, len(batch.acts), level)

    def _guarded_ratios(self, batch: PackedBatch) -> Float[Tensor, "A"]:
        mean, std = batch.extras["mean"], batch.extras["std"]
        return normalized_log_ratios(next_states(batch), mean, self._old("mean", batch), std).exp()

    def _old(self, name: str, batch: PackedBatch) -> Tensor:
        """An extra under the weights that sampled; those of this forward pass where it was not replayed before."""
        if self.old is None or name not in self.old[batch.numbers[0]].extras:
            return batch.extras[name].detach()
        return batch.of(self.old, name)

    def _nft_loss(self, batch: PackedBatch) -> Float[Tensor, "A"]:
        """DiffusionNFT's loss of every re-noised picture (arXiv 2509.16117)."""
        velocity, sigma = batch.extras["velocity"], batch.extras["sigma"]
        clean, noisy = next_states(batch), torch.cat([_steps(act).states[:1] for act in batch.acts]).to(velocity)
        noise = clean + (noisy - clean) / broadcast_like(sigma, clean)
        good = optimality_prob(batch.spread(self.advantages))
        return nft_loss(
            velocity, self._old("velocity", batch), clean, noise, good, beta=self.config.flow.nft_beta, sigma=sigma
        )

    def _divergence(self, batch: PackedBatch, reference: Sequence[Replay]) -> Float[Tensor, "A"]:
        """KL(policy || reference) of every action, or the velocities' squared distance in its place."""
        if batch.kind == "denoising":
            if self.config.flow.penalty == "velocity_mse":
                return velocity_mse(batch.extras["velocity"], batch.of(reference, "velocity"))
            return gaussian_kl(batch.extras["mean"], batch.of(reference, "mean"), batch.extras["std"])
        return kl(batch.log_probs, batch.of(reference), self.config.kl_estimator)


def required_extras(
    config: AlgorithmConfig, kinds: Collection[ActKind], *, with_reference: bool, of_old: bool = False
) -> Collection[str]:
    """What the loss asks of replays of denoising acts beside log-probs; `of_old`: of the old ones alone."""
    if "denoising" not in kinds:
        return ()
    if config.flow.objective == "nft":
        return ("velocity",) if of_old else ("velocity", "sigma")
    if of_old:
        return ("mean",) if config.flow.guard else ()
    penalty = () if not with_reference else ("velocity",) if config.flow.penalty == "velocity_mse" else ("mean", "std")
    return (*penalty, *(("mean", "std", "sigma", "sigma_next") if config.flow.guard else ()))


def _steps(act: Act) -> DenoisingSteps:
    assert isinstance(act, DenoisingSteps)
    return act


def next_states(batch: PackedBatch) -> Float[Tensor, "A *D"]:
    """Where each stochastic step went."""
    ends = [_steps(act).states[1:][torch.tensor(_steps(act).stochastic)] for act in batch.acts]
    return torch.cat(ends).to(batch.log_probs)


def _ratio_report(ratios: Tensor) -> Stats:
    return {"ratio": ratios.sum().item(), "ratio_max": ratios.max().item(), "ratio_min": ratios.min().item()}


def _gap_report(batch: PackedBatch) -> Stats:
    """How far replayed log-probs are from those that sampling computed: on-policy, the error of law 1."""
    gap = _log_ratios(batch).abs()
    return {"log_prob_gap": gap.sum().item(), "log_prob_gap_max": gap.max().item()}


def _log_ratios(batch: PackedBatch) -> Float[Tensor, "A"]:
    """Replayed minus sampled log-probs."""
    sampled = torch.cat([sampled_log_probs(act) for act in batch.acts]).to(batch.log_probs)
    return batch.log_probs.detach() - sampled


def _not_reproduced(batch: PackedBatch, bound: float) -> NumericsError:
    ratios = _log_ratios(batch).exp()
    names = ", ".join(dict.fromkeys(act.name for act in batch.acts))
    cause = "sampling and learning compute different numbers"
    fix = "use one precision for both (policy.autocast)."
    if batch.kind == "denoising":
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
    """An act's log-probs at sampling. Raises ValueError for a demonstrated act, which has none."""
    if act.log_probs is None:
        raise ValueError(f"act {act.name!r} was demonstrated, not sampled: it has no log-probs to compare with")
    return act.log_probs


@dataclass(frozen=True)
class NLLLoss:
    """Supervised training: the mean negative log-likelihood of the actions of each kind, kinds added with weights."""

    weights: Mapping[ActKind, float]
    needs: Collection[str] = ()

    def __call__(self, batch: PackedBatch) -> tuple[Tensor, Stats]:
        """The loss; reports `nll`, the mean over actions."""
        loss = nll(batch.log_probs).sum()
        return self.weights.get(batch.kind, 1.0) * loss / batch.num_actions, {"nll": loss.item()}

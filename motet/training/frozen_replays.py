"""Replays without gradient that losses compare with: at the start of the update, and under the reference weights.

Old log-probs (invariant 3) are those of the weights at the start of the update. The sampled ones are those when
sampling and training both compute in float32 and the acts are of the present version. Else they are replayed with the
shapes of training: by a pass before the first of several optimizer steps, or, for a single one, by that step's own
forward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from motet.config import Recipe
from motet.core.protocols import Replay, TrainablePolicy
from motet.core.trajectory import Act
from motet.numerics.entropies import highest_entropies
from motet.training.batches import HighEntropy, count_by_kind, micro_batches
from motet.training.losses import Sample
from motet.training.losses.policy_gradient import PolicyGradientLoss
from motet.training.optimizer_step import Losses
from motet.training.rollout_gate import MAX_LOGPROB_DIFF


def recomputes_old_log_probs(policy: TrainablePolicy, acts: Sequence[Act]) -> bool:
    """Whether old log-probs are replayed, by the rule above."""
    rounds = policy.autocast is not None or policy.rollout_autocast is not None
    return rounds or any(act.policy_version != policy.version for act in acts)


def old_replays(
    policy: TrainablePolicy, samples: Sequence[Sample], chosen: Sequence[int], losses: Losses, recipe: Recipe
) -> tuple[dict[int, Replay] | None, bool]:
    """What ratios start from, by the positions of the chosen samples, and whether it is replayed by the rule above.

    None, and extras left out: those of the step's own forward pass. Where a loss has `rollout_is`, log-probs that
    should be reproduced are replayed all the same, and become the old ones if they are further than
    `MAX_LOGPROB_DIFF` from the sampled ones: a policy may sample with an engine of its own.
    """
    algorithm = recipe.algorithm
    acts = [samples[n].act for n in chosen]
    recomputed = recomputes_old_log_probs(policy, acts)
    corrected = any(isinstance(loss, PolicyGradientLoss) and loss.corrects_rollouts for loss in losses.values())
    needs = tuple(dict.fromkeys(name for loss in losses.values() for name in loss.needs(with_reference=False).old))
    replays: list[Replay] | None = None
    several = algorithm.num_iterations * algorithm.num_minibatches > 1
    if (several and (recomputed or needs)) or (corrected and not recomputed):
        replays = replay_frozen(policy, acts, recipe.optimizer.max_tokens_per_microbatch, needs)
        recomputed = recomputed or (corrected and _exceeds_bound(acts, replays))
    if recomputed:
        return (dict(zip(chosen, replays, strict=True)) if replays is not None and several else None), True
    extras = [{}] * len(acts) if replays is None else [replay.extras for replay in replays]
    empty = torch.zeros(0)  # of an act without sampled log-probs, whose loss has no ratio
    sampled = [empty if act.log_probs is None else act.log_probs for act in acts]
    return {n: Replay(log_probs, own) for n, log_probs, own in zip(chosen, sampled, extras, strict=True)}, False


def _exceeds_bound(acts: Sequence[Act], replays: Sequence[Replay]) -> bool:
    """Whether replayed log-probs of a kind are too far from the sampled ones, in the mean over its actions."""
    differences: dict[str, list[Tensor]] = {}
    for act, replay in zip(acts, replays, strict=True):
        if act.log_probs is not None:
            differences.setdefault(act.kind, []).append((replay.log_probs - act.log_probs.to(replay.log_probs)).abs())
    return any(float(torch.cat(own).mean()) > MAX_LOGPROB_DIFF for own in differences.values())


def reference_replays(
    policy: TrainablePolicy, samples: Sequence[Sample], chosen: Sequence[int], losses: Losses, budget: int
) -> dict[int, Replay] | None:
    """Replays of the chosen samples under the reference weights, by position; None where no loss needs them."""
    if not any(loss.needs_reference for loss in losses.values()):
        return None
    needs = tuple(dict.fromkeys(name for loss in losses.values() for name in loss.needs(with_reference=True).reference))
    with policy.reference():
        replays = replay_frozen(policy, [samples[n].act for n in chosen], budget, needs)
    return dict(zip(chosen, replays, strict=True))


def high_entropy_actions(
    policy: TrainablePolicy, samples: Sequence[Sample], chosen: Sequence[int], losses: Losses, budget: int
) -> HighEntropy | None:
    """The actions of the highest entropy of each kind, over the whole step before any gradient; None: all.

    Of acts without an entropy, which denoising acts are, all actions. The masks are indexed as `samples`.
    """
    chosen = [n for n in chosen if losses[samples[n].act.kind].entropy_quantile < 1]
    if not chosen:
        return None
    acts = [samples[n].act for n in chosen]
    entropies = [replay.extras.get("entropy") for replay in replay_frozen(policy, acts, budget, ("entropy",))]
    masks = [torch.ones(one.act.num_actions, dtype=torch.bool) for one in samples]
    counts: dict[str, int] = {kind: actions for kind, (_, actions) in count_by_kind(acts).items()}
    for kind in counts:
        own = {
            n: entropy.cpu()
            for n, entropy in zip(chosen, entropies, strict=True)
            if samples[n].act.kind == kind and entropy is not None
        }
        if own:
            highest = highest_entropies(torch.cat([*own.values()]), losses[kind].entropy_quantile)
            counts[kind] = int(highest.sum())
            for n, mask in zip(own, highest.split([len(entropy) for entropy in own.values()]), strict=True):
                masks[n] = mask
    return HighEntropy(masks, counts)


@torch.no_grad()
def replay_frozen(
    policy: TrainablePolicy, acts: Sequence[Act], budget: int, needs: Collection[str] = ()
) -> list[Replay]:
    """Replays without gradient, in micro-batches of at most `budget` tokens."""
    result: dict[int, Replay] = {}
    for members in micro_batches([policy.num_tokens(act) for act in acts], budget):
        result |= zip(members, policy.replay([acts[n] for n in members], needs), strict=True)
    return [result[n] for n in range(len(acts))]

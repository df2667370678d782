"""Replays without gradient that losses compare with: under the weights that sampled, and under the reference weights.

Old log-probs (invariant 3) are those of sampling when sampling and training both compute in float32. Under autocast a
replayed log-prob differs from the sampled one by more than the ratio should, so they are replayed with the shapes of
training: by a pass before the first of several optimizer steps, or, for a single one, by that step's own forward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from motet.config import Recipe
from motet.core.protocols import Replay, TrainablePolicy
from motet.core.trajectory import Act
from motet.numerics.entropies import highest_entropies
from motet.training.batches import HighEntropy, count_by_kind, micro_batches
from motet.training.losses import Sample
from motet.training.optimizer_step import Losses


def recomputes_old_log_probs(policy: TrainablePolicy) -> bool:
    """Whether old log-probs are replayed, by the rule above."""
    return policy.autocast is not None or policy.rollout_autocast is not None


def old_replays(
    policy: TrainablePolicy, samples: Sequence[Sample], chosen: Sequence[int], losses: Losses, recipe: Recipe
) -> dict[int, Replay] | None:
    """What ratios start from, by the positions of the chosen samples, by the rule above.

    None, and extras left out: those of the step's own forward pass.
    """
    algorithm, recomputed = recipe.algorithm, recomputes_old_log_probs(policy)
    acts = [samples[n].act for n in chosen]
    needs = tuple(dict.fromkeys(name for loss in losses.values() for name in loss.needs(with_reference=False).old))
    replays: list[Replay] | None = None
    if algorithm.num_iterations * algorithm.num_minibatches > 1 and (recomputed or needs):
        replays = replay_frozen(policy, acts, recipe.optimizer.max_tokens_per_microbatch, needs)
    if recomputed:
        return None if replays is None else dict(zip(chosen, replays, strict=True))
    extras = [{}] * len(acts) if replays is None else [replay.extras for replay in replays]
    empty = torch.zeros(0)  # of an act without sampled log-probs, whose loss has no ratio
    sampled = [empty if act.log_probs is None else act.log_probs for act in acts]
    return {n: Replay(log_probs, own) for n, log_probs, own in zip(chosen, sampled, extras, strict=True)}


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

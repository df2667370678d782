"""Replays without gradient that losses compare with: at the start of the update, and under the reference weights.

Old log-probs (invariant 3) are those of the weights at the start of the update. The sampled ones are those when
sampling and training both compute in float32 and the acts are of the present version. Else they are replayed with the
shapes of training: by a pass before the first of several optimizer steps, or, for a single one, by that step's own
forward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from motet.config import Recipe
from motet.core.protocols import Replay, TrainablePolicy
from motet.core.trajectory import Act
from motet.distributed.parallel import Parallel
from motet.distributed.shared_groups import is_remote
from motet.numerics.entropies import highest_entropies
from motet.numerics.transfers import fetch, to_device
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
    policy: TrainablePolicy,
    samples: Sequence[Sample],
    chosen: Sequence[int],
    losses: Losses,
    recipe: Recipe,
    parallel: Parallel,
) -> tuple[dict[int, Replay] | None, bool]:
    """What ratios start from, by the positions of the chosen samples, and whether it is replayed by the rule above.

    Of this process's samples, though all processes decide together.

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
    own = [n for n in chosen if not is_remote(samples[n].act)]
    several = algorithm.num_iterations * algorithm.num_minibatches > 1
    if (several and (recomputed or needs)) or (corrected and not recomputed):
        budget = recipe.optimizer.max_tokens_per_microbatch
        replays = replay_frozen(policy, [samples[n].act for n in own], budget, needs, parallel)
        recomputed = recomputed or (corrected and _exceeds_bound([samples[n].act for n in own], replays, parallel))
    if recomputed:
        return (dict(zip(own, replays, strict=True)) if replays is not None and several else None), True
    extras = [{}] * len(own) if replays is None else [replay.extras for replay in replays]
    empty = torch.zeros(0)  # of an act without sampled log-probs, whose loss has no ratio
    logged = [samples[n].act.log_probs for n in own]
    sampled = [empty if log_probs is None else log_probs for log_probs in logged]
    return {n: Replay(log_probs, extra) for n, log_probs, extra in zip(own, sampled, extras, strict=True)}, False


def _exceeds_bound(acts: Sequence[Act], replays: Sequence[Replay], parallel: Parallel) -> bool:
    """Whether replayed log-probs of a kind are too far from the sampled ones, in the mean over all its actions."""
    sums: dict[str, tuple[float, int]] = {}
    sampled = [(act, act.log_probs, one.log_probs) for act, one in zip(acts, replays, strict=True)]
    pairs = [(act, before, now) for act, before, now in sampled if before is not None]
    differences = fetch([(now - to_device(before, now.device, now.dtype)).abs().sum() for _, before, now in pairs])
    for (act, _, _), difference in zip(pairs, differences, strict=True):
        total, count = sums.get(act.kind, (0.0, 0))
        sums[act.kind] = total + difference, count + act.num_actions
    merged = parallel.processes.all_gather(sums)
    for kind in {kind for part in merged for kind in part}:
        parts = [part[kind] for part in merged if kind in part]
        if sum(total for total, _ in parts) > MAX_LOGPROB_DIFF * sum(count for _, count in parts):
            return True
    return False


def reference_replays(
    policy: TrainablePolicy,
    samples: Sequence[Sample],
    chosen: Sequence[int],
    losses: Losses,
    budget: int,
    parallel: Parallel,
) -> dict[int, Replay] | None:
    """Replays of this process's chosen samples under the reference weights, by position; None: no loss needs them."""
    if not any(loss.needs_reference for loss in losses.values()):
        return None
    needs = tuple(dict.fromkeys(name for loss in losses.values() for name in loss.needs(with_reference=True).reference))
    own = [n for n in chosen if not is_remote(samples[n].act)]
    with policy.reference():
        replays = replay_frozen(policy, [samples[n].act for n in own], budget, needs, parallel)
    return dict(zip(own, replays, strict=True))


def high_entropy_actions(
    policy: TrainablePolicy,
    samples: Sequence[Sample],
    chosen: Sequence[int],
    losses: Losses,
    budget: int,
    parallel: Parallel,
) -> HighEntropy | None:
    """The actions of the highest entropy of each kind, over the whole step before any gradient; None: all.

    Of acts without an entropy, which denoising acts are, all actions. The masks are indexed as `samples`.
    """
    chosen = [n for n in chosen if losses[samples[n].act.kind].entropy_quantile < 1]
    if not chosen:
        return None
    acts = [samples[n].act for n in chosen]
    entropies = _entropies(policy, {n: samples[n].act for n in chosen}, budget, parallel)
    masks = [torch.ones(one.act.num_actions, dtype=torch.bool) for one in samples]
    counts: dict[str, int] = {kind: actions for kind, (_, actions) in count_by_kind(acts).items()}
    for kind in counts:
        of_kind = {n: entropies[n] for n in chosen if samples[n].act.kind == kind and n in entropies}
        if of_kind:
            highest = highest_entropies(torch.cat([*of_kind.values()]), losses[kind].entropy_quantile)
            counts[kind] = int(highest.sum())
            for n, mask in zip(of_kind, highest.split([len(entropy) for entropy in of_kind.values()]), strict=True):
                masks[n] = mask
    return HighEntropy(masks, counts)


def _entropies(
    policy: TrainablePolicy, acts: Mapping[int, Act], budget: int, parallel: Parallel
) -> dict[int, Float[Tensor, "N"]]:
    """The entropy of every action, of the acts of all processes, by position; acts without one are left out."""
    own = {n: act for n, act in acts.items() if not is_remote(act)}
    replays = replay_frozen(policy, list(own.values()), budget, ("entropy",), parallel)
    on_device = {n: one.extras["entropy"] for n, one in zip(own, replays, strict=True) if "entropy" in one.extras}
    lengths = [len(entropy) for entropy in on_device.values()]
    entropies = torch.cat([*on_device.values()]).cpu().split(lengths) if on_device else ()
    found = {n: entropy.clone() for n, entropy in zip(on_device, entropies, strict=True)}
    return {n: entropy for part in parallel.processes.all_gather(found) for n, entropy in part.items()}


@torch.no_grad()
def replay_frozen(
    policy: TrainablePolicy,
    acts: Sequence[Act],
    budget: int,
    needs: Collection[str] = (),
    parallel: Parallel | None = None,
) -> list[Replay]:
    """Replays without gradient of this process's acts, in micro-batches of at most `budget` tokens."""
    result: dict[int, Replay] = {}
    parallel = parallel or Parallel()
    batches = list(micro_batches([policy.num_tokens(act) for act in acts], budget))
    passes = parallel.agree_on_passes(policy, acts, batches)
    with parallel.processes.phase("replay"):
        for chosen, members in passes:
            replays = parallel.replay(policy, chosen, needs)
            if members is not None:
                result |= zip(members, replays, strict=True)
    return [result[n] for n in range(len(acts))]

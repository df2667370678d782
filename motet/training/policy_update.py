"""The update of one rollout: `num_iterations` passes of `num_minibatches` optimizer steps over its acts."""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from motet.config import AlgorithmConfig, Recipe
from motet.core.protocols import Replay, TrainablePolicy
from motet.core.trajectory import ActWithAdvantage, Group
from motet.distributed.shared_groups import is_remote
from motet.policies.trainable import mix_into_reference
from motet.training.batches import HighEntropy, Stats, StepBatch, count_by_kind
from motet.training.frozen_replays import high_entropy_actions, old_replays, reference_replays
from motet.training.losses import Sample, resolve_loss
from motet.training.optimizer_step import Losses, PolicyOptimizer
from motet.training.rollout_gate import check_versions, max_logprob_diff


def update(
    policy: TrainablePolicy,
    optimizer: PolicyOptimizer,
    groups: Sequence[Group],
    assigned: Sequence[ActWithAdvantage],
    recipe: Recipe,
    step: int,
) -> Stats:
    """The optimizer steps of one rollout. Where there is no act to train on there is none, and `skipped` is 1.

    With several processes `groups` and `assigned` are those of all of them, and each replays its own acts.
    Ratios, gaps, clipping and entropy are reported over the acts that were replayed. The metric
    `old_log_probs_recomputed` says by which rule of `motet.training.frozen_replays` ratios start. Raises ConfigError
    and NumericsError by the rules of `motet.training.rollout_gate`.
    """
    algorithm, seed, budget = recipe.algorithm, recipe.run.seed, recipe.optimizer.max_tokens_per_microbatch
    losses: Losses = {one.act.kind: resolve_loss(algorithm, one.act.kind) for one in assigned}
    check_versions((one.act for one in assigned), policy.version, losses, algorithm)
    samples = prepare_samples(groups, assigned, losses, (seed, step))
    trained = [n for n, one in enumerate(samples) if not losses[one.act.kind].is_masked(one.act)]
    if not trained:
        return {"skipped": 1.0}
    parallel = optimizer.parallel
    reference = reference_replays(policy, samples, trained, losses, budget, parallel)
    active = {n for n in trained if reference is not None or needs_replay(samples[n], losses)}
    replayed = sorted(active | set(_fallbacks_of_groups(samples, trained)))
    old, recomputed = old_replays(policy, samples, replayed, losses, recipe, parallel)
    rollout = _Samples(samples, frozenset(trained), active, old, reference, _max_actions(samples, recipe))
    stats: list[Stats] = []
    for iteration in range(algorithm.num_iterations):
        for chosen in minibatches([one.group for one in samples], algorithm.num_minibatches, (seed, step, iteration)):
            if kept := [n for n in chosen if n in rollout.trained]:
                high_entropy = high_entropy_actions(policy, samples, kept, losses, budget, parallel)
                bounds = {} if stats else max_logprob_diff(losses)
                stats.append(optimizer.step(rollout.batch(chosen, high_entropy, bounds), losses))
                _sync_reference(policy, optimizer, algorithm)
    optimizer.free_gradients()
    return {**_merge_stats(stats), "old_log_probs_recomputed": float(recomputed)}


def prepare_samples(
    groups: Sequence[Group], assigned: Sequence[ActWithAdvantage], losses: Losses, key: tuple[int, int]
) -> list[Sample]:
    """The acts of a rollout that have actions, as their losses train on them, in the order of the rollout."""
    places = {
        id(act): (number, generation)
        for number, group in enumerate(groups)
        for generation, trajectory in enumerate(group.trajectories)
        for act in trajectory.acts
    }
    non_empty = [one for one in assigned if one.act.num_actions]
    sampled = [Sample(one.act, one.advantage, *places[id(one.act)], n, (*key, n)) for n, one in enumerate(non_empty)]
    prepared = [
        sample
        for kind, loss in losses.items()
        for sample in loss.prepare([one for one in sampled if one.act.kind == kind])
    ]
    return sorted(prepared, key=lambda one: one.position)


def needs_replay(sample: Sample, losses: Losses) -> bool:
    """Whether an act adds to the gradient even without a KL, and so is replayed.

    One of advantage 0 does not, unless its loss says so: it counts in the denominators and is not replayed. For a
    policy that is right most of the time that is most acts.
    """
    return sample.advantage != 0 or losses[sample.act.kind].zero_advantage_has_gradient


@dataclass(frozen=True, eq=False)
class _Samples:
    """The samples of a rollout with what their losses compare them with; numbers are positions in `samples`.

    `trained` are not masked, `active` of these are replayed.
    """

    samples: Sequence[Sample]
    trained: Collection[int]
    active: Collection[int]
    old: Mapping[int, Replay] | None
    reference: Mapping[int, Replay] | None
    max_actions: Mapping[str, int]

    def batch(self, chosen: Sequence[int], high_entropy: HighEntropy | None, bounds: Mapping[str, float]) -> StepBatch:
        """The optimizer step over the chosen samples; the masked ones are in its counts alone.

        It is taken even if every advantage is zero, so that the optimizer's momentum advances.
        """
        acts = [one.act for one in self.samples]
        remote = [is_remote(act) for act in acts]
        counts = count_by_kind([acts[n] for n in chosen], [n not in self.trained for n in chosen])
        active = [n for n in chosen if n in self.active]
        labels = [(act.kind, act.name) for act in acts]
        fallbacks = first_of_each_label([n for n in chosen if n in self.trained], labels, active)
        members = [n for n in (*active, *fallbacks) if not remote[n]]
        return StepBatch(
            [acts[n] for n in members],
            [self.samples[n].advantage for n in members],
            None if self.old is None else [self.old[n] for n in members],
            None if self.reference is None else [self.reference[n] for n in members],
            high_entropy=None if high_entropy is None else high_entropy.of(members),
            counts=counts,
            fallbacks=[None if remote[n] else members.index(n) for n in fallbacks],
            units=[self.samples[n].position for n in members],
            max_actions=self.max_actions,
            max_logprob_diff=bounds,
        )


def _fallbacks_of_groups(samples: Sequence[Sample], trained: Iterable[int]) -> list[int]:
    """Whatever groups a minibatch is made of, its fallback acts are among these."""
    return first_of_each_label(trained, [(one.group, one.act.kind, one.act.name) for one in samples])


def first_of_each_label(chosen: Iterable[int], labels: Sequence[Hashable], active: Collection[int] = ()) -> list[int]:
    """The first act of each label, but of those labels that an active act has."""
    known = {labels[n] for n in active}
    firsts: dict[Hashable, int] = {}
    for n in chosen:
        if labels[n] not in known:
            firsts.setdefault(labels[n], n)
    return list(firsts.values())


def minibatches(group_of: Sequence[int], count: int, key: tuple[int, int, int]) -> list[list[int]]:
    """Positions of acts in `count` parts of like size, none of them empty; `group_of` names each act's group.

    The acts of a group stay together. Groups are shuffled by the key: seed, step and iteration.
    """
    groups = sorted(set(group_of))
    if count > 1:
        draws = random.Random(f"motet {key}")  # Python promises only `random()` to stay as it is, not `shuffle`
        groups.sort(key=lambda _: draws.random())
    parts = [set(groups[part::count]) for part in range(count)]
    return [[n for n, group in enumerate(group_of) if group in part] for part in parts if part]


def _max_actions(samples: Sequence[Sample], recipe: Recipe) -> dict[str, int]:
    """Dr. GRPO's constant of each kind: the longest act there can be. Images of a policy are all of one length."""
    longest = {kind: settings.max_actions for kind, settings in recipe.sampling.kinds().items()}
    for act in (one.act for one in samples):
        longest[act.kind] = max(longest[act.kind], act.num_actions)
    return longest


def _sync_reference(policy: TrainablePolicy, optimizer: PolicyOptimizer, algorithm: AlgorithmConfig) -> None:
    """Move the reference where the recipe asks for it and this optimizer step is one of those."""
    sync = algorithm.reference_sync
    if sync is not None and optimizer.num_steps % sync.every == 0:
        mix_into_reference(policy, sync.alpha)
        optimizer.reference_moved = True


def _merge_stats(stats: Sequence[Stats]) -> Stats:
    """Metrics of several optimizer steps as one: means, maxima, minima; the log-prob gap before the weights moved."""
    merged: Stats = {}
    for key in dict.fromkeys(key for one in stats for key in one):
        values = [one[key] for one in stats if key in one]
        if "/train_rollout_" in key:
            merged[key] = values[0]
        elif key.endswith("_max"):
            merged[key] = max(values)
        elif key.endswith("_min"):
            merged[key] = min(values)
        else:
            merged[key] = sum(values) / len(values)
    return merged

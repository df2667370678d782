"""Learn from one rollout: `num_iterations` passes of `num_minibatches` optimizer steps.

Old log-probs (law 3) are those of sampling when sampling and learning both compute in float32. Under autocast a
replayed log-prob differs from the sampled one by more than the ratio should, so they are replayed with the learner's
weights and micro-batches: by a pass before the first of several optimizer steps, or, for a single one, by that step's
own forward pass. The metric `old_log_probs_recomputed` says which rule applied.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import torch

from motet.config import AlgorithmConfig, Recipe
from motet.core.protocols import Replay, TrainablePolicy
from motet.core.trajectory import Act, ActKind, ActWithAdvantage, DenoisingSteps, Group, TextTokens
from motet.numerics.entropies import highest_entropies
from motet.policies.diffusion import renoise
from motet.policies.trainable import mix_into_reference
from motet.training.losses import HighEntropy, KindSettings, PolicyGradientLoss, kind_settings, required_extras
from motet.training.optimizer_step import PolicyOptimizer, Stats, count_by_kind, micro_batches

MOST_GAP, MOST_GAP_RECOMPUTED = 0.1, 3.0
"""The most that replayed log-probs may differ from the sampled ones, in the mean over a micro-batch, before the weights
move. Where ratios start from the sampled log-probs, more would be ratios that are off by 10 % with no update at work;
under autocast ratios do not contain the difference, and bfloat16 alone makes some hundredths."""


def update(
    policy: TrainablePolicy,
    learner: PolicyOptimizer,
    groups: Sequence[Group],
    credited: Sequence[ActWithAdvantage],
    recipe: Recipe,
    step: int,
) -> Stats:
    """The optimizer steps of one rollout. Without a credited action there is none, and `skipped` is 1.

    Ratios, gaps, clipping and entropy are reported over the acts that were replayed.
    """
    credited = [one for one in credited if one.act.num_actions]
    algorithm = recipe.algorithm
    masked = _truncated(credited) if algorithm.mask_truncated_completions else set[int]()
    learning = [n for n in range(len(credited)) if n not in masked]
    if not learning:
        return {"skipped": 1.0}
    played = [one.act for one in credited]
    acts = [renoise_for_nft(act, recipe, (recipe.run.seed, step, n)) for n, act in enumerate(played)]
    settings = kind_settings(algorithm, max_completion_length(acts, recipe.sampling.text.max_tokens))
    recomputed = _recomputed(policy)
    reference = _reference_replays(policy, acts, learning, settings, recipe)
    # An act without advantage adds nothing to the gradient when neither a KL nor an entropy bonus asks after it: it
    # counts in the denominators and is not replayed. Of a policy that is right most of the time that is most acts.
    quiet = reference is None and algorithm.entropy_bonus == 0 and algorithm.flow.objective != "nft"
    speaks = [one.advantage != 0 or not quiet for one in credited]
    owners, labels = group_index_of(groups, played), [(act.kind, act.name) for act in acts]
    heads = set(first_of_each_label(learning, list(zip(owners, labels, strict=True))))
    loud = [n for n in learning if speaks[n] or n in heads]
    old = _old_replays(policy, [acts[n] for n in loud], settings, recipe)
    old_of = None if old is None else dict(zip(loud, old, strict=True))
    most_gap = MOST_GAP_RECOMPUTED if recomputed else MOST_GAP
    stats: list[Stats] = []
    for iteration in range(algorithm.num_iterations):
        for chosen in minibatches(owners, algorithm.num_minibatches, (recipe.run.seed, step, iteration)):
            counts = count_by_kind([acts[n] for n in chosen], [n in masked for n in chosen])
            chosen = [n for n in chosen if n not in masked]
            if not chosen:
                continue
            high_entropy = _high_entropy(policy, acts, chosen, recipe)
            # The step is taken even if none speaks that anything trained made: momentum moves on.
            speaking = [n for n in chosen if speaks[n]]
            spare = first_of_each_label(chosen, labels, speaking)
            chosen = [*speaking, *spare]
            objective = PolicyGradientLoss(
                algorithm,
                settings,
                [credited[n].advantage for n in chosen],
                None if old_of is None else [old_of[n] for n in chosen],
                None if reference is None else [reference[n] for n in chosen],
                None if stats else most_gap,
                None if high_entropy is None else high_entropy.of(chosen),
            )
            stats.append(learner.step([acts[n] for n in chosen], objective, counts, len(spare)))
            _sync_reference(policy, learner, algorithm)
    learner.release()
    return {**_merged(stats), "old_log_probs_recomputed": float(recomputed)}


def _recomputed(policy: TrainablePolicy) -> bool:
    """Whether old log-probs are replayed, by the rule above."""
    return policy.autocast is not None or policy.rollout_autocast is not None


def _truncated(credited: Sequence[ActWithAdvantage]) -> set[int]:
    """Positions of the texts that were cut off."""
    return {n for n, one in enumerate(credited) if isinstance(one.act, TextTokens) and not one.act.finished}


def _reference_replays(
    policy: TrainablePolicy,
    acts: Sequence[Act],
    chosen: Sequence[int],
    settings: Mapping[ActKind, KindSettings],
    recipe: Recipe,
) -> dict[int, Replay] | None:
    """Replays of the chosen acts under the reference's weights, by their positions; None without a KL."""
    if not any(of_kind.beta for of_kind in settings.values()):
        return None
    needs = required_extras(recipe.algorithm, settings, with_reference=True)
    with policy.reference():
        replays = replay_frozen(policy, [acts[n] for n in chosen], recipe.optimizer.tokens_per_microbatch, needs)
    return dict(zip(chosen, replays, strict=True))


def _high_entropy(
    policy: TrainablePolicy, acts: Sequence[Act], chosen: Sequence[int], recipe: Recipe
) -> HighEntropy | None:
    """The actions of the highest entropy of each kind, over the whole step before any gradient; None: all.

    Of acts without an entropy, which denoising acts are, all actions. The masks are indexed as `acts`.
    """
    share = recipe.algorithm.top_entropy_quantile
    if share == 1:
        return None
    replays = replay_frozen(policy, [acts[n] for n in chosen], recipe.optimizer.tokens_per_microbatch, ("entropy",))
    masks = [torch.ones(act.num_actions, dtype=torch.bool) for act in acts]
    counts: dict[ActKind, int] = {
        kind: actions for kind, (_, actions) in count_by_kind([acts[n] for n in chosen]).items()
    }
    for kind in counts:
        found = {n: replay.extras.get("entropy") for n, replay in zip(chosen, replays, strict=True)}
        own = {n: entropy.cpu() for n, entropy in found.items() if acts[n].kind == kind and entropy is not None}
        if own:
            highest = highest_entropies(torch.cat([*own.values()]), share)
            counts[kind] = int(highest.sum())
            for n, mask in zip(own, highest.split([len(entropy) for entropy in own.values()]), strict=True):
                masks[n] = mask
    return HighEntropy(masks, counts)


def _sync_reference(policy: TrainablePolicy, learner: PolicyOptimizer, algorithm: AlgorithmConfig) -> None:
    """Move the reference where the recipe asks for it and this optimizer step is one of those."""
    if algorithm.sync_ref_model and learner.steps % algorithm.ref_model_sync_steps == 0:
        mix_into_reference(policy, algorithm.ref_model_mixup_alpha)
        learner.reference_moved = True


def renoise_for_nft(act: Act, recipe: Recipe, key: tuple[int, ...]) -> Act:
    """The act that the objective takes: DiffusionNFT learns from the final picture, noised anew."""
    if recipe.algorithm.flow.objective == "nft" and isinstance(act, DenoisingSteps):
        return renoise(act, key)
    return act


def _old_replays(
    policy: TrainablePolicy, acts: Sequence[Act], settings: Mapping[ActKind, KindSettings], recipe: Recipe
) -> list[Replay] | None:
    """What the acts' ratios start from, by the rule above. None, and extras left out: the step's own forward pass."""
    algorithm, recomputed = recipe.algorithm, _recomputed(policy)
    needs = required_extras(algorithm, settings, with_reference=False, of_old=True)
    replays: list[Replay] | None = None
    if algorithm.num_iterations * algorithm.num_minibatches > 1 and (recomputed or needs):
        replays = replay_frozen(policy, acts, recipe.optimizer.tokens_per_microbatch, needs)
    if recomputed:
        return replays
    extras = [{}] * len(acts) if replays is None else [replay.extras for replay in replays]
    nothing = torch.zeros(0)  # DiffusionNFT has no ratio
    sampled = [nothing if act.log_probs is None else act.log_probs for act in acts]
    return [Replay(log_probs, own) for log_probs, own in zip(sampled, extras, strict=True)]


@torch.no_grad()
def replay_frozen(
    policy: TrainablePolicy, acts: Sequence[Act], budget: int, needs: Collection[str] = ()
) -> list[Replay]:
    """Replays without gradient, in micro-batches of at most `budget` tokens."""
    result: dict[int, Replay] = {}
    for members in micro_batches([policy.num_tokens(act) for act in acts], budget):
        result |= zip(members, policy.replay([acts[n] for n in members], needs), strict=True)
    return [result[n] for n in range(len(acts))]


def minibatches(owners: Sequence[int], count: int, key: tuple[int, int, int]) -> list[list[int]]:
    """Positions of acts in `count` parts of like size, none of them empty; `owners` are the acts' groups.

    The acts of a group stay together. Groups are shuffled by the key: seed, step and iteration.
    """
    groups = sorted(set(owners))
    if count > 1:
        draws = random.Random(f"motet {key}")  # Python promises only `random()` to stay as it is, not `shuffle`
        groups.sort(key=lambda _: draws.random())
    parts = [set(groups[part::count]) for part in range(count)]
    return [[n for n, owner in enumerate(owners) if owner in part] for part in parts if part]


def first_of_each_label(chosen: Iterable[int], labels: Sequence[Hashable], speaking: Collection[int] = ()) -> list[int]:
    """The first act of each label, but of those labels of which any act speaks."""
    known = {labels[n] for n in speaking}
    firsts: dict[Hashable, int] = {}
    for n in chosen:
        if labels[n] not in known:
            firsts.setdefault(labels[n], n)
    return list(firsts.values())


def group_index_of(groups: Sequence[Group], acts: Sequence[Act]) -> list[int]:
    """The number of the group in which each act was played."""
    group_of = {
        id(act): number
        for number, group in enumerate(groups)
        for trajectory in group.trajectories
        for act in trajectory.acts
    }
    return [group_of[id(act)] for act in acts]


def max_completion_length(acts: Sequence[Act], max_tokens: int) -> dict[ActKind, int]:
    """Dr. GRPO's constant of each kind: the longest act there can be. Pictures of a policy are all of one length."""
    longest: dict[ActKind, int] = {}
    for act in acts:
        floor = max_tokens if act.kind == "text" else 1
        longest[act.kind] = max(longest.get(act.kind, floor), act.num_actions)
    return longest


def _merged(stats: Sequence[Stats]) -> Stats:
    """Numbers of several optimizer steps as one: means, maxima, minima; the log-prob gap before the weights moved."""
    merged: Stats = {}
    for key in dict.fromkeys(key for one in stats for key in one):
        values = [one[key] for one in stats if key in one]
        if "log_prob_gap" in key:
            merged[key] = values[0]
        elif key.endswith("_max"):
            merged[key] = max(values)
        elif key.endswith("_min"):
            merged[key] = min(values)
        else:
            merged[key] = sum(values) / len(values)
    return merged

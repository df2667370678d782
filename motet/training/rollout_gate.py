"""The gate between a rollout and its update: which acts are trained on, which need correction, which are wrong.

    of the acts of a kind                          without `rollout_is`    with it
    mean difference at most 0.1 nats               trained on              corrected
    mean difference above 0.1 nats                 rejected                corrected
    mean difference above 3 nats                   rejected                rejected
    sampled by another version of the policy       rejected                corrected

The difference is |replayed - sampled| log-probs before the weights move, in the mean over the actions of an optimizer
step. Whether a kind's acts are corrected is said by its loss (`Loss.corrects_rollouts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from motet.config import AlgorithmConfig
from motet.core.errors import ConfigError, NumericsError
from motet.core.trajectory import Act, DenoisingSteps
from motet.training.batches import Stats, StepBatch
from motet.training.losses import Loss, loss_key

MAX_LOGPROB_DIFF = 0.1
"""Nats. More would be gradients that are off by 10 %; bfloat16 makes some hundredths."""
MAX_LOGPROB_DIFF_CORRECTED = 3.0
"""Nats. Weights of `exp(-3)` leave little to train on: sampling and training compute different things."""


def max_logprob_diff(losses: Mapping[str, Loss[Any]]) -> dict[str, float]:
    """The bound of each kind of act."""
    return {
        kind: MAX_LOGPROB_DIFF_CORRECTED if loss.corrects_rollouts else MAX_LOGPROB_DIFF
        for kind, loss in losses.items()
    }


def check_logprob_diff(stats: Stats, batch: StepBatch) -> None:
    """Raise NumericsError where what a step reports exceeds the bound of `StepBatch.max_logprob_diff`."""
    for kind, bound in batch.max_logprob_diff.items():
        if stats.get(f"{kind}/train_rollout_logprob_diff", 0.0) > bound:
            raise _not_reproduced(kind, bound, stats, [act for act in batch.acts if act.kind == kind])


def check_versions(
    acts: Iterable[Act], version: int, losses: Mapping[str, Loss[Any]], algorithm: AlgorithmConfig
) -> None:
    """Raise ConfigError for acts of another version of the policy, unless the loss of their kind corrects for it."""
    for act in acts:
        loss = losses[act.kind]
        if act.policy_version == version or loss.corrects_rollouts:
            continue
        key = loss_key(algorithm, act.kind)
        can = f"set {key}.rollout_is to token, which weighs each action for that, or " if _has_rollout_is(loss) else ""
        raise ConfigError(
            f"The act {act.name!r} was sampled by version {act.policy_version} of the policy, which has version "
            f"{version} now, and {key} does not correct for that.",
            fix=f"{can}call motet.rollout again before every update; for several optimizer steps on one rollout set "
            "algorithm.num_iterations or algorithm.num_minibatches.",
        )


def _has_rollout_is(loss: Loss[Any]) -> bool:
    return "rollout_is" in type(loss.settings).model_fields


def _not_reproduced(kind: str, bound: float, stats: Stats, acts: list[Act]) -> NumericsError:
    mean, largest = (stats[f"{kind}/train_rollout_logprob_diff{suffix}"] for suffix in ("", "_max"))
    names = ", ".join(dict.fromkeys(act.name for act in acts)) or "of another process"
    cause = "sampling and training compute different values"
    fix = "use one precision for both (policy.dtype, policy.rollout_dtype)"
    if acts and isinstance(acts[0], DenoisingSteps):
        level = acts[0].sampling.noise_level
        cause = f"rounding may outweigh the noise of sampling.denoising.noise_level={level:g}"
        fix = "raise sampling.denoising.noise_level (0.7 is Flow-GRPO's)"
    if bound == MAX_LOGPROB_DIFF:
        fix += ", or set algorithm.loss.rollout_is to token, which weighs each action for the difference"
    return NumericsError(
        f"The replayed log-probs of the {kind} acts ({names}) differ from the sampled ones by {mean:.3g} nats in the "
        f"mean and {largest:.3g} at most, before any update; expected at most {bound:g} in the mean: {cause}.",
        fix=f"{fix}.",
    )

"""What a rollout sampled from, against what the learner scores: importance weights, and how far the two are apart.

Sampling in another precision, by another engine or with older weights gives other log-probs than the learner's. Ratios
start from the old log-probs, those of the weights at the start of the update, so that clipping measures the update
alone; the weight `w = min(pi_old / pi_behaviour, C)` makes up for the rest (`motet.numerics.ratios`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.trajectory import Act
from motet.training.batches import DeviceStats, PackedBatch

RATIO_BAND = (0.8, 1.2)
"""Outside this band, PPO's usual clip range, a ratio counts as far from 1."""


def mismatch_report(difference: Float[Tensor, "A"], weights: Float[Tensor, "A"], threshold: float) -> DeviceStats:
    """|replayed - sampled| log-probs, the actions whose ratio leaves `RATIO_BAND`, and the importance weights.

    `weights` are not yet truncated at `threshold`. While the weights of the policy have not moved since sampling, the
    `difference` is the error of invariant 1.
    """
    ratios, (low, high) = difference.exp(), RATIO_BAND
    return {
        "train_rollout_logprob_diff": difference.abs().sum(),
        "train_rollout_logprob_diff_max": difference.abs().max(),
        "train_rollout_ratio_outside": ((ratios < low) | (ratios > high)).sum(),
        "rollout_is_mean": weights.clamp(max=threshold).sum(),
        "rollout_is_truncated": (weights > threshold).sum(),
    }


def sampled_log_probs(batch: PackedBatch) -> Float[Tensor, "A"]:
    """Of the scored distribution at sampling. Raises ValueError for an act that a dataset gives, which has none."""
    return batch.like_log_probs(torch.cat([_log_probs(act) for act in batch.acts]))


def behaviour_log_probs(batch: PackedBatch, sampled: Float[Tensor, "A"]) -> Float[Tensor, "A"]:
    """Of the distribution that was sampled from, which under guidance `conditional` is not the scored one."""
    acts = batch.acts
    if all(act.behaviour_log_probs is None for act in acts):
        return sampled
    own = [_log_probs(act) if act.behaviour_log_probs is None else act.behaviour_log_probs for act in acts]
    return batch.like_log_probs(torch.cat(own))


def _log_probs(act: Act) -> Float[Tensor, "N"]:
    if act.log_probs is None:
        raise ValueError(f"act {act.name!r} was encoded from data, not sampled: it has no log-probs to compare with")
    return act.log_probs

"""What the losses of an optimizer step report: kept on the device, fetched once, checked before the weights move."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motet.core.errors import NumericsError
from motet.numerics.transfers import fetch
from motet.training.batches import Counts, DeviceStats, PackedBatch, Stats, merge_counts
from motet.training.losses import Loss

Losses = Mapping[str, Loss[Any]]


@dataclass(frozen=True, eq=False)
class ScoredActs:
    """One kind of act in one micro-batch: its loss, times its weight, and what the loss reports, without gradient.

    `batch` has neither its autograd graph nor its extras, which are large.
    """

    loss: Loss[Any]
    value: Tensor
    reported: DeviceStats
    batch: PackedBatch

    @classmethod
    def of(cls, loss: Loss[Any], value: Tensor, reported: DeviceStats, packed: PackedBatch) -> ScoredActs:
        """From what a loss returns for a packed batch."""
        return cls(loss, value.detach(), reported, replace(packed, log_probs=packed.log_probs.detach(), extras={}))

    def check(self, value: float) -> None:
        """Raise NumericsError unless the fetched loss is finite."""
        if not math.isfinite(value):
            raise _not_finite(value, self.batch)


def fetch_metrics(scored: Sequence[ScoredActs], norm: Tensor | float) -> tuple[list[Stats], float]:
    """The metrics of each of `scored`, with `loss` its value, and the gradient's norm: one transfer per device.

    Raises NumericsError for what is not finite.
    """
    on_device = [value for one in scored for value in (one.value, *one.reported.values())]
    *values, fetched_norm = fetch([*on_device, norm])
    remaining: Iterator[float] = iter(values)
    metrics: list[Stats] = []
    for one in scored:
        value = next(remaining)
        reported = {name: next(remaining) for name in one.reported}
        one.check(value)
        metrics.append({"loss": value, **reported})
    if not math.isfinite(fetched_norm):
        raise NumericsError(
            f"The gradient norm is {fetched_norm}, though the loss is finite.",
            fix="lower optimizer.learning_rate, or set policy.dtype to float32.",
        )
    return metrics, fetched_norm


def sum_metrics(scored: Sequence[ScoredActs], metrics: Sequence[Stats]) -> Stats:
    """The metrics of all micro-batches as `kind/name`: sums and extremes; `loss` is the whole loss."""
    totals: Stats = {"loss": 0.0}
    for one, reported in zip(scored, metrics, strict=True):
        totals["loss"] += reported["loss"]
        for name, value in reported.items():
            _add(totals, f"{one.batch.kind}/{name}", value)
    return totals


def merge_metrics(parts: Sequence[tuple[Stats, Counts]]) -> tuple[Stats, dict[str, tuple[int, int]]]:
    """The `sum_metrics` of all processes as one, and so their numbers of acts and actions."""
    totals: Stats = {}
    for part, _ in parts:
        for name, value in part.items():
            _add(totals, name, value)
    return totals, merge_counts(counts for _, counts in parts)


def _add(totals: Stats, key: str, value: float) -> None:
    if key.endswith("_max"):
        totals[key] = max(totals.get(key, value), value)
    elif key.endswith("_min"):
        totals[key] = min(totals.get(key, value), value)
    else:
        totals[key] = totals.get(key, 0.0) + value


def mean_metrics(totals: Stats, counts: Counts, losses: Losses) -> Stats:
    """Sums as means over the actions or acts of their kind that were replayed; extremes and losses as they are."""
    means: Stats = {}
    by_name: dict[str, tuple[str, tuple[int, int]]] = {kind: (kind, count) for kind, count in counts.items()}
    for key, total in totals.items():
        prefix, _, name = key.rpartition("/")
        if not prefix or name == "loss" or name.endswith(("_max", "_min")):
            means[key] = total
        else:
            kind, (num_acts, num_actions) = by_name[prefix]
            means[key] = total / (num_acts if name in losses[kind].act_metrics else num_actions)
    return means


def _not_finite(loss: float, batch: PackedBatch) -> NumericsError:
    names = ", ".join(dict.fromkeys(act.name for act in batch.acts))
    broken = int((~torch.isfinite(batch.log_probs)).sum())
    cause = (
        f"{broken} of {len(batch.log_probs)} replayed log-probs are not finite"
        if broken
        else "the replayed log-probs are finite, so an advantage, an old or a reference log-prob is not"
    )
    return NumericsError(
        f"The loss of the {batch.kind} acts ({names}) is {loss}: {cause}.",
        fix="lower optimizer.learning_rate, and look at this step's samples and rewards.",
    )

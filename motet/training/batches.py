"""The acts of one optimizer step, cut into micro-batches whose actions lie concatenated on one axis."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motet.core.protocols import Replay
from motet.core.trajectory import Act
from motet.numerics.aggregation import StepCounts
from motet.numerics.transfers import to_device

Stats = dict[str, float]
DeviceStats = dict[str, Tensor | float]
"""Metrics where they were computed, as 0-d tensors: `item()` would wait for the device."""
Counts = Mapping[str, tuple[int, int]]
"""Acts and actions of each kind."""


@dataclass(frozen=True, eq=False)
class HighEntropy:
    """Which actions `[N]` of each act of the step keep their policy loss, and how many of each kind do.

    Kinds without a count keep all.
    """

    masks: Sequence[Tensor]
    counts: Mapping[str, int]

    def of(self, chosen: Sequence[int]) -> HighEntropy:
        """For some of the acts, in this order; the counts stay those of the whole step."""
        return HighEntropy([self.masks[n] for n in chosen], self.counts)


@dataclass(frozen=True, eq=False)
class StepBatch:
    """The acts of one optimizer step, and what their losses take beside them; all sequences are indexed as `acts`.

    `old` are replays under the weights at the start of the update, `reference` replays under the reference weights.
    With `old` None the replayed log-probs themselves are the old ones: the ratio is 1 and the gradient on-policy.
    `counts` are the denominators, by default those of `acts`: whoever leaves acts out because they would add nothing to
    the gradient gives the counts of all, and so does one of several processes, whose batch holds its own acts alone.
    `fallbacks` are acts that are replayed, one by one, only if no act before them had a gradient: their places in
    `acts`, None for those of other processes. Acts of one `units` number share a micro-batch; by default every act is
    alone.
    `max_actions` is the longest act there can be of each kind (Dr. GRPO's constant).
    `max_logprob_diff` is given in the first step of an update: how far, by kind of act, replayed log-probs may be from
    the sampled ones, in the mean over the step.
    """

    acts: Sequence[Act]
    advantages: Sequence[float] = ()
    old: Sequence[Replay] | None = None
    reference: Sequence[Replay] | None = None
    high_entropy: HighEntropy | None = None
    counts: Counts | None = None
    fallbacks: Sequence[int | None] = ()
    units: Sequence[int] | None = None
    max_actions: Mapping[str, int] = field(default_factory=dict[str, int])
    max_logprob_diff: Mapping[str, float] = field(default_factory=dict[str, float])

    @cached_property
    def denominators(self) -> Counts:
        """Acts and actions of each kind that the losses are means over."""
        return count_by_kind(self.acts) if self.counts is None else self.counts

    def micro_batches(self, num_tokens: Sequence[int], budget: int) -> Iterator[list[int]]:
        """Positions of the acts that have actions, without the fallback acts, at most `budget` tokens at a time."""
        active = [n for n, act in enumerate(self.acts) if act.num_actions and n not in self.fallbacks]
        units = None if self.units is None else [self.units[n] for n in active]
        for places in micro_batches([num_tokens[n] for n in active], budget, units):
            yield [active[place] for place in places]

    def pack(self, chosen: Sequence[int], replays: Sequence[Replay]) -> Iterator[PackedBatch]:
        """Split a replayed micro-batch by kind of act, and concatenate each kind's actions."""
        kinds: list[str] = list(dict.fromkeys(self.acts[n].kind for n in chosen))
        for kind in kinds:
            places = [k for k, n in enumerate(chosen) if self.acts[n].kind == kind]
            own = [replays[k] for k in places]
            lengths = torch.tensor([self.acts[chosen[k]].num_actions for k in places])
            log_probs = torch.cat([replay.log_probs for replay in own])
            yield PackedBatch(
                kind,
                self,
                [chosen[k] for k in places],
                log_probs,
                {name: torch.cat([replay.extras[name] for replay in own]) for name in own[0].extras},
                to_device(torch.repeat_interleave(torch.arange(len(places)), lengths), log_probs.device),
                to_device(lengths, log_probs.device),
            )


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """The actions of one kind of act in one micro-batch, concatenated on one axis; see `motet.numerics.reductions`.

    `positions` are the acts' places in the `step`; `extras` are what the loss asked for and the policy offers for this
    kind; `owner` names each action's act among the B of this batch.
    """

    kind: str
    step: StepBatch
    positions: Sequence[int]
    log_probs: Float[Tensor, "A"]
    extras: Mapping[str, Float[Tensor, "A ..."]]
    owner: Int[Tensor, "A"]
    lengths: Int[Tensor, "B"]

    @property
    def acts(self) -> list[Act]:
        """The B acts."""
        return [self.step.acts[n] for n in self.positions]

    @property
    def counts(self) -> StepCounts:
        """Acts and actions of this kind in the whole step: what a loss is divided by."""
        return StepCounts(*self.step.denominators[self.kind], self.step.max_actions.get(self.kind))

    @cached_property
    def advantages(self) -> Float[Tensor, "A"]:
        """Every action has its act's."""
        return self.like_log_probs(torch.tensor([self.step.advantages[n] for n in self.positions]))[self.owner]

    @cached_property
    def old_log_probs(self) -> Float[Tensor, "A"]:
        """Under the weights at the start of the update, without gradient."""
        return self.log_probs.detach() if self.step.old is None else self._gather(self.step.old)

    def old(self, name: str) -> Float[Tensor, "A ..."]:
        """An extra at the start of the update; that of this forward pass where it was not replayed before."""
        old = self.step.old
        if old is None or name not in old[self.positions[0]].extras:
            return self.extras[name].detach()
        return self._gather(old, name)

    @property
    def has_reference(self) -> bool:
        """Whether the acts were replayed under the reference weights."""
        return self.step.reference is not None

    def reference(self, name: str | None = None) -> Float[Tensor, "A ..."]:
        """Log-probs under the reference weights, or an extra by name."""
        assert self.step.reference is not None, "the loss did not declare that it needs the reference"
        return self._gather(self.step.reference, name)

    @property
    def high_entropy(self) -> Float[Tensor, "A"] | None:
        """1 for the actions that keep their policy loss, else 0; None: all do."""
        selected = self.step.high_entropy
        if selected is None or self.kind not in selected.counts:
            return None
        return self.like_log_probs(torch.cat([selected.masks[n] for n in self.positions]))

    def _gather(self, replays: Sequence[Replay], extra: str | None = None) -> Float[Tensor, "A ..."]:
        own = [replays[n] for n in self.positions]
        return self.like_log_probs(torch.cat([r.log_probs if extra is None else r.extras[extra] for r in own]))

    def like_log_probs(self, values: Tensor) -> Tensor:
        """Values in the type of the log-probs, where these are."""
        return to_device(values, self.log_probs.device, self.log_probs.dtype)


def micro_batches(num_tokens: Sequence[int], budget: int, units: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Positions grouped so that `count x longest` stays within the budget of tokens, acts of like length together.

    Positions of one unit stay together, in their order; without `units` every position is one. A unit that exceeds the
    budget is a batch of its own. The sort is stable, so the acts of a group, which share their context, mostly stay
    together.
    """
    members: dict[int, list[int]] = {}
    for place in range(len(num_tokens)):
        members.setdefault(place if units is None else units[place], []).append(place)
    batch: list[int] = []
    for unit in sorted(members.values(), key=lambda places: max(num_tokens[n] for n in places)):
        longest = max(num_tokens[n] for n in unit)
        if batch and (len(batch) + len(unit)) * longest > budget:
            yield batch
            batch = []
        batch += unit
    if batch:
        yield batch


def count_by_kind(acts: Iterable[Act], masked: Iterable[bool] = ()) -> dict[str, tuple[int, int]]:
    """Acts and actions of each kind: the denominators of an optimizer step. `masked` acts count without actions."""
    counts: dict[str, tuple[int, int]] = {}
    for act, hidden in itertools.zip_longest(acts, masked, fillvalue=False):
        assert isinstance(act, Act)
        number, actions = counts.get(act.kind, (0, 0))
        counts[act.kind] = (number + 1, actions + (0 if hidden else act.num_actions))
    return counts


def merge_counts(parts: Iterable[Counts]) -> dict[str, tuple[int, int]]:
    """The counts of several processes as one."""
    merged: dict[str, tuple[int, int]] = {}
    for part in parts:
        for kind, (num_acts, num_actions) in part.items():
            acts, actions = merged.get(kind, (0, 0))
            merged[kind] = (acts + num_acts, actions + num_actions)
    return merged

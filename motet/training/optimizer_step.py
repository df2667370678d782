"""The learner: replay acts, sum loss terms over micro-batches, step the optimizer.

Every loss term has its own denominator per kind of act, counted over the whole optimizer step before any backward pass
(law 4 of docs/algorithms.md), so cutting the step into micro-batches changes memory and speed, never the update.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motet.config import OptimizerConfig
from motet.core.errors import ConfigError, NumericsError
from motet.core.protocols import Policy, Replay
from motet.core.trajectory import Act, ActKind
from motet.training.determinism import repeatable

Stats = dict[str, float]
Counts = Mapping[ActKind, tuple[int, int]]
"""Acts and actions of each kind."""


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """The actions of one kind of act in one micro-batch, concatenated on one axis; see `motet.numerics.reductions`.

    `numbers` are the acts' positions in the optimizer step; `num_acts` and `num_actions` are the counts of this kind
    over the whole step. `extras` are what the objective asked for and the policy offers for this kind.
    """

    kind: ActKind
    acts: Sequence[Act]
    numbers: Sequence[int]
    log_probs: Float[Tensor, "A"]
    extras: Mapping[str, Float[Tensor, "A ..."]]
    owner: Int[Tensor, "A"]
    lengths: Int[Tensor, "B"]
    num_acts: int
    num_actions: int

    def of(self, replays: Sequence[Replay], extra: str | None = None) -> Float[Tensor, "A ..."]:
        """This micro-batch's part of other replays of the step's acts: their log-probs, or an extra by name."""
        own = [replays[n] for n in self.numbers]
        return torch.cat([r.log_probs if extra is None else r.extras[extra] for r in own]).to(self.log_probs)

    def spread(self, per_act: Sequence[float]) -> Float[Tensor, "A"]:
        """One number per act of the step -> this micro-batch's `[A]`."""
        return self.log_probs.new_tensor([per_act[n] for n in self.numbers])[self.owner]


@runtime_checkable
class Objective(Protocol):
    """What an optimizer step minimises: a sum over actions, already divided by the step's own denominators."""

    @property
    def needs(self) -> Collection[str]:
        """What it asks of `Policy.replay` beside log-probs, by name."""
        ...

    def __call__(self, batch: PackedBatch) -> tuple[Tensor, Stats]:
        """The loss of a micro-batch, and numbers to report: sums over its actions, or `*_max` and `*_min`."""
        ...


class PolicyOptimizer:
    """AdamW with warm-up, gradient clipping and micro-batches, over whatever objective it is given.

    `steps` counts the optimizer steps taken: it says where the learning rate's schedule stands. `learnt` tells whether
    any of them had a gradient, `reference_moved` whether the reference is still the one that the run started from.
    `kinds` are those that the run may play; what none of them moves is refused.
    """

    def __init__(
        self, policy: Policy, config: OptimizerConfig, total_steps: int, kinds: Collection[ActKind] = ()
    ) -> None:
        self.policy, self.config, self.total_steps = policy, config, total_steps
        self.steps, self.learnt, self.reference_moved = 0, False, False
        self._unseen = set(kinds)
        self.parameters = list(policy.trainable().values())
        if not self.parameters:
            raise ConfigError("The policy has no parameters that train.", fix="name parts in policy.train.")
        groups = _parameter_groups(policy, config)
        self.peak_lrs = [group["lr"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups, betas=config.betas, weight_decay=config.weight_decay)

    @property
    def learning_rate(self) -> float:
        """The rate of the next optimizer step, of parts without a rate of their own."""
        return self.config.learning_rate * self._factor

    def release(self) -> None:
        """Let go of the gradients: the next rollout wants their memory."""
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def _factor(self) -> float:
        return lr_multiplier(self.config, self.steps, self.total_steps)

    def step(self, acts: Sequence[Act], objective: Objective, counts: Counts | None = None, spare: int = 0) -> Stats:
        """One optimizer step over these acts; the policy's version grows by one.

        `counts` are the denominators, by default those of `acts`. Whoever leaves acts out because they would add
        nothing to the gradient gives the counts of all. The last `spare` acts stand in for those: where nothing that
        trains made the acts before them they are replayed too, one by one until there is a gradient. Where there is
        none at all, it is zero.

        Reported sums come back as means over the actions of their kind that were replayed, as `kind/name`; `loss` is
        the whole loss. Raises NumericsError when a loss or the gradient is not finite, ValueError when no act has an
        action; the weights are then untouched; ConfigError once nothing that trains made an act of any kind.
        """
        self.optimizer.zero_grad(set_to_none=True)
        stats = self._accumulate(acts, objective, counts or count_by_kind(acts), len(acts) - spare)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not math.isfinite(norm):
            raise NumericsError(
                f"The gradient norm is {norm}, though the loss is finite.",
                fix="lower optimizer.learning_rate, or set policy.autocast to none.",
            )
        rate = self.learning_rate
        for group, peak in zip(self.optimizer.param_groups, self.peak_lrs, strict=True):
            group["lr"] = peak * self._factor
        self.steps += 1  # before the weights move: an error halfway shows that they did
        self.policy.version += 1
        self.optimizer.step()
        return {**stats, "grad_norm": norm, "learning_rate": rate}

    def _accumulate(self, acts: Sequence[Act], objective: Objective, counts: Counts, first_spare: int) -> Stats:
        """Add the gradient of every micro-batch; returns what the objective reports."""
        acting = [n for n, act in enumerate(acts) if act.num_actions]
        if not acting:
            raise ValueError("an optimizer step needs an act with an action")
        totals: Stats = {"loss": 0.0}
        replayed: list[int] = []
        learnt = False
        for members in self._batches(acts, acting, first_spare):
            if learnt and members[0] >= first_spare:
                break
            replayed += members
            replays = self.policy.replay([acts[n] for n in members], objective.needs)
            losses: list[Tensor] = []
            for batch in pack(acts, members, replays, counts):
                loss, reported = objective(batch)
                if not torch.isfinite(loss):
                    raise _not_finite(loss, batch)
                if loss.requires_grad:  # nothing of what made frozen acts trains: they are reported, no more
                    losses.append(loss)
                totals["loss"] += loss.item()
                _add(totals, batch.kind, {"loss": loss.item(), **reported})
            if losses:  # all at once: kinds may share a forward pass, or live on different devices
                with repeatable(losses[0].device):
                    torch.autograd.backward(losses)
                learnt = True
        reported_kinds = count_by_kind(acts[n] for n in replayed)
        self._require_gradient(learnt, reported_kinds)
        return _means(totals, reported_kinds)

    def _batches(self, acts: Sequence[Act], acting: Sequence[int], first_spare: int) -> Iterator[list[int]]:
        """Micro-batches of the acts that have actions, then each spare one alone."""
        needed = [n for n in acting if n < first_spare]
        costs = [self.policy.num_tokens(acts[n]) for n in needed]
        for places in micro_batches(costs, self.config.tokens_per_microbatch):
            yield [needed[place] for place in places]
        yield from ([n] for n in acting if n >= first_spare)

    def _require_gradient(self, learnt: bool, replayed: Collection[ActKind]) -> None:
        """Make a gradient that is missing zero: another step may have one, as long as any kind of act can have it."""
        self.learnt = self.learnt or learnt
        if learnt:
            return
        self._unseen -= set(replayed)
        if not self.learnt and not self._unseen:
            raise ConfigError(
                f"No part that trains has a say in the acts of this step ({', '.join(replayed)}).",
                fix="name a part in policy.train that makes them.",
            )
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)


def _parameter_groups(policy: Policy, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameters by peak rate. A part's name is one of the dotted names of its parameters."""
    groups: dict[str | None, list[torch.nn.Parameter]] = {}
    for name, parameter in policy.trainable().items():
        own = [part for part in config.learning_rates if part in name.split(".")]
        groups.setdefault(own[0] if own else None, []).append(parameter)
    for part in config.learning_rates:
        if part not in groups:
            raise ConfigError(
                f"optimizer.learning_rates.{part}={config.learning_rates[part]:g} concerns no parameter that trains.",
                fix="name a part that policy.train names.",
            )
    return [
        {"params": members, "lr": config.learning_rate if part is None else config.learning_rates[part]}
        for part, members in groups.items()
    ]


def pack(
    acts: Sequence[Act], members: Sequence[int], replays: Sequence[Replay], counts: Counts
) -> Iterator[PackedBatch]:
    """Split a replayed micro-batch by kind of act and concatenate each kind's actions."""
    kinds: list[ActKind] = list(dict.fromkeys(acts[n].kind for n in members))
    for kind in kinds:
        chosen = [k for k, n in enumerate(members) if acts[n].kind == kind]
        lengths = torch.tensor([acts[members[k]].num_actions for k in chosen])
        log_probs = torch.cat([replays[k].log_probs for k in chosen])
        extras = {name: torch.cat([replays[k].extras[name] for k in chosen]) for name in replays[chosen[0]].extras}
        yield PackedBatch(
            kind,
            [acts[members[k]] for k in chosen],
            [members[k] for k in chosen],
            log_probs,
            extras,
            torch.repeat_interleave(torch.arange(len(chosen)), lengths).to(log_probs.device),
            lengths.to(log_probs.device),
            *counts[kind],
        )


def micro_batches(costs: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions grouped so that `count x longest` stays within the budget of tokens, acts of like length together.

    An act that costs more than the budget goes alone. The sort is stable, so siblings, which come in order and share
    their context, mostly stay together.
    """
    batch: list[int] = []
    for number in sorted(range(len(costs)), key=lambda n: costs[n]):
        if batch and (len(batch) + 1) * costs[number] > budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def count_by_kind(acts: Iterable[Act], masked: Iterable[bool] = ()) -> dict[ActKind, tuple[int, int]]:
    """Acts and actions of each kind: the denominators of an optimizer step. `masked` acts count without actions."""
    counts: dict[ActKind, tuple[int, int]] = {}
    for act, hidden in itertools.zip_longest(acts, masked, fillvalue=False):
        assert isinstance(act, Act)
        number, actions = counts.get(act.kind, (0, 0))
        counts[act.kind] = (number + 1, actions + (0 if hidden else act.num_actions))
    return counts


def lr_multiplier(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The learning rate's factor at an optimizer step: linear warm-up, then the schedule down to zero at the end."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    done = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    if config.schedule == "linear":
        return 1.0 - done
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


def _add(totals: Stats, kind: ActKind, reported: Stats) -> None:
    for name, value in reported.items():
        key = f"{kind}/{name}"
        if name.endswith("_max"):
            totals[key] = max(totals.get(key, value), value)
        elif name.endswith("_min"):
            totals[key] = min(totals.get(key, value), value)
        else:
            totals[key] = totals.get(key, 0.0) + value


def _means(totals: Stats, counts: Counts) -> Stats:
    """Sums as means over the actions of their kind; extremes and losses as they are."""
    actions: dict[str, int] = {kind: number for kind, (_, number) in counts.items()}
    return {
        key: total if f"/{key}".endswith(("/loss", "_max", "_min")) else total / actions[key.partition("/")[0]]
        for key, total in totals.items()
    }


def _not_finite(loss: Tensor, batch: PackedBatch) -> NumericsError:
    names = ", ".join(dict.fromkeys(act.name for act in batch.acts))
    broken = int((~torch.isfinite(batch.log_probs)).sum())
    cause = (
        f"{broken} of {len(batch.log_probs)} replayed log-probs are not finite"
        if broken
        else "the replayed log-probs are finite, so an advantage, an old or a reference log-prob is not"
    )
    return NumericsError(
        f"The loss of the {batch.kind} acts ({names}) is {loss.item()}: {cause}.",
        fix="lower optimizer.learning_rate, and look at this step's samples and rewards.",
    )

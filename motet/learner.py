"""The learner: replay acts, sum loss terms over micro-batches, step the optimizer.

Every loss term has its own denominator per kind of act, counted over the whole optimizer step before any backward pass
(design law 4), so cutting the step into micro-batches changes memory and speed, never the update.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motet.config import OptimizerConfig
from motet.errors import NumericsError
from motet.protocols import Policy, Replay
from motet.trajectory import Act, ActKind

Stats = dict[str, float]


@dataclass(frozen=True)
class Packed:
    """The actions of one kind of act in one micro-batch, concatenated on one axis; see `motet.numerics.reductions`.

    `numbers` are the acts' positions in the optimizer step; `num_acts` and `num_actions` are the counts of this kind
    over the whole step.
    """

    kind: ActKind
    acts: Sequence[Act]
    numbers: Sequence[int]
    log_probs: Float[Tensor, "A"]
    extras: Mapping[str, Float[Tensor, "A"]]
    owner: Int[Tensor, "A"]
    lengths: Int[Tensor, "B"]
    num_acts: int
    num_actions: int

    def pack(self, per_act: Sequence[Tensor]) -> Float[Tensor, "A"]:
        """One stored `[N]` tensor per act of the step -> this micro-batch's `[A]`."""
        return torch.cat([per_act[n] for n in self.numbers]).to(self.log_probs)

    def spread(self, per_act: Sequence[float]) -> Float[Tensor, "A"]:
        """One number per act of the step -> this micro-batch's `[A]`."""
        return self.log_probs.new_tensor([per_act[n] for n in self.numbers])[self.owner]


class Objective(Protocol):
    """What an optimizer step minimises: a sum over actions, already divided by the step's own denominators."""

    needs: Collection[str]

    def __call__(self, batch: Packed) -> tuple[Tensor, Stats]:
        """The loss of a micro-batch, and sums over its actions to report; see `Learner.step` for how they add up."""
        ...


class Learner:
    """AdamW with warm-up, clipping and micro-batches, over whatever objective it is given."""

    def __init__(self, policy: Policy, config: OptimizerConfig, total_steps: int) -> None:
        self.policy, self.config = policy, config
        self.parameters = list(policy.trainable().values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: _rate(config, step, total_steps))

    def resume_at(self, optimizer_steps: int) -> None:
        """Put the schedule where it stood after so many optimizer steps."""
        self.schedule.last_epoch = optimizer_steps
        for group, base, factor in zip(
            self.optimizer.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True
        ):
            group["lr"] = base * factor(optimizer_steps)
        self.schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def step(self, acts: Sequence[Act], objective: Objective) -> Stats:
        """One optimizer step over these acts.

        Reported sums come back as means over the actions of their kind, under `kind/name`. Raises NumericsError when a
        loss or gradient is not finite; the weights are then untouched.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums: Stats = {}
        counts = _counts(acts)
        for members in micro_batches([self.policy.cost(act) for act in acts], self.config.tokens_per_microbatch):
            replays = self.policy.replay([acts[n] for n in members], objective.needs)
            losses = []
            for batch in pack(acts, members, replays, counts):
                loss, reported = objective(batch)
                if not torch.isfinite(loss):
                    raise NumericsError(
                        f"The loss of the {batch.kind} acts is {loss.item()}.",
                        fix="look for infinite log-probs or rewards in this step's samples; lower the learning rate.",
                    )
                losses.append(loss)
                for name, value in {"loss": loss.item() * batch.num_actions, **reported}.items():
                    key = f"{batch.kind}/{name}"
                    sums[key] = max(sums.get(key, 0.0), value) if name.endswith("_max") else sums.get(key, 0.0) + value
            torch.stack(losses).sum().backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not math.isfinite(norm):
            raise NumericsError(
                "The gradient norm is not finite.", fix="lower optimizer.learning_rate or raise epsilon."
            )
        rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.schedule.step()
        self.policy.version += 1
        means = {
            key: value if key.endswith("_max") else value / counts[key.split("/")[0]][1] for key, value in sums.items()
        }
        return {**means, "grad_norm": norm, "learning_rate": rate}


def pack(
    acts: Sequence[Act], members: Sequence[int], replays: Sequence[Replay], counts: Mapping[str, tuple[int, int]]
) -> Iterator[Packed]:
    """Split a replayed micro-batch by kind of act and concatenate each kind's actions."""
    for kind in dict.fromkeys(acts[n].kind for n in members):
        chosen = [k for k, n in enumerate(members) if acts[n].kind == kind]
        lengths = torch.tensor([acts[members[k]].num_actions for k in chosen])
        log_probs = torch.cat([replays[k].log_probs for k in chosen])
        extras = {name: torch.cat([replays[k].extras[name] for k in chosen]) for name in replays[chosen[0]].extras}
        yield Packed(
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

    The sort is stable, so siblings, which come in order and share their context, mostly stay together.
    """
    batch: list[int] = []
    for number in sorted(range(len(costs)), key=lambda n: costs[n]):
        if batch and (len(batch) + 1) * costs[number] > budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _counts(acts: Iterable[Act]) -> dict[str, tuple[int, int]]:
    """Per kind: acts and actions of the whole optimizer step."""
    counts: dict[str, tuple[int, int]] = {}
    for act in acts:
        number, actions = counts.get(act.kind, (0, 0))
        counts[act.kind] = (number + 1, actions + act.num_actions)
    return counts


def _rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The learning rate's factor at an optimizer step: warm-up, then the schedule down to zero."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    done = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    if config.schedule == "linear":
        return 1.0 - done
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0

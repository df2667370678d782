"""One optimizer step, top to bottom: replay the acts in micro-batches, add up their losses' gradients, clip, step.

Every loss term has its own denominator per kind of act, counted over the whole optimizer step before any backward pass
(invariant 4 of docs/algorithms.md), so cutting the step into micro-batches changes memory and speed, not the update.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from motet.config import OptimizerConfig
from motet.core.errors import ConfigError
from motet.core.protocols import TrainablePolicy
from motet.distributed.parallel import Parallel
from motet.training.batches import PackedBatch, Stats, StepBatch, count_by_kind
from motet.training.determinism import deterministic_backward
from motet.training.losses import Loss
from motet.training.rollout_gate import check_logprob_diff
from motet.training.step_metrics import Losses, ScoredActs, fetch_metrics, mean_metrics, merge_metrics, sum_metrics


class PolicyOptimizer:
    """AdamW with warm-up, gradient clipping and micro-batches, over whatever losses it is given.

    `num_steps` counts the optimizer steps taken: it says where the schedule of the learning rate stands.
    `received_gradient` tells whether any of them had a gradient, `reference_moved` whether the reference is still the
    one that the run started from. `kinds` are those that the run may sample; a run in which none of them has a
    gradient is rejected.
    """

    def __init__(
        self,
        policy: TrainablePolicy,
        config: OptimizerConfig,
        total_steps: int,
        kinds: Collection[str] = (),
        parallel: Parallel | None = None,
    ) -> None:
        self.parallel = parallel or Parallel()
        self.policy, self.config, self.total_steps = policy, config, total_steps
        self.num_steps, self.received_gradient, self.reference_moved = 0, False, False
        self._kinds_without_gradient = set(kinds)
        self.parameters = list(policy.trainable().values())
        if not self.parameters:
            raise ConfigError("The policy has no trainable parameters.", fix="name parts in policy.train.")
        groups = _parameter_groups(policy, config)
        self.peak_lrs = [group["lr"] for group in groups]
        self.adamw = _adamw(groups, self.parameters, config)

    def step(self, batch: StepBatch, losses: Losses) -> Stats:
        """One optimizer step over a batch of acts, each with the loss of its kind; the policy's version grows by one.

        Reported sums come back as means over the actions of their kind that were replayed, as `kind/name`; `loss` is
        the whole loss. Raises NumericsError when a loss or the gradient is not finite, or replayed log-probs
        are too far from the sampled ones (`motet.training.rollout_gate`), ValueError when no act has an
        action; the weights are then untouched; ConfigError once no kind of act has a gradient.
        """
        self.adamw.zero_grad(set_to_none=True)
        scored, replayed, has_gradient = self.add_gradients(batch, losses)
        self.parallel.reduce_gradients(self.parameters)
        if not has_gradient:  # another step may have one, as long as any kind of act can have it
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)
        clipped_norm = self.parallel.clip_gradient(self.parameters, self.config.max_grad_norm)
        processes = self.parallel.processes
        with processes.phase("optimizer step"):
            metrics, norm = fetch_metrics(scored, clipped_norm)  # the only wait for the device
        own = sum_metrics(scored, metrics), count_by_kind(batch.acts[n] for n in replayed)
        totals, counts = merge_metrics(processes.all_gather(own))
        if not counts:
            raise ValueError("an optimizer step needs an act with an action")
        self._require_gradient(has_gradient, counts)
        stats = mean_metrics(totals, counts, losses)
        check_logprob_diff(stats, batch)
        rate = self.learning_rate
        for group, peak in zip(self.adamw.param_groups, self.peak_lrs, strict=True):
            group["lr"] = peak * self._lr_multiplier
        self.num_steps += 1  # before the weights move: an error halfway shows that they did
        self.policy.version += 1
        self.adamw.step()
        return {**stats, "grad_norm": norm, "learning_rate": rate}

    def add_gradients(self, batch: StepBatch, losses: Losses) -> tuple[list[ScoredActs], list[int], bool]:
        """Replay every micro-batch and add its gradient, without a step; nothing here waits for the device.

        Returns the losses, the positions of the acts that were replayed, and whether any of them has a gradient.
        """
        needs = tuple(dict.fromkeys(name for loss in losses.values() for name in _needs(loss, batch)))
        num_tokens = [self.policy.num_tokens(act) if act.num_actions else 0 for act in batch.acts]
        processes = self.parallel.processes
        scored: list[ScoredActs] = []
        replayed: list[int] = []

        def replay(micro_batches: Sequence[Sequence[int]]) -> bool:
            passes = self.parallel.agree_on_passes(self.policy, batch.acts, micro_batches)
            received = False
            with processes.phase("replay"):
                for acts, members in passes:
                    replays = self.parallel.replay(self.policy, acts, needs)
                    if members is None:
                        terms = [0.0 * one.log_probs.sum() for one in replays if one.log_probs.requires_grad]
                    else:
                        replayed.extend(members)
                        terms = _loss_terms(batch.pack(members, replays), losses, scored)
                    if terms:  # all at once: kinds may share a forward pass, or live on different devices
                        with deterministic_backward(terms[0].device):
                            torch.autograd.backward(terms)
                        received = received or members is not None
            return processes.any(received)

        has_gradient = replay(list(batch.micro_batches(num_tokens, self.config.max_tokens_per_microbatch)))
        for n in batch.fallbacks:
            has_gradient = has_gradient or replay([] if n is None else [[n]])
        return scored, replayed, has_gradient

    def _require_gradient(self, has_gradient: bool, replayed: Collection[str]) -> None:
        """Raise ConfigError once every kind of act was replayed and none has ever had a gradient."""
        self.received_gradient = self.received_gradient or has_gradient
        if has_gradient:
            return
        self._kinds_without_gradient -= set(replayed)
        if not self.received_gradient and not self._kinds_without_gradient:
            raise ConfigError(
                f"No trainable parameter has a gradient from the acts of this step ({', '.join(replayed)}).",
                fix="name a part in policy.train that makes them.",
            )

    def free_gradients(self) -> None:
        """Free the gradients: the next rollout needs their memory."""
        self.adamw.zero_grad(set_to_none=True)

    @property
    def learning_rate(self) -> float:
        """The rate of the next optimizer step, of parts without a rate of their own."""
        return self.config.learning_rate * self._lr_multiplier

    @property
    def _lr_multiplier(self) -> float:
        return lr_multiplier(self.config, self.num_steps, self.total_steps)


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


def _adamw(
    groups: list[dict[str, Any]], parameters: Sequence[torch.nn.Parameter], config: OptimizerConfig
) -> torch.optim.AdamW:
    """On a GPU fused: one kernel that updates in place, sharded parameters too. torch's default there makes temporaries
    of the size of the weights, 6.6 GB for 1.65 billion parameters."""
    fused = True if all(parameter.is_cuda for parameter in parameters) else None
    return torch.optim.AdamW(groups, betas=config.betas, weight_decay=config.weight_decay, fused=fused)


def _parameter_groups(policy: TrainablePolicy, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameters by peak rate. A part's name is one of the dotted names of its parameters."""
    groups: dict[str | None, list[torch.nn.Parameter]] = {}
    for name, parameter in policy.trainable().items():
        own = [part for part in config.param_group_lrs if part in name.split(".")]
        groups.setdefault(own[0] if own else None, []).append(parameter)
    for part in config.param_group_lrs:
        if part not in groups:
            raise ConfigError(
                f"optimizer.param_group_lrs.{part}={config.param_group_lrs[part]:g} names no trainable parameter.",
                fix="name a part that policy.train names.",
            )
    return [
        {"params": members, "lr": config.learning_rate if part is None else config.param_group_lrs[part]}
        for part, members in groups.items()
    ]


def _needs(loss: Loss[Any], batch: StepBatch) -> tuple[str, ...]:
    return loss.needs(with_reference=batch.reference is not None).current


def _loss_terms(packs: Iterable[PackedBatch], losses: Losses, scored: list[ScoredActs]) -> list[Tensor]:
    """The losses of a micro-batch that have a gradient; adds them and what they report to `scored`."""
    terms: list[Tensor] = []
    for packed in packs:
        loss = losses[packed.kind]
        value, reported = loss(packed)
        value = loss.weight * value
        if value.requires_grad:  # acts that no trainable parameter made are reported, no more
            terms.append(value)
        scored.append(ScoredActs.of(loss, value, reported, packed))
    return terms

"""The keys of `algorithm`: advantages, loss and KL. Names are TRL's where TRL has one. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from motet.config.choice import Choice
from motet.config.sampling import KindName
from motet.config.section import Section


class KindConfig(Section):
    """The loss of one kind of act; None takes the algorithm's own."""

    loss: Choice | None = None
    """In place of algorithm.loss, with its options, e.g. nft or {name: grpo, epsilon: 1.0e-4}."""
    beta: NonNegativeFloat | None = None
    """KL coefficient."""
    weight: NonNegativeFloat = 1.0
    """Weight of this kind's loss in the sum."""


class ReferenceSyncConfig(Section):
    """Mix the present weights into the reference, for rewards too (TR-DPO, arXiv 2404.09656)."""

    every: PositiveInt = 512
    """Optimizer steps between two of these."""
    alpha: float = Field(default=0.6, gt=0.0, le=1.0)
    """The reference becomes alpha x present weights + (1 - alpha) x reference."""


class AlgorithmConfig(Section):
    """Advantage estimator x loss x KL. Paper names: docs/algorithms.md maps each to these settings."""

    num_generations: int = Field(default=8, ge=2)
    """G: generations per prompt, the group of group-relative advantages."""
    advantage: Choice = Choice.of("grpo")
    """Advantage estimator: grpo (baseline: the group's mean), rloo (that of the others), rejection, or a path."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide by the standard deviation over the group, over the batch, or not at all (Dr. GRPO)."""
    advantage_assignment: Literal["joint", "summed", "factorized"] = "joint"
    """Which rewards' advantage an act gets; see `motet.training.advantages`."""
    loss: Choice = Choice.of("grpo")
    """The loss, by name or path, with its options: docs/algorithms.md has a table. TRL's default is dapo."""
    beta: NonNegativeFloat = 0.0
    """Coefficient of the KL to the frozen starting weights."""
    per_kind: dict[KindName, KindConfig] = Field(default_factory=dict[str, KindConfig])
    """Settings that differ for one kind of act, e.g. {image: {beta: 0.01}}."""
    reference_sync: ReferenceSyncConfig | None = None
    """Move the reference towards the present weights every so many optimizer steps; None: it stays frozen."""
    dynamic_sampling: PositiveInt | None = None
    """Roll out further prompts in place of groups without reward variance, at most so many times per step (DAPO)."""
    num_iterations: PositiveInt = 1
    """Passes over each rollout (mu in the GRPO paper)."""
    num_minibatches: PositiveInt = 1
    """Optimizer steps per pass; clipping acts only when num_iterations x num_minibatches > 1."""

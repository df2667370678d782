"""How the processes of a run share one optimizer step: by one process alone, replicas, or fully sharded weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from motet.config import PolicyConfig
from motet.core.protocols import Replay, TrainablePolicy
from motet.core.trajectory import Act
from motet.distributed.processes import Processes
from motet.policies import load_policy


class Parallel:
    """One process. Subclasses: `Replicas` (replicas.py) and `FullySharded` (fully_sharded.py)."""

    name = "single"

    def __init__(self, processes: Processes | None = None) -> None:
        self.processes = processes or Processes()

    def load_policy(self, config: PolicyConfig) -> TrainablePolicy:
        """`motet.load_policy` of a recipe's section; `prepare` follows."""
        return load_policy(config.path, config)

    def prepare(self, policy: TrainablePolicy) -> None:
        """Called once, after the parts that train are chosen and before the optimizer and the reference are made."""

    gathers_reference = False
    """Whether the reference is whole inside `full_weights`, for rewards that ask it."""
    saves_alone = True
    """Whether the main process holds all that a checkpoint does; else all processes save it together."""

    @contextmanager
    def weights_on_main(self, policy: TrainablePolicy) -> Iterator[None]:
        """Inside, the main process can save the policy; all processes enter together unless it saves alone."""
        yield

    @contextmanager
    def full_weights(self, policy: TrainablePolicy) -> Iterator[None]:
        """Inside, the policy can sample and score without any collective: rollouts, rewards, evaluation."""
        yield

    def agree_on_passes(
        self, policy: TrainablePolicy, acts: Sequence[Act], micro_batches: Sequence[Sequence[int]]
    ) -> list[tuple[Sequence[Act], Sequence[int] | None]]:
        """The micro-batches in an order in which all processes run the same forward passes.

        Each is the acts to replay and their positions in `acts`; None: acts of no weight, replayed only because another
        process has a micro-batch more.
        """
        return [([acts[n] for n in members], members) for members in micro_batches]

    def replay(self, policy: TrainablePolicy, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """`policy.replay`, all processes at once."""
        return policy.replay(acts, needs)

    def reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """After the last backward pass: every parameter's gradient becomes the sum over the processes."""

    def clip_gradient(self, parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor | float:
        """Scale the summed gradient down to a norm; returns its norm before that, which nothing has waited for."""
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

"""What a policy tells whoever shards its weights over processes (FSDP2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from motet.core.protocols import TrainablePolicy
from motet.core.trajectory import Act
from motet.policies.trainable import ReferenceWeights


@runtime_checkable
class ShardablePolicy(TrainablePolicy, Protocol):
    """A policy whose weights can be sharded; all policies that `motet.load_policy` opens can.

    Its `replay` runs modules through their `forward` alone, and where the number of passes depends on the acts it asks
    `motet.policies.same_passes.from_all_processes`.
    """

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can train, by name. A part is sharded as a whole once anything of it trains."""
        ...

    @property
    def references(self) -> Sequence[ReferenceWeights]:
        """The copies of trainable parameters that `reference()` swaps in."""
        ...

    def shard_units(self) -> Sequence[nn.Module]:
        """Modules that are gathered when they start and freed when they end: the layers of transformers.

        Each runs in every replay of its key, with all of its parameters.
        """
        ...

    def pass_key(self, act: Act) -> str:
        """Acts of one key can be replayed together, and run the same sequence of modules whatever they are."""
        ...

    def free_sampler(self) -> None:
        """Forget what was derived from the present weights in order to sample: it may share memory with them."""
        ...

"""Where the rollouts and the rewards of a run are computed: in its own process, or in actors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from motet.core.protocols import TrainablePolicy
from motet.core.sampling import Sampling
from motet.core.trajectory import Group
from motet.training.rollout import RolloutRequest, rollout_tracks
from motet.training.setup import PlaceRewards


@runtime_checkable
class Rollout(Protocol):
    """Rolls out requests: `rollout_tracks` in this process, or what does the same elsewhere."""

    def __call__(
        self,
        policy: TrainablePolicy,
        requests: Sequence[RolloutRequest],
        num_generations: int,
        *,
        samplings: Mapping[str, Sampling],
        seed: int,
        step: int,
    ) -> list[list[Group]]: ...


@dataclass(frozen=True)
class Engines:
    """What a run is given beside its recipe.

    `place_rewards` replaces rewards of tracks by those that are called elsewhere. `max_staleness`: how many steps
    rollouts start ahead (`motet.training.rollout_pipeline`), which a `RemoteRollout` and `rollout_tracks` can.
    """

    rollout: Rollout = rollout_tracks
    place_rewards: PlaceRewards = tuple
    max_staleness: int = 0


LOCAL = Engines()
"""Everything in the run's own process."""

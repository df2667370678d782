"""What the command line says about a run on Ray. Imports neither torch nor ray."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from motet.core.errors import ConfigError
from motet.distributed.actor_pool import TIMEOUT


@dataclass(frozen=True)
class RayOptions:
    """Where a run's processes are and how many: `address` as `motet.distributed.ray_backend.ray_cluster` takes it.

    Every training worker has actors of its own. Rollouts start `max_staleness` steps ahead. `gpus_per_worker`,
    `gpus_per_actor`: of each training worker and each of its actors; below 1, several share one; see `with_gpus`.
    `timeout`: seconds that a process may take for one piece of work.
    """

    address: str
    train_workers: int = 1
    rollout_actors: int = 1
    reward_actors: int = 0
    max_staleness: int = 0
    gpus_per_actor: float | None = None
    gpus_per_worker: float | None = None
    timeout: float = TIMEOUT

    @property
    def num_cpus(self) -> int:
        """Logical processors: one for each process."""
        return self.train_workers * (1 + self.actors)

    @property
    def actors(self) -> int:
        """Of each training worker."""
        return self.rollout_actors + self.reward_actors

    def with_gpus(self, available: float) -> RayOptions:
        """The options with the GPUs of each process. Raises ConfigError where there are fewer than they need.

        Without `gpus_per_actor` every process has a GPU, or where there are too few an equal part of one. With it a
        training worker has one, or what its actors leave of one.
        """
        processes = self.train_workers * (1 + self.actors)
        share = 1.0 if processes <= available else 1.0 / math.ceil(processes / max(available, 1.0))
        if available == 0:
            share = 0.0
        per_actor = share if self.gpus_per_actor is None else self.gpus_per_actor
        own = share
        if self.gpus_per_actor is not None and available:
            of_actors = self.actors * per_actor
            own = 1.0 if self.train_workers * (1.0 + of_actors) <= available else max(0.0, 1.0 - of_actors)
        needed = self.train_workers * (own + self.actors * per_actor)
        if needed > available or (available and own == 0.0):
            raise ConfigError(
                f"{self.train_workers} training workers, and {self.train_workers * self.actors} actors with "
                f"{per_actor:g} GPUs each, need more than the {available:g} GPUs of the cluster.",
                fix="start fewer, or give each actor less of a GPU: --gpus-per-actor 0.25.",
            )
        return replace(self, gpus_per_actor=per_actor, gpus_per_worker=own)

    @property
    def arguments(self) -> list[str]:
        """The options as the command line takes them, those of the defaults left out."""
        given = ["--ray", self.address]
        for option, field in {**OPTIONS, "--timeout": "timeout"}.items():
            value = getattr(self, field)
            if value != RayOptions.__dataclass_fields__[field].default:
                given += [option, f"{value:g}"]
        return given


OPTIONS = {
    "--train-workers": "train_workers",
    "--rollout-actors": "rollout_actors",
    "--reward-actors": "reward_actors",
    "--max-staleness": "max_staleness",
    "--gpus-per-actor": "gpus_per_actor",
}
"""Options of `motet train` that have no effect without --ray, and the fields that they set."""

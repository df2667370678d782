"""What the command line says about a run on Ray. Imports neither torch nor ray."""

from __future__ import annotations

from dataclasses import dataclass

from motet.distributed.actor_pool import TIMEOUT


@dataclass(frozen=True)
class RayOptions:
    """Where a run's processes are and how many: `address` as `motet.distributed.ray_backend.ray_cluster` takes it.

    `gpus_per_actor`: of each rollout actor; below 1, actors share one. None: 1 where the cluster has GPUs.
    `timeout`: seconds that an actor may take for one call.
    """

    address: str
    rollout_actors: int = 1
    gpus_per_actor: float | None = None
    timeout: float = TIMEOUT

    @property
    def num_cpus(self) -> int:
        """Logical processors: one for each process."""
        return self.rollout_actors

    @property
    def arguments(self) -> list[str]:
        """The options as the command line takes them, those of the defaults left out."""
        given = ["--ray", self.address]
        for option, field in OPTIONS.items():
            value = getattr(self, field)
            if value != RayOptions.__dataclass_fields__[field].default:
                given += [option, f"{value:g}"]
        return given


OPTIONS = {
    "--rollout-actors": "rollout_actors",
    "--gpus-per-actor": "gpus_per_actor",
    "--actor-timeout": "timeout",
}
"""Options of `motet train` beside --ray, and the fields that they set."""

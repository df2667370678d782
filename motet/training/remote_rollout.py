"""Rollouts in actors: each holds the policy of the recipe and takes the trained weights as versioned snapshots.

Noise is keyed by (seed, step, task, generation), so whichever actor rolls out a group gives the same samples. How tasks
are split into pieces depends on their number and that of the actors alone, never on which actor was faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motet.config import Recipe
from motet.core.errors import ProcessError
from motet.core.protocols import Policy, TrainablePolicy
from motet.core.sampling import Sampling
from motet.core.task import Task
from motet.core.trajectory import Group
from motet.distributed.actor_pool import TIMEOUT, ActorPool, Backend
from motet.policies import load_policy
from motet.scenarios import resolve_scenario
from motet.training.background import Background, BackgroundWork
from motet.training.rollout import RolloutRequest, rollout_tracks
from motet.training.weights_digest import weights_digest

PIECES_PER_ACTOR = 2
"""Pieces into which a rollout is split for each actor: more balance better, fewer make larger batches."""
CLOSING = 60.0
"""Seconds to wait for the work that is under way when the actors end; it fails at once unless something hangs."""


@dataclass(frozen=True)
class Snapshot:
    """The trained weights of one version, as arrays that Ray shares between the processes of a machine."""

    version: int
    arrays: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, policy: Policy) -> Snapshot:
        """A copy of the policy's trained weights."""
        return cls(policy.version, {name: to_array(p.detach()) for name, p in policy.trainable().items()})

    def load_into(self, policy: Policy) -> None:
        """Make these the policy's weights. Raises ProcessError for older weights, and for those of another policy."""
        if self.version < policy.version:
            raise ProcessError(
                f"The actor has weights of version {policy.version} and was sent version {self.version}: they are "
                "stale.",
                fix="send versions in their order.",
            )
        own = policy.trainable()
        if {name: tuple(p.shape) for name, p in own.items()} != {name: a.shape for name, a in self.arrays.items()}:
            raise ProcessError(
                f"The weights of version {self.version} are not those of the actor's policy: names or shapes differ.",
                fix="give trainer and actors the same recipe, and the same version of motet.",
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(to_tensor(self.arrays[name], parameter.dtype))
        policy.version = self.version


def to_array(tensor: Tensor) -> np.ndarray:
    """A copy; numpy has no bfloat16, whose bits are kept as integers."""
    own = tensor.to("cpu", copy=True).contiguous()
    return (own.view(torch.int16) if own.dtype == torch.bfloat16 else own).numpy()


def to_tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """The inverse of `to_array`."""
    tensor = torch.from_numpy(array.copy())  # shared arrays are read-only
    return tensor.view(dtype) if dtype == torch.bfloat16 else tensor


@dataclass(frozen=True)
class Piece:
    """Whole groups of one rollout: tasks with the numbers of their tracks, and everything else that samples depend on.

    `version` is that of the weights that shall sample.
    """

    version: int
    tasks: Sequence[tuple[int, Task]]
    num_generations: int
    samplings: Mapping[str, Sampling]
    seed: int
    step: int


class RolloutWorker:
    """What an actor holds: the recipe's policy and scenarios."""

    def __init__(self, recipe: Recipe) -> None:
        if recipe.run.threads is not None:
            torch.set_num_threads(recipe.run.threads)
        torch.manual_seed(recipe.run.seed)
        self.policy = load_policy(recipe.policy.path, recipe.policy)
        self.scenarios = [
            resolve_scenario(config.scenario.name).with_options(config.scenario.options)
            for config in recipe.resolved_tracks().values()
        ]
        self.has_weights = False

    def roll_out(self, piece: Piece, snapshot: Snapshot | None = None) -> list[Group]:
        """The groups of a piece, in order. `snapshot`: weights to load first, unless they are there.

        Raises ProcessError unless the weights are then those of the piece's version.
        """
        self._take(snapshot)
        if not self.has_weights or self.policy.version != piece.version:
            own = f"weights of version {self.policy.version}" if self.has_weights else "no weights of the run"
            raise ProcessError(
                f"The actor has {own}, but was asked for a rollout with version {piece.version}.",
                fix="send it the weights of that version first.",
            )
        tracks = sorted({track for track, _ in piece.tasks})
        requests = [
            RolloutRequest(self.scenarios[track], [task for own, task in piece.tasks if own == track], track)
            for track in tracks
        ]
        settings = {"samplings": piece.samplings, "seed": piece.seed, "step": piece.step}
        sampled = rollout_tracks(self.policy, requests, piece.num_generations, **settings)
        following = {track: iter(groups) for track, groups in zip(tracks, sampled, strict=True)}
        return [next(following[track]) for track, _ in piece.tasks]

    def weights_digest(self, snapshot: Snapshot) -> dict[str, str]:
        """Of the policy's weights, once it has those of the snapshot."""
        self._take(snapshot)
        return weights_digest(self.policy)

    def _take(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None and not (self.has_weights and snapshot.version == self.policy.version):
            snapshot.load_into(self.policy)
            self.has_weights = True


@dataclass(frozen=True)
class Published:
    """Weights that actors can be given: their version, and the reference under which they are stored."""

    version: int
    reference: Any


PendingRollout = BackgroundWork[list[list[Group]]]
"""A rollout that is under way; its result are the groups of each request."""


class RemoteRollout:
    """Rolls out as `motet.training.rollout.rollout_tracks` does, in actors; one rollout after the other."""

    def __init__(
        self, backend: Backend, make: Callable[[], Any], size: int, *, num_gpus: float = 0.0, timeout: float = TIMEOUT
    ) -> None:
        self.pool = ActorPool(backend, make, size, name="rollout", num_gpus=num_gpus, timeout=timeout)
        self._newest: Published | None = None
        self._background = Background(CLOSING)

    @classmethod
    def of(cls, backend: Backend, recipe: Recipe, size: int, **settings: Any) -> RemoteRollout:
        """`size` actors with the recipe's policy. Paths in the recipe must lead to the same files on their machines."""
        return cls(backend, partial(RolloutWorker, recipe), size, **settings)

    def __call__(
        self,
        policy: TrainablePolicy,
        requests: Sequence[RolloutRequest],
        num_generations: int,
        *,
        samplings: Mapping[str, Sampling],
        seed: int,
        step: int,
    ) -> list[list[Group]]:
        """The groups of each request, in the order of its tasks, sampled by the policy's present weights."""
        settings = {"samplings": samplings, "seed": seed, "step": step}
        return self.start(self.publish(policy), requests, num_generations, **settings).result()

    def start(
        self,
        weights: Published,
        requests: Sequence[RolloutRequest],
        num_generations: int,
        *,
        samplings: Mapping[str, Sampling],
        seed: int,
        step: int,
    ) -> PendingRollout:
        """The same with published weights, beside whatever this process does next."""
        tasks = [(request.track, task) for request in requests for task in request.tasks]
        size = max(1, math.ceil(len(tasks) / (PIECES_PER_ACTOR * self.pool.size)))
        pieces = [
            Piece(weights.version, tasks[n : n + size], num_generations, samplings, seed, step)
            for n in range(0, len(tasks), size)
        ]

        def roll_out(_: None) -> list[list[Group]]:
            sampled = self.pool.map("roll_out", pieces, weights.reference)
            groups = [group for piece in sampled for group in piece]
            _check_versions(groups, weights.version)
            following = iter(groups)
            return [[next(following) for _ in request.tasks] for request in requests]

        return self._background.start(lambda: None, roll_out)

    def publish(self, policy: Policy) -> Published:
        """Store the policy's present weights, once per version."""
        if self._newest is None or self._newest.version != policy.version:
            self._newest = self.publish_snapshot(Snapshot.of(policy))
        return self._newest

    def publish_snapshot(self, snapshot: Snapshot) -> Published:
        """Store weights of an earlier version."""
        return Published(snapshot.version, self.pool.backend.put(snapshot))

    def weights_digests(self, policy: Policy) -> list[dict[str, str]]:
        """The `weights_digest` of every actor, when it has the policy's present weights."""
        return self.pool.each("weights_digest", self.publish(policy).reference)

    def close(self) -> None:
        """End the actors, and the thread that waits for them: Python aborts where one computes while it ends."""
        self.pool.close()
        self._background.close()


def _check_versions(groups: Sequence[Group], version: int) -> None:
    """Raise ProcessError for an act that other weights sampled."""
    for act in (act for group in groups for trajectory in group.trajectories for act in trajectory.acts):
        if act.policy_version != version:
            raise ProcessError(
                f"The act {act.name!r} was sampled by weights of version {act.policy_version}, but the step trains on "
                f"samples of version {version}.",
                fix="report this: an actor rolled out with other weights than it said.",
            )

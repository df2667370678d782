"""Bounded staleness: the rollouts of the next K steps run while the policy learns.

Step t trains on samples of the weights that there were K steps before, of step max(0, t - K): a fixed schedule and no
race, so that a run is reproducible. The rewards of a step are computed on a thread as soon as its rollout is done,
while the policy samples and learns, unless one of them needs the policy. With K = 0 it is the
schedule of a run without a pipeline. A checkpoint holds the weights of the rollouts that are under way, so that a
resumed run goes on as the undisturbed one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from motet.config import Recipe
from motet.core.errors import ConfigError
from motet.core.protocols import TrainablePolicy
from motet.core.task import Task
from motet.core.trajectory import Group
from motet.training.background import Background, BackgroundWork
from motet.training.engines import Engines
from motet.training.local_rollout import LocalRollout
from motet.training.losses import loss_key, resolve_losses
from motet.training.remote_rollout import PendingRollout, Published, RemoteRollout, Snapshot
from motet.training.rollout import RolloutRequest
from motet.training.setup import TrainingSetup, sampling_params, trained_act_kinds
from motet.weights.locate import ROLLOUT_WEIGHTS, latest_checkpoint

MakeScore = Callable[[int, "Drawn"], Callable[[list[list[Group]]], Any] | None]
_STALENESS, _VERSIONS = "max_staleness", "versions"


@dataclass(frozen=True)
class Drawn:
    """The prompts of a step: this process's requests, one for each track; the prompts of all processes, with the place
    of their track; each track's epoch after that, and where all tracks stand then.
    """

    requests: Sequence[RolloutRequest]
    placed: Sequence[tuple[int, Task]]
    epochs: Sequence[float]
    data_state: dict[str, Any]


@dataclass(frozen=True)
class _Started:
    step: int
    drawn: Drawn
    snapshot: Snapshot
    pending: PendingRollout
    scoring: BackgroundWork[Any] | None


@dataclass(frozen=True)
class Taken:
    """The prompts and groups of a step, and its rewards where they are computed in the background."""

    drawn: Drawn
    groups: list[list[Group]]
    scoring: BackgroundWork[Any] | None


class RolloutPipeline:
    """Starts the rollouts of a run ahead of their steps. `draw` gives the prompts of a step, called step after step.

    `score` computes the rewards of a step, given its groups; None for a step whose rewards need the policy.
    """

    def __init__(
        self,
        rollout: RemoteRollout | LocalRollout,
        recipe: Recipe,
        max_staleness: int,
        draw: Callable[[int], Drawn],
        score: MakeScore = lambda step, drawn: None,
    ) -> None:
        self.rollout, self.recipe, self.max_staleness, self.draw = rollout, recipe, max_staleness, draw
        self.score, self._background = score, Background()
        self._started: deque[_Started] = deque()
        self._data_state: dict[str, Any] = {}
        self.version, self.seconds = 0, 0.0
        """Of the weights that sampled the step that was taken last, and how long its rollout took."""

    def take(self, step: int, policy: TrainablePolicy) -> Taken:
        """The prompts, groups and rewards of a step; the next rollout is started with the policy's present weights."""
        first = self._started[-1].step + 1 if self._started else step
        steps = range(first, min(step + self.max_staleness + 1, self.recipe.run.steps))
        if steps:
            weights, snapshot = self.rollout.publish(policy), Snapshot.of(policy)
            for one in steps:
                self._start(one, weights, snapshot)
        started = self._started.popleft()
        groups = started.pending.result()
        self._data_state = started.drawn.data_state
        self.version, self.seconds = started.snapshot.version, started.pending.seconds
        return Taken(started.drawn, groups, started.scoring)

    def wait(self) -> None:
        """Wait for the rewards that are being computed; their errors are raised by the step that takes them."""
        for started in self._started:
            if started.scoring is not None:
                started.scoring.future.exception()

    def close(self) -> None:
        """End the thread of the rewards."""
        self._background.close()

    def where(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Where the tracks stood after the step that was taken last, and the weights of the rollouts under way."""
        versions = [started.snapshot.version for started in self._started]
        tensors = {_STALENESS: torch.tensor([self.max_staleness]), _VERSIONS: torch.tensor(versions, dtype=torch.long)}
        for started in self._started:
            for name, array in started.snapshot.arrays.items():
                tensors[f"{started.snapshot.version}|{name}"] = torch.from_numpy(array)
        return self._data_state, tensors

    def resume(self, checkpoint: Path, step: int) -> None:
        """Start what was under way when the checkpoint was written."""
        tensors = load_file(checkpoint / ROLLOUT_WEIGHTS)
        known: dict[int, tuple[Published, Snapshot]] = {}
        for place, version in enumerate(tensors[_VERSIONS].tolist()):
            if version not in known:
                prefix = f"{version}|"
                own = {key.removeprefix(prefix): t.numpy() for key, t in tensors.items() if key.startswith(prefix)}
                snapshot = Snapshot(version, own)
                known[version] = self.rollout.publish_snapshot(snapshot), snapshot
            self._start(step + place, *known[version])

    def _start(self, step: int, weights: Published, snapshot: Snapshot) -> None:
        drawn, recipe = self.draw(step), self.recipe
        settings = {"samplings": sampling_params(recipe, step), "seed": recipe.run.seed, "step": step}
        pending = self.rollout.start(weights, drawn.requests, recipe.algorithm.num_generations, **settings)
        score = self.score(step, drawn)
        scoring = None if score is None else self._background.start(pending.result, score)
        self._started.append(_Started(step, drawn, snapshot, pending, scoring))


def open_pipeline(
    engines: Engines, session: TrainingSetup, draw: Callable[[int], Drawn], score: MakeScore, step: int, folder: Path
) -> RolloutPipeline | None:
    """The pipeline of a run that goes on at a step, from the newest checkpoint in a folder; None without staleness.

    Raises ConfigError where the run had another staleness before.
    """
    newest = latest_checkpoint(folder) if step else None
    if newest is not None:
        check_resumed_staleness(newest, engines.max_staleness)
    if not engines.max_staleness:
        return None
    rollout = engines.rollout if isinstance(engines.rollout, RemoteRollout) else LocalRollout(session.policy)
    pipeline = RolloutPipeline(rollout, session.recipe, engines.max_staleness, draw, score)
    if newest is not None:
        pipeline.resume(newest, step)
    return pipeline


def check_engines(engines: Engines, session: TrainingSetup) -> None:
    """Raise ConfigError where a run cannot have the staleness of its engines."""
    if engines.max_staleness:
        check_staleness(session.recipe, trained_act_kinds(session.tracks, session.policy))


def check_staleness(recipe: Recipe, kinds: Iterable[str]) -> None:
    """Raise ConfigError where a run cannot train on samples of older weights."""
    if recipe.algorithm.dynamic_sampling is not None:
        raise ConfigError(
            "algorithm.dynamic_sampling rolls out further prompts when it has seen a step's rewards: not ahead of it.",
            fix="leave out --max-staleness, or algorithm.dynamic_sampling.",
        )
    for kind, loss in resolve_losses(recipe, kinds).items():
        if not loss.corrects_rollouts:
            raise ConfigError(
                f"--max-staleness trains on samples of older weights, and the loss of {kind} acts does not correct for "
                "that.",
                fix=f"set {loss_key(recipe.algorithm, kind)}.rollout_is to token, or leave out --max-staleness.",
            )


def check_resumed_staleness(checkpoint: Path, max_staleness: int) -> None:
    """Raise ConfigError unless the checkpoint's run had this staleness."""
    path = checkpoint / ROLLOUT_WEIGHTS
    before = int(load_file(path)[_STALENESS]) if path.is_file() else 0
    if before != max_staleness:
        raise ConfigError(
            f"The run was trained with --max-staleness {before}, not {max_staleness}.",
            fix=f"resume it with --max-staleness {before}, or start a new run.",
        )

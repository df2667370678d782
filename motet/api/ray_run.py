"""`motet train --ray`: training workers and rollout actors on a Ray cluster."""

from __future__ import annotations

import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from motet.api.runs import run_recipe
from motet.config import Recipe
from motet.distributed.environment import global_rank
from motet.distributed.ray_backend import RayBackend, ray_cluster
from motet.distributed.ray_options import RayOptions
from motet.distributed.supervisor import Place, Status, Supervisor
from motet.report.metrics import PhaseTimer
from motet.report.run_dir import RECIPE, RunFolder
from motet.report.terminal import say
from motet.training.engines import Engines
from motet.training.remote_rewards import RemoteRewards
from motet.training.remote_rollout import RemoteRollout
from motet.training.setup import Track
from motet.training.signals import Interrupt, Stopped
from motet.weights.locate import latest_checkpoint, step_of


def run_on_ray(
    recipe: Recipe,
    output: Path,
    resume_command: str,
    options: RayOptions,
    *,
    resume: bool,
    parallel: str | None = None,
    preflight: bool = True,
) -> None:
    """Train on the cluster that the options name; the workers' output is printed here.

    `parallel`: how several training workers share the run, and `preflight`, as for `run_recipe`.

    Raises ConfigError where the cluster lacks what they ask for, the errors of workers, and Stopped.
    """
    folder = RunFolder(output, resume=resume)
    with ray_cluster(options.address, options.num_cpus) as backend, Interrupt() as interrupt:
        options = options.with_gpus(backend.num_gpus if recipe.policy.device in ("auto", "cuda") else 0.0)
        job = TrainingJob(
            recipe, output.absolute(), resume_command, options, parallel, warnings.formatwarning, preflight
        )
        supervisor = Supervisor(
            backend,
            partial(TrainingWorker, job),
            options.train_workers,
            steps_saved=lambda: _steps_saved(folder),
            write=_write,
            stop_asked=lambda: interrupt.asked,
            num_gpus=options.gpus_per_worker or 0.0,
            timeout=options.timeout,
        )
        try:
            stopped = supervisor.run()
        except KeyboardInterrupt:
            raise Stopped(f"Stopped. Resume with: {resume_command}") from None
    if stopped is not None:
        raise Stopped(stopped)


def _steps_saved(folder: RunFolder) -> int:
    newest = latest_checkpoint(folder.checkpoints)
    return 0 if newest is None else step_of(newest)


def _write(text: str, to_stderr: bool) -> None:
    stream = sys.stderr if to_stderr else sys.stdout
    stream.write(text)
    stream.flush()


@dataclass(frozen=True)
class TrainingJob:
    """What every training worker is told; `format_warning` is how this program prints warnings."""

    recipe: Recipe
    output: Path
    resume_command: str
    options: RayOptions
    parallel: str | None
    format_warning: Callable[..., str]
    preflight: bool = True


@dataclass(eq=False)
class _Output:
    """A text stream whose text waits until it is fetched."""

    lines: list[tuple[str, bool]]
    to_stderr: bool
    encoding: str = "utf-8"
    lock: Any = field(default_factory=threading.Lock)

    def write(self, text: str) -> int:
        with self.lock:
            self.lines.append((text, self.to_stderr))
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


class TrainingWorker:
    """What an actor of `motet.distributed.supervisor` holds: one process of the run."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.lines: list[tuple[str, bool]] = []
        self.pools: list[RemoteRollout | RemoteRewards] = []

    def address(self) -> tuple[str, int]:
        """This machine, and a port that is free on it."""
        host = RayBackend().host
        with socket.socket() as one:
            one.bind((host, 0))
            return host, one.getsockname()[1]

    def run(self, place: Place) -> str | None:
        """Run the recipe, on from the run folder's newest checkpoint if it has a run; what to say if it was stopped."""
        job = self.job
        sys.stdout, sys.stderr = _Output(self.lines, False), _Output(self.lines, True)
        warnings.formatwarning = job.format_warning
        if place.size > 1:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
            values = (place.rank, place.size, 0, 1, place.host, place.port)  # Ray shows each process its own GPU
            os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
        settings: dict[str, Any] = {"parallel": job.parallel, "timeout": job.options.timeout}
        settings["preflight"] = job.preflight
        try:
            resume = (job.output / RECIPE).is_file()
            run_recipe(
                job.recipe, job.output, job.resume_command, resume=resume, make_engines=self._make_engines, **settings
            )
        except Stopped as stop:
            return str(stop)
        finally:
            for pool in self.pools:
                pool.close()
        return None

    def _make_engines(self, recipe: Recipe) -> Engines:
        """Rollout and reward actors of this worker."""
        options, backend = self.job.options, RayBackend()
        settings: dict[str, Any] = {"num_gpus": options.gpus_per_actor or 0.0, "timeout": options.timeout}
        rollout = RemoteRollout.of(backend, recipe, options.rollout_actors, **settings)
        self.pools.append(rollout)
        if not options.reward_actors:
            return Engines(rollout, max_staleness=options.max_staleness)
        rewards = RemoteRewards(backend, recipe, options.reward_actors, **settings)
        self.pools.append(rewards)

        def place_rewards(tracks: Sequence[Track]) -> list[Track]:
            placed = rewards.place(tracks)
            if rewards.local and global_rank() == 0:
                say(f"Called in the training worker, because they need the policy: {', '.join(rewards.local)}.")
            return placed

        return Engines(rollout, place_rewards, options.max_staleness)

    def status(self) -> Status:
        """What was printed since the last time, and the phase of the step."""
        count = len(self.lines)
        output, self.lines[:count] = self.lines[:count], []
        return Status(output, PhaseTimer.current)

    def stop(self) -> None:
        """Finish the step, save, and end."""
        Interrupt.asked_for_all = True

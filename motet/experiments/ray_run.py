"""`motet train --ray`: the run of `single_run.py` with its rollouts in Ray actors."""

from __future__ import annotations

from motet.config import Recipe
from motet.core.errors import ConfigError
from motet.distributed.ray_backend import RayBackend, ray_cluster
from motet.distributed.ray_options import RayOptions
from motet.experiments.single_run import RunResult, run_training
from motet.report.run_dir import RunFolder
from motet.training.remote_rollout import RemoteRollout


def run_on_ray(recipe: Recipe, folder: RunFolder, resume_command: str, options: RayOptions) -> RunResult:
    """Train on the cluster that the options name. Raises ConfigError where it lacks what they ask for."""
    with ray_cluster(options.address, options.num_cpus) as backend:
        gpus = _gpus_per_actor(recipe, backend, options)
        rollout = RemoteRollout.of(backend, recipe, options.rollout_actors, num_gpus=gpus, timeout=options.timeout)
        try:
            return run_training(recipe, folder, resume_command, rollout=rollout)
        finally:
            rollout.close()


def _gpus_per_actor(recipe: Recipe, backend: RayBackend, options: RayOptions) -> float:
    """How much of a GPU a rollout actor gets: what was asked for, or one if the cluster has any."""
    available = backend.num_gpus
    if options.gpus_per_actor is None:
        return float(available > 0 and recipe.policy.device in ("auto", "cuda"))
    asked = options.rollout_actors * options.gpus_per_actor
    if asked > available:
        raise ConfigError(
            f"{options.rollout_actors} rollout actors with --gpus-per-actor {options.gpus_per_actor:g} need {asked:g} "
            f"GPUs; the cluster has {available:g}.",
            fix="start fewer, or let several share a GPU with a fraction.",
        )
    return options.gpus_per_actor

"""Time per phase and memory of a recipe's training steps."""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from motet.config import Recipe, to_yaml
from motet.report.callbacks import Callback
from motet.report.run_dir import RunFolder
from motet.training.run_loop import Run
from motet.training.setup import setup_rl
from motet.training.signals import Interrupt
from motet.training.trainer import train


@dataclass(frozen=True)
class StepTimes:
    """Means over the timed steps; the `seconds` of all phases add up to about `step_seconds`.

    `num_trainable` counts trainable parameters. `peak_gb` is the peak memory since loading started: allocated by torch
    on a GPU, or of the process on a CPU.
    """

    device: str
    num_trainable: int
    trajectories: int
    seconds: Mapping[str, float]
    step_seconds: float
    images: float
    images_per_second: float
    peak_gb: float


def bench_step(recipe: Recipe, steps: int, warmup: int, callback: Callback) -> StepTimes:
    """Run `warmup` untimed steps, then `steps` timed ones. Raises the errors of `setup_rl` and `train`."""
    run = recipe.run.model_copy(update={"steps": warmup + steps, "minutes": None, "log_samples_every": 10**9})
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    session = setup_rl(recipe.model_copy(update={"run": run}))
    with tempfile.TemporaryDirectory() as folder_name:
        folder = RunFolder(Path(folder_name) / "run", resume=False)
        folder.create(to_yaml(session.recipe))
        train(session, _Unsaved(session, folder, callback, Interrupt()))
        lines = folder.read_metrics()[warmup:]
    device: torch.device = getattr(session.policy, "device", torch.device("cpu"))
    phases = [key.removeprefix("time/") for key in lines[0] if key.startswith("time/")]
    step_seconds = statistics.fmean(line["step_time"] for line in lines)
    images = statistics.fmean(line.get("images_per_second", 0.0) * line["time/rollout"] for line in lines)
    tracks = recipe.resolved_tracks().values()
    return StepTimes(
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU thread(s)",
        num_trainable=sum(parameter.numel() for parameter in session.policy.trainable().values()),
        trajectories=sum(track.prompts_per_step for track in tracks) * recipe.algorithm.num_generations,
        seconds={phase: statistics.fmean(line[f"time/{phase}"] for line in lines) for phase in phases},
        step_seconds=step_seconds,
        images=images,
        images_per_second=images / step_seconds,
        peak_gb=_peak(device) / 1e9,
    )


class _Unsaved(Run):
    """A run without checkpoints."""

    def _save(self) -> None:
        pass


def _peak(device: torch.device) -> int:
    """Peak memory in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most

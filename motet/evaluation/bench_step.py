"""How long a training step of a recipe takes, by phase, and how much memory: some steps are run and nothing is kept."""

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
    """Means over the timed steps. `seconds` by phase add up to about `step_seconds`; pictures and texts are acts.

    `peak_gb` is the most memory held since the run began to load: the GPU's by torch, or the process's on a CPU.
    """

    device: str
    trained: int
    trajectories: int
    seconds: Mapping[str, float]
    step_seconds: float
    images: float
    images_per_second: float
    peak_gb: float


def bench_step(recipe: Recipe, steps: int, warmup: int, callback: Callback) -> StepTimes:
    """Run `warmup` steps untimed, then `steps`. Raises as `setup_rl` and training do."""
    run = recipe.run.model_copy(update={"steps": warmup + steps, "minutes": None, "log_samples_every": 10**9})
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    session = setup_rl(recipe.model_copy(update={"run": run}))
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run", resume=False)
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
        trained=sum(parameter.numel() for parameter in session.policy.trainable().values()),
        trajectories=sum(track.prompts_per_step for track in tracks) * recipe.algorithm.num_generations,
        seconds={phase: statistics.fmean(line[f"time/{phase}"] for line in lines) for phase in phases},
        step_seconds=step_seconds,
        images=images,
        images_per_second=images / step_seconds,
        peak_gb=_peak(device) / 1e9,
    )


class _Unsaved(Run):
    """A run that saves no checkpoint."""

    def _save(self) -> None:
        pass


def _peak(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most

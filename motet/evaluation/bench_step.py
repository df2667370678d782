"""Time and memory per phase of a recipe's training steps, and what they sample."""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from motet.config import Recipe, to_yaml
from motet.core.protocols import Policy, Request
from motet.core.trajectory import Act, Sampling
from motet.evaluation.measuring import (
    describe_device,
    describe_machine,
    peak_memory,
    reset_peak_memory,
    synchronize,
)
from motet.report.callbacks import Callback
from motet.report.metrics import PhaseTimer
from motet.report.run_dir import RunFolder
from motet.training.run_loop import Run
from motet.training.setup import setup_rl
from motet.training.signals import Interrupt
from motet.training.trainer import train


@dataclass(frozen=True)
class StepTimes:
    """Means over the timed steps; the `seconds` of all phases add up to about `step_seconds`.

    `num_trainable` counts trainable parameters, `actions` the sampled tokens or denoising steps of a step
    by kind of act;
    `actions_per_second` is over the whole step, `rollout_actions_per_second` over the rollout. `peak_gb` is the peak
    memory since loading started, `peak_gb_by_phase` that of each phase: allocated by torch on a GPU, or of the process
    on a CPU, in 1e9 bytes.
    """

    device: str
    num_trainable: int
    trajectories: int
    seconds: Mapping[str, float]
    step_seconds: float
    images: float
    images_per_second: float
    actions: Mapping[str, float]
    actions_per_second: float
    rollout_actions_per_second: float
    peak_gb: float
    peak_gb_by_phase: Mapping[str, float]
    machine: Mapping[str, Any]


def bench_step(recipe: Recipe, steps: int, warmup: int, callback: Callback) -> StepTimes:
    """Run `warmup` untimed steps, then `steps` timed ones. Raises the errors of `setup_rl` and `train`."""
    run = recipe.run.model_copy(update={"steps": warmup + steps, "minutes": None, "log_samples_every": 10**9})
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    session = setup_rl(recipe.model_copy(update={"run": run}))
    device: torch.device = getattr(session.policy, "device", torch.device("cpu"))
    loading = peak_memory(device)
    actions = _count_actions(session.policy)
    timers: list[_MemoryTimer] = []

    class Timer(_MemoryTimer):
        """Knows the policy's device, and is kept."""

        def __init__(self) -> None:
            super().__init__(device)
            timers.append(self)

    class Benchmark(Unsaved):
        timer_type: ClassVar[type[PhaseTimer]] = Timer

    with tempfile.TemporaryDirectory() as folder_name:
        folder = RunFolder(Path(folder_name) / "run", resume=False)
        folder.create(to_yaml(session.recipe))
        train(session, Benchmark(session, folder, callback, Interrupt()))
        lines = folder.read_metrics()[warmup:]
    phases = [key.removeprefix("time/") for key in lines[0] if key.startswith("time/")]
    seconds = {phase: statistics.fmean(line[f"time/{phase}"] for line in lines) for phase in phases}
    step_seconds = statistics.fmean(line["step_time"] for line in lines)
    images = statistics.fmean(line.get("images_per_second", 0.0) * line["time/rollout"] for line in lines)
    per_step = {kind: count / (warmup + steps) for kind, count in actions.items()}
    tracks = recipe.resolved_tracks().values()
    peaks = [timer.peaks for timer in timers if timer.peaks]
    return StepTimes(
        device=describe_device(device),
        num_trainable=sum(parameter.numel() for parameter in session.policy.trainable().values()),
        trajectories=sum(track.prompts_per_step for track in tracks) * recipe.algorithm.num_generations,
        seconds=seconds,
        step_seconds=step_seconds,
        images=images,
        images_per_second=images / step_seconds,
        actions=per_step,
        actions_per_second=sum(per_step.values()) / step_seconds,
        rollout_actions_per_second=sum(per_step.values()) / seconds["rollout"],
        peak_gb=max(loading, *(max(one.values()) for one in peaks)) / 1e9,
        peak_gb_by_phase={phase: max(one.get(phase, 0) for one in peaks[warmup:]) / 1e9 for phase in phases},
        machine=describe_machine(),
    )


class Unsaved(Run):
    """A run without checkpoints."""

    def _save(self) -> None:
        pass


class _MemoryTimer(PhaseTimer):
    """Times that include a phase's work on the device, and peak memory in bytes by phase; phases do not nest."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.peaks: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """See `PhaseTimer`."""
        reset_peak_memory(self.device)
        with super().phase(name):
            yield
            synchronize(self.device)
        self.peaks[name] = max(self.peaks.get(name, 0), peak_memory(self.device))


def _count_actions(policy: Policy) -> Counter[str]:
    """Actions that the policy samples from now on, by kind."""
    counts: Counter[str] = Counter()
    act = policy.act

    def counting(requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        acts = act(requests, sampling)
        for one in acts:
            counts[one.kind] += one.num_actions
        return acts

    policy.act = counting
    return counts

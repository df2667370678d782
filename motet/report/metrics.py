"""Training metrics of a step: rewards, lengths, failures and times."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from motet.core.trajectory import Group, Scores, TextAct

try:
    import resource
except ImportError:  # Windows
    resource = None


def wait_for_device() -> None:
    """Wait until the present GPU has done what it was given; nothing to do where none is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


class PhaseTimer:
    """Seconds per phase of one step, with the work that a phase left to a GPU."""

    current = "between steps"
    """The phase that this process is in, for messages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent in the `with` block to a phase."""
        start, before = time.monotonic(), PhaseTimer.current
        PhaseTimer.current = name
        try:
            yield
            wait_for_device()  # kernels are queued: their time would count as the next phase's
        finally:
            PhaseTimer.current = before
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def report(self) -> dict[str, float]:
        """`time/<phase>` of every phase and `step_time`, the total, in seconds."""
        phases = {f"time/{name}": seconds for name, seconds in self.seconds.items()}
        return {**phases, "step_time": time.monotonic() - self._started}


def memory_metrics() -> dict[str, float]:
    """`memory/process_peak_gib`: the most memory this process has had so far (resident set, where the system tells it);
    `memory/gpu_peak_gib`: the most that its tensors took on the present GPU."""
    metrics: dict[str, float] = {}
    if resource is not None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        metrics["memory/process_peak_gib"] = peak / (2**30 if sys.platform == "darwin" else 2**20)
    if torch.cuda.is_initialized():
        metrics["memory/gpu_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return metrics


def reward_metrics(scores: Sequence[Scores], weights: Mapping[str, float]) -> dict[str, float]:
    """`rewards/<name>/mean` and `/std` over the valid generations, and `reward`: the weighted sum of the means.

    `std` is the population standard deviation. If a reward of nonzero weight has no value in this step, `reward` is
    left out, because the sum of the others is not comparable with other steps.
    """
    metrics: dict[str, float] = {}
    total: float | None = 0.0
    for name, weight in weights.items():
        values = [
            value
            for score in scores
            for generation_index, value in enumerate(score.values[name])
            if value is not None and generation_index not in score.dropped
        ]
        if values:
            metrics[f"rewards/{name}/mean"] = statistics.fmean(values)
            metrics[f"rewards/{name}/std"] = statistics.pstdev(values)
            total = None if total is None else total + weight * metrics[f"rewards/{name}/mean"]
        elif weight:
            total = None
    return metrics if total is None else {"reward": total, **metrics}


def act_metrics(groups: Sequence[Group], rollout_seconds: float) -> dict[str, float]:
    """Metrics of a rollout: completion lengths, truncated texts, images per second, failed trajectories."""
    acts = [act for group in groups for trajectory in group.trajectories for act in trajectory.acts]
    texts = [act for act in acts if isinstance(act, TextAct)]
    num_images = len(acts) - len(texts)
    failures = sum(len(group.trajectories) - len(group.valid_indices) for group in groups)
    metrics = {"failures": float(failures)}
    if texts:
        metrics["completion_length/mean"] = statistics.fmean(act.num_actions for act in texts)
        metrics["completion_length/max"] = float(max(act.num_actions for act in texts))
        metrics["frac_truncated"] = sum(not act.finished for act in texts) / len(texts)
    if num_images:
        metrics["images_per_second"] = num_images / max(rollout_seconds, 1e-9)
    gaps = [gap for act in acts if (gap := act.behaviour_gap) is not None]
    if gaps:  # guidance `conditional`: the sampled distribution differs from the one whose log-probs are trained on
        metrics["behaviour_gap"] = statistics.fmean(gaps)
    return metrics

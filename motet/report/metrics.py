"""What a step is summarised by: the numbers that people watch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from motet.core.trajectory import Group, Scores, TextTokens


@runtime_checkable
class Callback(Protocol):
    """Who is told how a run goes: a progress bar, a tracker."""

    def step(self, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        """After every step, with its numbers."""
        ...


class PhaseTimer:
    """Seconds by phase of one step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def report(self) -> dict[str, float]:
        """`time/<phase>` and the whole `step_time`, in seconds."""
        phases = {f"time/{name}": seconds for name, seconds in self.seconds.items()}
        return {**phases, "step_time": time.monotonic() - self._started}


def reward_numbers(scores: Sequence[Scores], weights: Mapping[str, float]) -> dict[str, float]:
    """`rewards/<name>/mean` and `/std` over the siblings that count, and `reward`: the weighted sum of the means.

    When one of the rewards applies to nothing there is no `reward`: a sum of the others is another number.
    """
    numbers: dict[str, float] = {}
    total: float | None = 0.0
    for name, weight in weights.items():
        values = [
            value
            for score in scores
            for generation_index, value in enumerate(score.values[name])
            if value is not None and generation_index not in score.dropped
        ]
        if values:
            numbers[f"rewards/{name}/mean"] = statistics.fmean(values)
            numbers[f"rewards/{name}/std"] = statistics.pstdev(values)
            total = None if total is None else total + weight * numbers[f"rewards/{name}/mean"]
        elif weight:
            total = None
    return numbers if total is None else {"reward": total, **numbers}


def act_numbers(groups: Sequence[Group], rollout_seconds: float) -> dict[str, float]:
    """Lengths, cut-off texts, images/s and failures of a rollout."""
    acts = [act for group in groups for trajectory in group.trajectories for act in trajectory.acts]
    texts = [act for act in acts if isinstance(act, TextTokens)]
    pictures = len(acts) - len(texts)
    failures = sum(len(group.trajectories) - len(group.valid_indices) for group in groups)
    numbers = {"failures": float(failures)}
    if texts:
        numbers["completion_length/mean"] = statistics.fmean(act.num_actions for act in texts)
        numbers["completion_length/max"] = float(max(act.num_actions for act in texts))
        numbers["frac_truncated"] = sum(not act.finished for act in texts) / len(texts)
    if pictures:
        numbers["images_per_second"] = pictures / max(rollout_seconds, 1e-9)
    gaps = [
        float((act.behaviour_log_probs - act.log_probs).abs().mean())
        for act in acts
        if act.behaviour_log_probs is not None and act.log_probs is not None
    ]
    if gaps:  # guidance `conditional`: how far the scored distribution is from the sampled one
        numbers["behaviour_gap"] = statistics.fmean(gaps)
    return numbers

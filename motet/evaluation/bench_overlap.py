"""How much of the time of a recipe's rewards is hidden behind sampling and training, as `--max-staleness 1` does it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from motet.config import Recipe, to_yaml
from motet.core.errors import ConfigError
from motet.evaluation.bench_step import Unsaved
from motet.evaluation.measuring import describe_machine, ratio_fields
from motet.numerics.statistics import ScorePairs, bootstrap_interval
from motet.report.callbacks import Callback
from motet.report.run_dir import RunFolder
from motet.rewards import BoundReward
from motet.training.engines import Engines
from motet.training.rollout_pipeline import check_engines
from motet.training.setup import Track, setup_rl
from motet.training.signals import Interrupt
from motet.training.trainer import train

CALLED, WAITED = "time/reward_calls", "time/rewards"
DELAY = "delay"
"""Name of the reward that only sleeps."""


@dataclass(frozen=True)
class OverlapTimes:
    """Means over the timed steps, in seconds. `ratio` is how many times longer a step without overlap takes: the median
    over pairs of runs, one after the other, and its extremes.

    `hidden` is the share of `called`, the time that rewards take, that no step waited for; its 95 % interval is a
    bootstrap over steps.
    """

    called: float
    waited: float
    hidden: float
    hidden_low: float
    hidden_high: float
    step_seconds: float
    step_seconds_in_turn: float
    ratio: float
    ratio_low: float
    ratio_high: float
    steps: int
    machine: Mapping[str, Any]


def bench_overlap(
    recipe: Recipe, delay: float, steps: int, warmup: int, repeats: int, callback: Callback
) -> OverlapTimes:
    """Run `repeats` pairs of runs of `warmup` untimed and `steps` timed steps: rewards overlapped, then in their turn.

    A `delay` in seconds adds a reward of weight 0 that sleeps so long in every step. Raises ConfigError for a recipe
    whose rewards use the policy, or whose loss does not correct for older weights.
    """
    run = recipe.run.model_copy(update={"steps": warmup + steps, "minutes": None, "log_samples_every": 10**9})
    recipe = recipe.model_copy(update={"run": run})
    in_turn: list[float] = []
    overlapped: list[float] = []
    lines: list[dict[str, Any]] = []
    for _ in range(repeats):
        timed = _run(recipe, delay, 1, callback)[warmup:]
        lines += timed
        overlapped.append(_mean(timed, "step_time"))
        in_turn.append(_mean(_run(recipe, delay, 0, callback)[warmup:], "step_time"))
    pairs = [[(line[WAITED], line[CALLED])] for line in lines]
    low, high = bootstrap_interval(pairs, _hidden)
    return OverlapTimes(
        called=_mean(lines, CALLED),
        waited=_mean(lines, WAITED),
        hidden=_hidden(pairs),
        hidden_low=low,
        hidden_high=high,
        step_seconds=statistics.fmean(overlapped),
        step_seconds_in_turn=statistics.fmean(in_turn),
        **ratio_fields(overlapped, in_turn),
        steps=len(lines),
        machine=describe_machine(),
    )


def _run(recipe: Recipe, delay: float, max_staleness: int, callback: Callback) -> list[dict[str, Any]]:
    """The metrics of each step of a run."""
    session = setup_rl(recipe)
    users = [reward.name for track in session.tracks for reward in track.rewards if reward.needs_policy]
    if users:
        raise ConfigError(
            f"Reward {users[0]!r} uses the policy: it is computed in its turn, and nothing overlaps.",
            fix="measure a recipe without it.",
        )
    if delay:
        session = replace(session, tracks=tuple(_delayed(track, delay) for track in session.tracks))
    engines = Engines(max_staleness=max_staleness)
    check_engines(engines, session)
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name) / "run", resume=False)
        folder.create(to_yaml(recipe))
        train(session, Unsaved(session, folder, callback, Interrupt()), engines)
        return folder.read_metrics()


def _delayed(track: Track, seconds: float) -> Track:
    def sleep(completions: Sequence[Any]) -> list[float]:
        time.sleep(seconds)
        return [0.0] * len(completions)

    acts = track.rewards[0].acts
    delay = BoundReward(DELAY, 0.0, acts, sleep, {}, frozenset({"completions"}), trusted=True)
    return replace(track, rewards=[*track.rewards, delay])


def _hidden(steps: Sequence[ScorePairs]) -> float:
    waited, called = (sum(pair[n] for step in steps for pair in step) for n in (0, 1))
    return 1.0 - waited / called if called else 0.0


def _mean(lines: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.fmean(line[key] for line in lines)

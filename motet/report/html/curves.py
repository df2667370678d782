"""Which metrics are shown where: rewards, evaluation, training, system."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from motet.report.html.plot import Chart, Series, line_chart
from motet.report.html.read import RunData

_REWARD = re.compile(r"(?:(?P<track>.+?)/)?rewards/(?P<name>.+)/mean")
TOTAL = re.compile(r"(?:(?P<track>.+)/)?(?<!dropped/)reward")
_LOGGED = re.compile(r"(?:.+/)?rewards/.+")
_MAIN = re.compile(
    r"loss|grad_norm|learning_rate|frac_reward_zero_std|(?:.+/)frac_reward_zero_std|completion_length/mean"
    r"|frac_truncated|failures|(?:text|image|denoising|[^/]+)/(?:kl|entropy|clip_fraction|nll|train_rollout_logprob_diff)"
)
_SYSTEM = re.compile(r"images_per_second|step_time|memory/.+")
_HIDDEN = re.compile(r"step|seconds|time/.+|.*/std|eval/.+/interval")
INTERVAL_NOTE = "band: 95 % interval of the step's mean, its groups taken as independent"
EVAL_INTERVAL_NOTE = "band: 95 % interval over items"
MEANINGS = (
    (r"frac_reward_zero_std", "share of groups whose generations all got the same reward: no gradient from them"),
    (r"completion_length/mean", "tokens of a text"),
    (r"frac_truncated", "share of texts that reached the most tokens"),
    (r"train_rollout_logprob_diff", "log-probs of training against those of sampling; 0: they agree"),
    (r"entropy", "of the scoring distribution"),
    (r"kl", "to the reference weights"),
    (r"clip_fraction", "share of actions whose ratio is clipped"),
    (r"learning_rate", "a time limit, run.minutes, shortens the schedule"),
)
"""What the last parts of a metric's name say, for readers who meet it the first time."""
PHASES = {
    "learn": "update",
    "eval": "evaluation and fixed prompts",
    "data": "data",
    "rollout": "rollout",
    "rewards": "rewards",
}


@dataclass(frozen=True)
class Curves:
    """The charts of a page, in its sections."""

    rewards: Sequence[Chart]
    evaluation: Sequence[Chart]
    training: Sequence[Chart]
    others: Sequence[Chart]
    system: Sequence[Chart]


@dataclass(frozen=True)
class Phase:
    """Time that a run spent in one phase: seconds, and the share of the whole in per cent."""

    name: str
    seconds: float
    share: float
    colour: int


def make_curves(runs: Sequence[RunData]) -> Curves:
    """One chart per metric, with the curves of all runs in it."""
    keys = list(dict.fromkeys(key for run in runs for line in run.metrics for key in line))
    known = [key for key in keys if not _HIDDEN.fullmatch(key)]
    rewards = [key for key in known if TOTAL.fullmatch(key)] + [key for key in known if _REWARD.fullmatch(key)]
    rewards += [key for key in known if _LOGGED.fullmatch(key) and key not in rewards]
    evaluation = [key for key in known if key.startswith("eval/")]
    system = [key for key in known if _SYSTEM.fullmatch(key)]
    rest = [key for key in known if key not in {*rewards, *evaluation, *system}]
    training = [key for key in rest if _MAIN.fullmatch(key)]
    return Curves(
        _charts(runs, rewards),
        _charts(runs, evaluation),
        _charts(runs, [key for key in training if _varies(runs, key)]),
        _charts(runs, [key for key in rest if key not in training and _varies(runs, key)]),
        [*_phase_chart(runs), *_charts(runs, system)],
    )


def phases_of(run: RunData) -> list[Phase]:
    """Where a run's time went, the longest phase first; `other` is what no phase measured."""
    totals: dict[str, float] = {}
    for line in run.metrics:
        for name, seconds in _phase_seconds(line):
            totals[name] = totals.get(name, 0.0) + seconds
    whole = sum(_value(line, "step_time") or 0.0 for line in run.metrics)
    totals["other"] = max(0.0, whole - sum(totals.values()))
    whole = sum(totals.values())
    ranked = sorted(totals.items(), key=lambda item: (item[0] == "other", -item[1]))
    return [Phase(name, s, 100 * s / whole, n) for n, (name, s) in enumerate(ranked) if whole and s / whole >= 0.0005]


def _phase_seconds(line: dict[str, object]) -> Iterable[tuple[str, float]]:
    for key in line:
        name = key.removeprefix("time/")
        if key.startswith("time/") and name != "reward_calls" and (seconds := _value(line, key)) is not None:
            yield PHASES.get(name, name), seconds  # reward_calls run beside the other phases


def _charts(runs: Sequence[RunData], keys: Iterable[str]) -> list[Chart]:
    charts: list[Chart] = []
    for key in keys:
        series = [Series(run.label, _points(run, key), n) for n, run in enumerate(runs)]
        has_band = any(half is not None for one in series for _, _, half in one.points)
        note = EVAL_INTERVAL_NOTE if key.startswith("eval/") else INTERVAL_NOTE
        chart = line_chart(_title(key), series, note if has_band else _meaning(key, runs))
        if chart.svg:
            charts.append(chart)
    return charts


def _phase_chart(runs: Sequence[RunData]) -> list[Chart]:
    """Seconds per step and phase, of a single run."""
    if len(runs) != 1:
        return []
    (run,) = runs
    named = [(phase.name, phase.colour) for phase in phases_of(run) if phase.name != "other"]
    by_step = [(float(line["step"] + 1), dict(_phase_seconds(line))) for line in run.metrics]
    series = [
        Series(name, [(step, own[name], None) for step, own in by_step if name in own], colour)
        for name, colour in named
    ]
    chart = line_chart("seconds per step, by phase", series)
    return [chart] if chart.svg else []


def _points(run: RunData, key: str) -> list[tuple[float, float, float | None]]:
    points: list[tuple[float, float, float | None]] = []
    match = _REWARD.fullmatch(key)
    for line in run.metrics:
        value = _value(line, key)
        if value is not None:
            half = _half_width(line, key, match["track"]) if match else _value(line, f"{key}/interval")
            points.append((float(line["step"] + 1), value, half))
    return points


def _half_width(line: dict[str, object], key: str, track: str | None) -> float | None:
    """Of the 95 % interval of a reward's mean over the groups of a step, from the deviation of single generations.

    The means of groups vary at most as much as single generations do, so the interval is not too narrow. None where all
    generations have the same reward: a few groups do not bound those that were not sampled.
    """
    deviation = _value(line, f"{key.removesuffix('/mean')}/std")
    groups = _value(line, f"{track}/groups" if track else "groups")
    return None if not deviation or not groups or groups < 2 else 1.96 * deviation / math.sqrt(groups)


def _value(line: dict[str, object], key: str) -> float | None:
    value = line.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _meaning(key: str, runs: Sequence[RunData]) -> str:
    """A note on a metric; that on the schedule only where a run has a time limit."""
    if key == "learning_rate" and not any(run.minutes for run in runs):
        return ""
    return next((text for end, text in MEANINGS if re.fullmatch(rf"(?:.+/)?{end}", key)), "")


def _varies(runs: Sequence[RunData], key: str) -> bool:
    return len({line[key] for run in runs for line in run.metrics if line.get(key) is not None}) > 1


def _title(key: str) -> str:
    match = _REWARD.fullmatch(key)
    if match:
        return f"{match['track']}: {match['name']}" if match["track"] else match["name"]
    total = TOTAL.fullmatch(key)
    return key if not total else f"{total['track']}: weighted sum" if total["track"] else "reward: weighted sum"

"""The rewards suite: what a recipe's own rewards say of its scenarios on rows that training never sees.

Every track is rolled out on validation rows, `samples_per_item` times as it trains and once greedily. A reward's value
is the mean over rows of the mean over generations, with a 95 % interval over rows.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from motet.config import Recipe
from motet.core.trajectory import ActKind, Group, Sampling, Scores, TextTokens
from motet.numerics.statistics import mean_interval
from motet.rewards import BoundReward, StepLog, score_groups
from motet.training.rollout import rollout
from motet.training.setup import Track, TrainingSetup, eval_rows, sampling_params

ROWS_PER_BATCH = 32
SPECIMENS = 40


@dataclass(frozen=True)
class SampleImage:
    """A drawing with what it was asked for, and whether the track's first reward was at its full 1."""

    prompt: str
    image: Image.Image
    correct: bool


@dataclass(frozen=True)
class RewardsSuiteResult:
    """`table[track][reward]` is {"mean", "interval", "greedy", "rows", "by_row"}; `specimens` the first drawings.

    `by_row`: the mean of each row's siblings, None where the reward does not apply; what differences are paired by. A
    mean of no row is None.
    """

    table: dict[str, dict[str, dict[str, Any]]]
    specimens: list[SampleImage]


def evaluate_tracks(
    session: TrainingSetup,
    progress: Callable[[int, int], None] = lambda done, total: None,
    like: Mapping[str, Any] | None = None,
) -> RewardsSuiteResult:
    """Play every track of a session on `eval.size` rows of the suite's split, or on all of them if it has fewer.

    Once a track's share of `eval.minutes` is over no further batch of its rows is begun. `like` is the table of a
    measurement whose rows are played again, however long that takes. `progress(done, total)` is called after every
    batch of rows.
    """
    recipe, table = session.recipe, {}
    minutes = recipe.eval.minutes if like is None else None
    share = math.inf if minutes is None else 60 * minutes / len(session.tracks)
    specimens: list[SampleImage] = []
    sources = [eval_rows(recipe, track) for track in session.tracks]
    sizes = [recipe.eval.size if rows.size is None else min(recipe.eval.size, rows.size) for rows in sources]
    if like is not None:
        sizes = [len(next(iter(like[_label(track)].values()))["by_row"]) for track in session.tracks]
    done = 0
    for track, rows, size in zip(session.tracks, sources, sizes, strict=True):
        sampled: list[Scores] = []
        greedy: list[Scores] = []
        began = time.monotonic()
        for start in range(0, size, ROWS_PER_BATCH):
            if start and time.monotonic() - began > share:
                break
            tasks = [rows.task(n) for n in range(start, min(size, start + ROWS_PER_BATCH))]
            played, scores = _play(session, track, tasks, recipe.eval.samples_per_item, sampling_params(recipe))
            sampled += scores
            greedy += _play(session, track, tasks, 1, _greedy(recipe))[1]
            if len(specimens) < SPECIMENS:
                specimens += _specimens(played, scores, track.rewards[0])
            done += len(tasks)
            progress(done, sum(sizes))
        table[_label(track)] = {
            reward.name: _summary([s.values[reward.name] for s in sampled], [s.values[reward.name] for s in greedy])
            for reward in track.rewards
        }
    return RewardsSuiteResult(table, specimens[:SPECIMENS])


def _label(track: Track) -> str:
    return track.name or track.scenario.name


def _play(
    session: TrainingSetup, track: Track, tasks: Sequence[Any], siblings: int, samplings: Mapping[ActKind, Sampling]
) -> tuple[list[Group], list[Scores]]:
    seed, steps = session.recipe.eval.seed, session.recipe.run.steps
    groups = rollout(session.policy, track.scenario, tasks, siblings, samplings=samplings, seed=seed, step=0)
    # as at the end of the training, whenever it is: a reward that follows the step is the same before and after
    return groups, score_groups(groups, track.rewards, StepLog(steps, steps))


def _greedy(recipe: Recipe) -> dict[ActKind, Sampling]:
    return {kind: replace(sampling, temperature=0.0) for kind, sampling in sampling_params(recipe).items()}


def _summary(sampled: Sequence[Sequence[float | None]], greedy: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """Rows to which the reward does not apply are left out; a failed sibling counts as no sample.

    None are a mean of no row, and the interval of less than two.
    """
    by_row = [_mean([value for value in values if value is not None]) for values in sampled]
    means = [mean for mean in by_row if mean is not None]
    best = [value for values in greedy for value in values if value is not None]
    return {
        "mean": _rounded(_mean(means)),
        "interval": _rounded(mean_interval(means)[1] if len(means) > 1 else None),
        "greedy": _rounded(_mean(best)),
        "rows": float(len(means)),
        "by_row": [_rounded(mean) for mean in by_row],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _specimens(groups: Sequence[Group], scores: Sequence[Scores], reward: BoundReward) -> list[SampleImage]:
    """Of each group the first sibling's last drawing of those that the reward speaks for, or of all if it speaks for
    none; with the first words before it, which are what it was asked for."""
    shown: list[SampleImage] = []
    for group, score in zip(groups, scores, strict=True):
        drawings = [act for act in group.trajectories[0].acts if not isinstance(act, TextTokens)]
        if drawings:
            judged: list[Any] = [act for act in drawings if act.name in reward.acts] or drawings
            act = judged[-1]
            value = score.values[reward.name][0]
            shown.append(SampleImage(act.context.text.partition("\n")[0], act.image, value is not None and value >= 1))
    return shown

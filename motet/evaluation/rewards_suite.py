"""The rewards suite: a recipe's own rewards on validation rows.

Every track is rolled out on validation rows, `samples_per_item` times with its training settings and once greedily. A
reward's value is the mean over rows of the mean over generations, with a 95 % interval over rows.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from motet.config import Recipe
from motet.core.trajectory import Group, ImageAct, Sampling, Scores
from motet.distributed.shared_groups import share_scores
from motet.evaluation.sample_image import SampleImage
from motet.numerics.statistics import item_interval
from motet.rewards import BoundReward, StepLog, score_groups
from motet.training.rollout import rollout
from motet.training.setup import Track, TrainingSetup, eval_rows, sampling_params

ROWS_PER_BATCH = 32
MAX_SAMPLES = 40


@dataclass(frozen=True)
class RewardsSuiteResult:
    """`table[track][reward]` is {"mean", "interval", "greedy", "rows", "by_row"}; `samples` are the first images.

    `by_row`: the mean over each row's generations, None if the reward does not apply; differences are paired by it. The
    mean of no rows is None.
    """

    table: dict[str, dict[str, dict[str, Any]]]
    samples: list[SampleImage]


def evaluate_tracks(
    session: TrainingSetup,
    progress: Callable[[int, int], None] = lambda done, total: None,
    like: Mapping[str, Any] | None = None,
) -> RewardsSuiteResult:
    """Roll out every track on `eval.size` rows of the suite's split, or on all of them if it has fewer.

    After a track's share of `eval.minutes` no further batch of its rows is started. `like` is the table of an earlier
    evaluation whose rows are used again, without time limit. `progress(done, total)` is called after every batch.
    """
    recipe, table = session.recipe, {}
    minutes = recipe.eval.minutes if like is None else None
    share = math.inf if minutes is None else 60 * minutes / len(session.tracks)
    samples: list[SampleImage] = []
    processes = session.processes
    per_batch = ROWS_PER_BATCH * processes.size
    sources = [eval_rows(recipe, track) for track in session.tracks]
    sizes = [recipe.eval.size if rows.size is None else min(recipe.eval.size, rows.size) for rows in sources]
    if like is not None:
        sizes = [len(next(iter(like[_label(track)].values()))["by_row"]) for track in session.tracks]
    done = 0
    for track, rows, size in zip(session.tracks, sources, sizes, strict=True):
        sampled: list[Scores] = []
        greedy: list[Scores] = []
        started = time.monotonic()
        for start in range(0, size, ROWS_PER_BATCH):
            if start and processes.broadcast(time.monotonic() - started > share):
                break
            numbers = range(start, min(size, start + per_batch))
            with processes.phase("evaluation"):
                tasks = [rows.task(n) for n in processes.own(numbers)]
                groups, scores = _roll_out(session, track, tasks, recipe.eval.samples_per_item, sampling_params(recipe))
                best = _roll_out(session, track, tasks, 1, _greedy(recipe))[1]
                missing = MAX_SAMPLES if len(samples) < MAX_SAMPLES else 0
                shown = [
                    _sample_images([group], [own], track.rewards[0]) if n - start < missing else []
                    for n, group, own in zip(processes.own(numbers), groups, scores, strict=True)
                ]
            sampled += share_scores(processes, scores)
            greedy += share_scores(processes, best)
            samples += chain.from_iterable(processes.merge(shown))
            done += len(numbers)
            progress(done, sum(sizes))
        table[_label(track)] = {
            reward.name: _summary([s.values[reward.name] for s in sampled], [s.values[reward.name] for s in greedy])
            for reward in track.rewards
        }
    if done < sum(sizes):  # the time was over
        progress(done, done)
    return RewardsSuiteResult(table, samples[:MAX_SAMPLES])


def _label(track: Track) -> str:
    return track.name or track.scenario.name


def _roll_out(
    session: TrainingSetup,
    track: Track,
    tasks: Sequence[Any],
    num_generations: int,
    samplings: Mapping[str, Sampling],
) -> tuple[list[Group], list[Scores]]:
    seed, steps = session.recipe.eval.seed, session.recipe.run.steps
    groups = rollout(session.policy, track.scenario, tasks, num_generations, samplings=samplings, seed=seed, step=0)
    # the step is that of the end of training, so that rewards that depend on it are equal before and after training
    return groups, score_groups(groups, track.rewards, StepLog(steps, steps))


def _greedy(recipe: Recipe) -> dict[str, Sampling]:
    return {kind: replace(sampling, temperature=0.0) for kind, sampling in sampling_params(recipe).items()}


def _summary(sampled: Sequence[Sequence[float | None]], greedy: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """Means over rows; rows to which the reward does not apply and failed generations are left out.

    The mean of no rows and the interval of fewer than two are None.
    """
    by_row = [_mean([value for value in values if value is not None]) for values in sampled]
    means = [mean for mean in by_row if mean is not None]
    best = [value for values in greedy for value in values if value is not None]
    return {
        "mean": _round(_mean(means)),
        "interval": _round(item_interval(means)[1] if len(means) > 1 else None),
        "greedy": _round(_mean(best)),
        "rows": float(len(means)),
        "by_row": [_round(mean) for mean in by_row],
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _sample_images(groups: Sequence[Group], scores: Sequence[Scores], reward: BoundReward) -> list[SampleImage]:
    """The last image of each group's first generation, with its prompt; images the reward is assigned to come first."""
    samples: list[SampleImage] = []
    for group, score in zip(groups, scores, strict=True):
        images = [act for act in group.trajectories[0].acts if isinstance(act, ImageAct)]
        if images:
            rewarded: list[Any] = [act for act in images if act.name in reward.acts] or images
            act = rewarded[-1]
            value = score.values[reward.name][0]
            prompt = act.context.text.partition("\n")[0]
            samples.append(SampleImage(prompt, act.image, value is not None and value >= 1))
    return samples

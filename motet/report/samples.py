"""What a step looked like: its first drawings as a grid, its first texts and its failures as lines."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from motet.core.errors import RunFolderError
from motet.core.trajectory import Act, DenoisingSteps, Group, ImageTokens, Scores, TextTokens
from motet.report.image_grid import picture_grid, save_picture
from motet.report.run_dir import RunFolder

GENERATIONS, PICTURES = 2, 64
"""Siblings of each prompt that are shown, and the most pictures of one grid."""


@runtime_checkable
class WeightedReward(Protocol):
    """What the captions need to know of a reward."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    @property
    def acts(self) -> tuple[str, ...]: ...


def save_samples(
    folder: RunFolder,
    step: int,
    groups: Sequence[Group],
    scores: Sequence[Scores],
    rewards: Sequence[WeightedReward],
    track: str = "",
) -> None:
    """`samples/step_N.png`: drawings with what was asked and earned; `samples/step_N.jsonl`: texts with both.

    What rewards logged of a trajectory stands beside its texts, or in a line of its own if it has none. A track with a
    name adds it to the files' names. Where they cannot be written (a full disk) a warning says so, and the run goes on.
    """
    name = f"samples/step_{step:06d}" + (f"_{track}" if track else "")
    try:
        _write_samples(folder, name, step, groups, scores, rewards)
    except (OSError, RunFolderError) as error:
        why = error.problem if isinstance(error, RunFolderError) else f"{error.strerror or error}."
        warnings.warn(f"{str(folder.path / name)!r} is not saved: {why}", stacklevel=2)


def _write_samples(
    folder: RunFolder,
    name: str,
    step: int,
    groups: Sequence[Group],
    scores: Sequence[Scores],
    rewards: Sequence[WeightedReward],
) -> None:
    pictures: list[Image.Image] = []
    captions: list[str] = []
    lines: list[str] = []
    for group, score in zip(groups, scores, strict=True):
        for generation_index in group.valid_indices[:GENERATIONS]:
            acts, logged = group.trajectories[generation_index].acts, score.logged.get(generation_index)
            whose = {"row": group.task.index, "sibling": generation_index}
            also = {} if logged is None else {"logged": logged}
            if also and not any(isinstance(act, TextTokens) for act in acts):
                lines.append(json.dumps(whose | also, default=str) + "\n")
            for act in acts:
                earned = _act_reward(act, score, generation_index, rewards)
                if isinstance(act, TextTokens):
                    said = {"act": act.name, "reward": round(earned, 4), "prompt": act.context.text, "text": act.text}
                    lines.append(json.dumps(whose | said | also, default=str) + "\n")
                elif isinstance(act, ImageTokens | DenoisingSteps):
                    pictures.append(act.image)
                    captions.append(f"{earned:.2f}  {act.context.text}")
    (folder.path / "samples").mkdir(exist_ok=True)
    if lines:
        folder.write_text(f"{name}.jsonl", "".join(lines))
    if pictures:
        shown = pictures[:PICTURES]
        grid = picture_grid(shown, captions[:PICTURES], [None] * len(shown), title=f"step {step}")
        save_picture(grid, folder.path / f"{name}.png")


def failure_lines(
    step: int, groups: Sequence[Group], scores: Sequence[Scores], track: str = ""
) -> Iterator[dict[str, Any]]:
    """Lines of `failures.jsonl`: one for every trajectory that failed or was dropped, with the reason."""
    for group, score in zip(groups, scores, strict=True):
        failures = {g: t.failure for g, t in enumerate(group.trajectories) if t.failure is not None}
        for generation_index, failure in sorted((failures | dict(score.dropped)).items()):
            place = {
                "step": step,
                **({"track": track} if track else {}),
                "row": group.task.index,
                "sibling": generation_index,
            }
            yield {**place, "where": failure.where, "message": failure.message}


def _act_reward(act: Act, score: Scores, generation_index: int, rewards: Sequence[WeightedReward]) -> float:
    return sum(r.weight * (score.values[r.name][generation_index] or 0.0) for r in rewards if act.name in r.acts)

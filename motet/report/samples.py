"""Samples of a step: its first images as a grid, its first texts and its failures as JSON lines."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from motet.core.errors import RunFolderError
from motet.core.protocols import WeightedReward
from motet.core.trajectory import Act, Group, ImageAct, Scores, TextAct
from motet.report.image_grid import make_image_grid, save_image
from motet.report.run_dir import RunFolder

GENERATIONS, MAX_IMAGES = 2, 64
"""Generations shown of each prompt, and the most images of one grid."""


@dataclass(frozen=True)
class ShownGroup:
    """What is saved of a group: images with captions, and lines of JSON."""

    images: list[tuple[Image.Image, str]]
    lines: list[str]


def show_group(group: Group, score: Scores, rewards: Sequence[WeightedReward]) -> ShownGroup:
    """Images with reward and prompt, and texts with both, of the group's first generations.

    What rewards logged about a trajectory is added to the lines of its texts, or has its own line if it has no text.
    """
    shown = ShownGroup([], [])
    for generation_index in group.valid_indices[:GENERATIONS]:
        acts, logged = group.trajectories[generation_index].acts, score.logged.get(generation_index)
        ids = {"row": group.task.index, "generation": generation_index}
        extra = {} if logged is None else {"logged": logged}
        if extra and not any(isinstance(act, TextAct) for act in acts):
            shown.lines.append(json.dumps(ids | extra, default=str) + "\n")
        for act in acts:
            reward = _act_reward(act, score, generation_index, rewards)
            if isinstance(act, TextAct):
                line = {"act": act.name, "reward": round(reward, 4), "prompt": act.context.text, "text": act.text}
                shown.lines.append(json.dumps(ids | line | extra, default=str) + "\n")
            elif isinstance(act, ImageAct):
                shown.images.append((act.image, f"reward {reward:.2f}: {act.context.text}"))
    return shown


def save_samples(folder: RunFolder, step: int, groups: Sequence[ShownGroup], track: str = "") -> None:
    """Write `samples/step_N.png`, a grid of images, and `samples/step_N.jsonl`.

    The name of a track is appended to the file names. A failed write (full disk) is a warning; the run goes on.
    """
    name = f"samples/step_{step:06d}" + (f"_{track}" if track else "")
    try:
        _write_samples(folder, name, step, groups)
    except (OSError, RunFolderError) as error:
        why = error.problem if isinstance(error, RunFolderError) else f"{error.strerror or error}."
        warnings.warn(f"{str(folder.path / name)!r} is not saved: {why}", stacklevel=2)


def _write_samples(folder: RunFolder, name: str, step: int, groups: Sequence[ShownGroup]) -> None:
    images = [image for group in groups for image in group.images][:MAX_IMAGES]
    lines = [line for group in groups for line in group.lines]
    (folder.path / "samples").mkdir(exist_ok=True)
    if lines:
        folder.write_text(f"{name}.jsonl", "".join(lines))
    if images:
        shown, captions = zip(*images, strict=True)
        grid = make_image_grid(shown, captions, [None] * len(images), title=f"step {step}")
        save_image(grid, folder.path / f"{name}.png")


def failure_lines(
    step: int, groups: Sequence[Group], scores: Sequence[Scores], track: str = ""
) -> Iterator[dict[str, Any]]:
    """Lines of `failures.jsonl`: one per failed or dropped trajectory, with the reason."""
    for group, score in zip(groups, scores, strict=True):
        failures = {g: t.failure for g, t in enumerate(group.trajectories) if t.failure is not None}
        for generation_index, failure in sorted((failures | dict(score.dropped)).items()):
            ids = {
                "step": step,
                **({"track": track} if track else {}),
                "row": group.task.index,
                "generation": generation_index,
            }
            yield {**ids, "where": failure.where, "message": failure.message}


def _act_reward(act: Act, score: Scores, generation_index: int, rewards: Sequence[WeightedReward]) -> float:
    """The weighted sum of the rewards that are assigned to an act."""

    return sum(r.weight * (score.values[r.name][generation_index] or 0.0) for r in rewards if act.name in r.acts)
